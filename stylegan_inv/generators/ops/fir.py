"""A pass of an FIR filter over images in plain PyTorch."""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


class Fir(torch.autograd.Function):
    """One dense pass of a filter with two axes, differentiable to any order.

    Arguments of ``apply``: images (B, C, H, W), filter, up (y, x), down (y, x), padding (x0, x1, y0, y1), flip.

    The adjoint of this operation is the same operation with ``up`` and ``down`` exchanged, so its backward pass calls
    itself. PyTorch's own double backward pass of a depthwise convolution also computes the gradient of the filter, by a
    convolution for each channel: with it, R1 at 64 px took 49 ms for each image.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(  # noqa: D102
        x: Tensor,
        f: Tensor,
        up: tuple[int, int],
        down: tuple[int, int],
        padding: tuple[int, int, int, int],
        flip_filter: bool,
    ) -> Tensor:
        return _filter(x, f, up, down, padding, flip_filter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:  # noqa: D102
        x, f, ctx.up, ctx.down, ctx.padding, ctx.flip_filter = inputs
        ctx.save_for_backward(f)
        ctx.in_size, ctx.out_size = x.shape[2:], output.shape[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None
        (f,) = ctx.saved_tensors
        x0, _, y0, _ = ctx.padding
        pads = []
        for axis, first in ((1, x0), (0, y0)):
            # Output o reads the inputs i with i * up + p0 = o * down + k. The adjoint exchanges their roles.
            taps, up, down = f.shape[axis], ctx.up[axis], ctx.down[axis]
            pads += [taps - first - 1, ctx.in_size[axis] * up - ctx.out_size[axis] * down + first - up + 1]
        back = Fir.apply(grad, f, ctx.down, ctx.up, tuple(pads), not ctx.flip_filter)
        return back, None, None, None, None, None


def _filter(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
) -> Tensor:
    """Runs the pass as a depthwise convolution; ``f`` has two axes, ``up`` and ``down`` are (y, x)."""
    channels = x.shape[1]
    fh, fw = f.shape
    f = f.to(x.dtype)  # under autocast, the gradient and the input may differ in precision
    x0, x1, y0, y1 = padding
    if up == (1, 1):
        kernel = (f if flip_filter else f.flip(0, 1)).expand(channels, 1, fh, fw)
        if y0 == y1 >= 0 and x0 == x1 >= 0:
            return F.conv2d(x, kernel, stride=down, padding=(y0, x0), groups=channels)
        return F.conv2d(_pad(x, (x0, x1, y0, y1)), kernel, stride=down, groups=channels)
    # Polyphase upsampling: a transposed convolution skips the inserted zeros. Its sample n is the full convolution at
    # n, which is the padded correlation at n - (taps - 1) + p0, so the difference is cropped.
    kernel = (f.flip(0, 1) if flip_filter else f).expand(channels, 1, fh, fw)
    top, bottom = fh - 1 - y0, fh - y1 - up[0]
    left, right = fw - 1 - x0, fw - x1 - up[1]
    if top >= 0 <= top - bottom < up[0] and left >= 0 <= left - right < up[1]:  # conv_transpose2d can crop this
        extra = (top - bottom, left - right)
        y = F.conv_transpose2d(x, kernel, stride=up, padding=(top, left), output_padding=extra, groups=channels)
    else:
        y = _pad(F.conv_transpose2d(x, kernel, stride=up, groups=channels), (-left, -right, -top, -bottom))
    return y if down == (1, 1) else y[:, :, :: down[0], :: down[1]]


def _pad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Pads ``x`` by zeros or crops it; a crop may reach into the padding of the opposite side."""
    height, width = x.shape[2:]
    if max(-min(padding[:2]) - width, -min(padding[2:]) - height) >= 0:  # F.pad does not support this in one step
        x = F.pad(x, [max(p, 0) for p in padding])
        x0, x1, y0, y1 = (min(p, 0) for p in padding)
        padding = (x0, x1, y0, y1)
    return F.pad(x, padding)
