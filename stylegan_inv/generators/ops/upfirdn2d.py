"""Pad, upsample by zero insertion, filter with a FIR, downsample: the resampling primitive of StyleGAN2."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import dispatch

#: StyleGAN2's binomial filter.
FILTER_TAPS = (1, 3, 3, 1)


def setup_filter(taps: Sequence[float] | Sequence[Sequence[float]] = FILTER_TAPS, *, normalize: bool = True) -> Tensor:
    """Make a filter for :func:`upfirdn2d`.

    Args:
        taps: a list (1-D: the filter is its outer product with itself, applied separably) or a list of lists (2-D).
        normalize: divide by the sum, so that a constant image stays what it is.

    Returns:
        float32 tensor of shape ``(taps,)`` or ``(fh, fw)``.
    """
    values = np.asarray(taps, dtype=np.float64)
    if values.ndim not in (1, 2) or values.size == 0:
        raise UserError(f"a filter is a list of numbers or a list of such lists, got shape {values.shape}")
    if normalize:
        values = values / values.sum()
    return torch.tensor(values.tolist(), dtype=torch.float32)


def _pair(value: int | Sequence[int], name: str) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise UserError(f"{name} must be a positive integer or two of them (x, y), got {value!r}")
    return pair[0], pair[1]


def _padding(value: int | Sequence[int]) -> tuple[int, int, int, int]:
    if isinstance(value, int):
        return value, value, value, value
    p = tuple(value)
    if len(p) == 2:
        return p[0], p[0], p[1], p[1]
    if len(p) != 4:
        raise UserError(f"padding must be one, two (x, y) or four (x0, x1, y0, y1) integers, got {value!r}")
    return p[0], p[1], p[2], p[3]


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    add: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Upsample, FIR filter and downsample every channel of a batch of images; differentiable to any order in ``x``.

    With ``X`` the zero-inserted, padded input (sample ``i`` at position ``i * up + p0``; zeros elsewhere; negative
    padding crops), ``F`` the filter mirrored in both axes unless ``flip_filter``:
    ``y[oy, ox] = gain * sum_{ky, kx} F[ky, kx] * X[oy * down + ky, ox * down + kx]``,
    i.e. a true convolution by default and a correlation with ``flip_filter``.

    Args:
        x: ``(B, C, H, W)``.
        f: filter ``(fh, fw)``, or ``(n,)`` for the outer product of ``f`` with itself. It receives no gradient.
        up: zero insertion factor, an integer or (x, y).
        down: decimation factor, an integer or (x, y).
        padding: one, two (x, y) or four (x0, x1, y0, y1) integers, in pixels of the upsampled image.
        flip_filter: correlate instead of convolve.
        gain: factor on the output, once for both axes.
        add: a tensor of the output's shape that is added to it, or None.
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        ``(B, C, OH, OW)`` with ``OH = (H * up + y0 + y1 - fh + down) // down`` and the same for the width.

    Raises:
        UserError: malformed arguments, or an output without pixels.
    """
    if x.ndim != 4:
        raise UserError(f"upfirdn2d expects a batch of images (B, C, H, W), got shape {tuple(x.shape)}")
    if f.ndim not in (1, 2):
        raise UserError(f"upfirdn2d expects a filter of one or two axes, got shape {tuple(f.shape)}")
    up_x, up_y = _pair(up, "up")
    down_x, down_y = _pair(down, "down")
    x0, x1, y0, y1 = _padding(padding)
    out_h, out_w = output_size(x, f, (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1))
    if out_h < 1 or out_w < 1:
        raise UserError(
            f"upfirdn2d of a {x.shape[2]}x{x.shape[3]} image leaves no pixels (up {up!r}, down {down!r}, padding "
            f"{padding!r}, filter {f.shape[0]}x{f.shape[-1]}): pad more or use a smaller filter"
        )
    if dispatch.resolve(impl, x) == "fast":
        fused = add if add is not None and add.shape == (*x.shape[:2], out_h, out_w) and add.dtype == x.dtype else None
        y = torch.ops.stylegan_inv.upfirdn2d(
            x, f.to(x.device), (up_x, up_y), (down_x, down_y), (x0, x1, y0, y1), flip_filter, gain, fused
        )
        return y if fused is add else y + add
    f = f.to(device=x.device, dtype=x.dtype)
    if f.ndim == 1 and f.shape[0] <= _DENSE_TAPS:
        f = torch.outer(f, f)
    scaled = f * gain if gain != 1 else f
    if f.ndim == 2:
        y = _Fir.apply(x, scaled, (up_y, up_x), (down_y, down_x), (x0, x1, y0, y1), flip_filter)
    else:  # rows, then columns: 2n multiplications a pixel instead of n^2
        y = _Fir.apply(x, scaled[None, :], (1, up_x), (1, down_x), (x0, x1, 0, 0), flip_filter)
        y = _Fir.apply(y, f[:, None], (up_y, 1), (down_y, 1), (0, 0, y0, y1), flip_filter)
    return y if add is None else y + add


def output_size(
    x: Tensor, f: Tensor, up: Sequence[int], down: Sequence[int], padding: Sequence[int]
) -> tuple[int, int]:
    """Height and width of a result of :func:`upfirdn2d`; ``up``, ``down`` (x, y) and ``padding`` (x0, x1, y0, y1)."""
    fw, fh = _taps(f)
    x0, x1, y0, y1 = padding
    height = (x.shape[2] * up[1] + y0 + y1 - fh + down[1]) // down[1]
    width = (x.shape[3] * up[0] + x0 + x1 - fw + down[0]) // down[0]
    return height, width


# Up to this length an outer product of taps runs as one dense pass: it moves the image through memory once instead of
# twice. Measured on two CPU cores in float32, channels_last, 128 channels, batch 8, forward + backward: blur at 64 px
# 7.2 ms dense, 6.7 separable, 69 as sums of shifted views; 2x from 16 px 0.76 dense, 0.92 separable, 4.9 interpolated.
_DENSE_TAPS = 4


class _Fir(torch.autograd.Function):
    """One dense pass. The adjoint of this operation is the same operation with ``up`` and ``down`` exchanged, so its
    backward calls itself and any order of derivatives exists.

    PyTorch's own double backward of a depthwise convolution loops over the channels (a convolution each, for the
    gradient of a filter that nobody asked for): R1 at 64 px took 49 ms an image with it, a fraction of it without.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(
        x: Tensor,
        f: Tensor,
        up: tuple[int, int],
        down: tuple[int, int],
        padding: tuple[int, int, int, int],
        flip_filter: bool,
    ) -> Tensor:
        return _filter(x, f, up, down, padding, flip_filter)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, f, ctx.up, ctx.down, ctx.padding, ctx.flip_filter = inputs
        ctx.save_for_backward(f)
        ctx.in_size, ctx.out_size = x.shape[2:], output.shape[2:]

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        if not ctx.needs_input_grad[0]:
            return None, None, None, None, None, None
        (f,) = ctx.saved_tensors
        x0, _, y0, _ = ctx.padding
        pads = []
        for axis, first in ((1, x0), (0, y0)):
            # Output o reads inputs i with i * up + p0 = o * down + k; solve for the padding that exchanges their roles.
            taps, up, down = f.shape[axis], ctx.up[axis], ctx.down[axis]
            pads += [taps - first - 1, ctx.in_size[axis] * up - ctx.out_size[axis] * down + first - up + 1]
        back = _Fir.apply(grad, f, ctx.down, ctx.up, tuple(pads), not ctx.flip_filter)
        return back, None, None, None, None, None


def _filter(
    x: Tensor,
    f: Tensor,
    up: tuple[int, int],
    down: tuple[int, int],
    padding: tuple[int, int, int, int],
    flip_filter: bool,
) -> Tensor:
    """The pass itself as a depthwise convolution; ``f`` has two axes, ``up`` and ``down`` are (y, x)."""
    channels = x.shape[1]
    fh, fw = f.shape
    f = f.to(x.dtype)  # under autocast a gradient comes in another precision than the input had
    x0, x1, y0, y1 = padding
    if up == (1, 1):
        kernel = (f if flip_filter else f.flip(0, 1)).expand(channels, 1, fh, fw)
        if y0 == y1 >= 0 and x0 == x1 >= 0:
            return F.conv2d(x, kernel, stride=down, padding=(y0, x0), groups=channels)
        return F.conv2d(_pad(x, (x0, x1, y0, y1)), kernel, stride=down, groups=channels)
    # Polyphase upsampling: a transposed convolution never touches the inserted zeros. Its sample n is the full
    # convolution at n, which is the padded correlation at n - (taps - 1) + p0: crop the difference.
    kernel = (f.flip(0, 1) if flip_filter else f).expand(channels, 1, fh, fw)
    top, bottom = fh - 1 - y0, fh - y1 - up[0]
    left, right = fw - 1 - x0, fw - x1 - up[1]
    if top >= 0 <= top - bottom < up[0] and left >= 0 <= left - right < up[1]:  # it can crop this by itself
        extra = (top - bottom, left - right)
        y = F.conv_transpose2d(x, kernel, stride=up, padding=(top, left), output_padding=extra, groups=channels)
    else:
        y = _pad(F.conv_transpose2d(x, kernel, stride=up, groups=channels), (-left, -right, -top, -bottom))
    return y if down == (1, 1) else y[:, :, :: down[0], :: down[1]]


def _pad(x: Tensor, padding: tuple[int, int, int, int]) -> Tensor:
    """Zeros around ``x``, or less of it; also where a crop takes more than all of ``x`` and reaches the zeros."""
    height, width = x.shape[2:]
    if max(-min(padding[:2]) - width, -min(padding[2:]) - height) >= 0:  # F.pad refuses that in one step
        x = F.pad(x, [max(p, 0) for p in padding])
        padding = tuple(min(p, 0) for p in padding)  # type: ignore[assignment]
    return F.pad(x, padding)


def _taps(f: Tensor) -> tuple[int, int]:
    """Width and height of a filter."""
    return (f.shape[0], f.shape[0]) if f.ndim == 1 else (f.shape[1], f.shape[0])


def filter2d(x: Tensor, f: Tensor, padding: int | Sequence[int] = 0, gain: float = 1.0, impl: str = "auto") -> Tensor:
    """Filter at the same size: ``(B, C, H, W)`` -> ``(B, C, H, W)`` when ``padding`` is 0 (more of it enlarges)."""
    x0, x1, y0, y1 = _padding(padding)
    fw, fh = _taps(f)
    pad = (x0 + fw // 2, x1 + (fw - 1) // 2, y0 + fh // 2, y1 + (fh - 1) // 2)
    return upfirdn2d(x, f, padding=pad, gain=gain, impl=impl)


def upsample2d(x: Tensor, f: Tensor, up: int = 2, add: Tensor | None = None, impl: str = "auto") -> Tensor:
    """Enlarge ``(B, C, H, W)`` -> ``(B, C, up*H, up*W)``, keeping the mean (gain ``up**2``), and add an image to it."""
    fw, fh = _taps(f)
    pad = ((fw + up - 1) // 2, (fw - up) // 2, (fh + up - 1) // 2, (fh - up) // 2)
    return upfirdn2d(x, f, up=up, padding=pad, gain=float(up * up), add=add, impl=impl)


def downsample2d(x: Tensor, f: Tensor, down: int = 2, impl: str = "auto") -> Tensor:
    """Shrink ``(B, C, H, W)`` -> ``(B, C, H/down, W/down)``, keeping the mean."""
    fw, fh = _taps(f)
    pad = ((fw - down + 1) // 2, (fw - down) // 2, (fh - down + 1) // 2, (fh - down) // 2)
    return upfirdn2d(x, f, down=down, padding=pad, impl=impl)
