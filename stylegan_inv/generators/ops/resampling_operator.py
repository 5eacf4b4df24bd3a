"""The operator ``upfirdn2d``, which can also add a tensor to its result."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators.ops import cuda
from stylegan_inv.generators.ops.cuda import empty, layout
from stylegan_inv.generators.ops.library import define, derivative
from stylegan_inv.generators.ops.upfirdn2d import output_size, upfirdn2d


def _upfirdn2d(
    x: Tensor,
    f: Tensor,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
    add: Tensor | None,
) -> Tensor:
    y = upfirdn2d(x, f, up, down, padding, flip, gain, impl="ref")
    y = y if add is None else y + add
    return y.to(x.dtype).contiguous(memory_format=layout(x))


def _upfirdn2d_kernels(
    x: Tensor,
    f: Tensor,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
    add: Tensor | None,
) -> Tensor:
    if not cuda.available(x):
        return _upfirdn2d(x, f, up, down, padding, flip, gain, add)
    height, width = output_size(x, f, up, down, padding)
    square = up[0] == up[1] and down[0] == down[1] and (up[0], down[0]) in ((1, 1), (2, 1), (1, 2))
    if f.ndim == 2 or (f.shape[0] == 4 and square):
        return cuda.resample(x, f, up, down, padding, flip, gain, add, (height, width))
    x0, x1, y0, y1 = padding  # rows, then columns
    x = cuda.resample(x, f[None], (up[0], 1), (down[0], 1), (x0, x1, 0, 0), flip, gain, None, (x.shape[2], width))
    return cuda.resample(x, f[:, None], (1, up[1]), (1, down[1]), (0, 0, y0, y1), flip, 1.0, add, (height, width))


def _upfirdn2d_fake(
    x: Tensor,
    f: Tensor,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
    add: Tensor | None,
) -> Tensor:
    return empty(x, *output_size(x, f, up, down, padding))


def _upfirdn2d_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    x, f, *ctx.parameters, _ = inputs
    ctx.save_for_backward(f)
    ctx.shape = x.shape


def _upfirdn2d_backward(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    (f,) = ctx.saved_tensors
    up, down, padding, flip, gain = ctx.parameters
    dx = None
    if ctx.needs_input_grad[0]:
        dx = adjoint(dy, f, ctx.shape, up, down, padding, flip, gain)
    return dx, None, None, None, None, None, None, dy if ctx.needs_input_grad[7] else None


def adjoint(
    dy: Tensor,
    f: Tensor,
    shape: Sequence[int],
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
) -> Tensor:
    """Runs the transpose, the same operation with up and down exchanged, the filter mirrored and other padding."""
    fh, fw = f.shape[0], f.shape[-1]
    x0, _, y0, _ = padding
    back = [fw - x0 - 1, shape[3] * up[0] - dy.shape[3] * down[0] + x0 - up[0] + 1]
    back += [fh - y0 - 1, shape[2] * up[1] - dy.shape[2] * down[1] + y0 - up[1] + 1]
    dx: Tensor = torch.ops.stylegan_inv.upfirdn2d(dy, f, down, up, back, not flip, gain, None)
    return dx


define(
    "upfirdn2d(Tensor x, Tensor f, SymInt[2] up, SymInt[2] down, SymInt[4] padding, bool flip, float gain, "
    "Tensor? add) -> Tensor",
    _upfirdn2d,
    _upfirdn2d_kernels,
    _upfirdn2d_fake,
)
derivative("upfirdn2d", _upfirdn2d_backward, _upfirdn2d_setup)
