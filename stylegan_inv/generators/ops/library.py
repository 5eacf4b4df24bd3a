"""The operations as operators of ``torch.library`` (namespace ``stylegan_inv``): what ``impl="fast"`` runs.

As operators they are opaque to the compiler, which keeps graphs whole, and have shapes for fake tensors, derivatives
and layouts that follow the input's. Each runs CUDA kernels where :mod:`.cuda` has them and plain PyTorch elsewhere.

Derivatives: a backward pass runs one fused operator. Under ``create_graph`` it runs the same formula in differentiable
operations instead, which gives derivatives of any order.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.generators.ops import cuda
from stylegan_inv.generators.ops.cuda import empty, layout
from stylegan_inv.generators.ops.upfirdn2d import output_size, upfirdn2d

_LIBRARY = torch.library.Library("stylegan_inv", "DEF")
_TAGS = (torch.Tag.pt2_compliant_tag, torch.Tag.needs_fixed_stride_order)


def _define(schema: str, plain: Any, kernels: Any, fake: Any) -> None:
    name = schema.split("(")[0]
    _LIBRARY.define(schema, tags=_TAGS)
    _LIBRARY.impl(name, plain, "CompositeExplicitAutograd")
    _LIBRARY.impl(name, kernels, "CUDA")
    torch.library.register_fake(f"stylegan_inv::{name}", fake, lib=_LIBRARY)


def _derivative(name: str, backward: Any, setup_context: Any) -> None:
    torch.library.register_autograd(f"stylegan_inv::{name}", backward, setup_context=setup_context, lib=_LIBRARY)


# upfirdn2d(x, f) [+ add] ----------------------------------------------------------------------------------------------


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
        dx = _adjoint(dy, f, ctx.shape, up, down, padding, flip, gain)
    return dx, None, None, None, None, None, None, dy if ctx.needs_input_grad[7] else None


def _adjoint(
    dy: Tensor,
    f: Tensor,
    shape: Sequence[int],
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
) -> Tensor:
    """The transpose of the operation is the operation: up and down exchanged, filter mirrored, the rest padded back."""
    fh, fw = f.shape[0], f.shape[-1]
    x0, _, y0, _ = padding
    back = [fw - x0 - 1, shape[3] * up[0] - dy.shape[3] * down[0] + x0 - up[0] + 1]
    back += [fh - y0 - 1, shape[2] * up[1] - dy.shape[2] * down[1] + y0 - up[1] + 1]
    return torch.ops.stylegan_inv.upfirdn2d(dy, f, down, up, back, not flip, gain, None)


_define(
    "upfirdn2d(Tensor x, Tensor f, SymInt[2] up, SymInt[2] down, SymInt[4] padding, bool flip, float gain, "
    "Tensor? add) -> Tensor",
    _upfirdn2d,
    _upfirdn2d_kernels,
    _upfirdn2d_fake,
)
_derivative("upfirdn2d", _upfirdn2d_backward, _upfirdn2d_setup)


# bias_act: clamp(gain * lrelu(blur(x) * scale + noise + bias)) --------------------------------------------------------

_BLUR_PADDING = (1, 1, 1, 1)


def _rows(bias: Tensor) -> Tensor:
    return bias[:, None, None]


def _bias_act(
    x: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    fir_gain: float,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    v = x if fir is None else upfirdn2d(x, fir, padding=_BLUR_PADDING, gain=fir_gain, impl="ref")
    if scale is not None:
        v = v * scale[:, :, None, None]
    if noise is not None:
        v = v + noise
    if bias is not None:
        v = v + _rows(bias)
    y = F.leaky_relu(v, slope) * gain
    if clamp is not None:
        y = y.clamp(-clamp, clamp)
    return y.to(x.dtype).contiguous(memory_format=layout(x))


def _bias_act_kernels(x: Tensor, *arguments: Any) -> Tensor:
    return cuda.bias_act(x, *arguments) if cuda.available(x) else _bias_act(x, *arguments)


def _bias_act_fake(
    x: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    *constants: Any,
) -> Tensor:
    shrink = 0 if fir is None else 1  # four taps, one pixel of padding
    return empty(x, x.shape[2] - shrink, x.shape[3] - shrink)


def _bias_act_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    _, bias, scale, noise, fir, *ctx.constants = inputs
    ctx.save_for_backward(output, bias, scale, noise, fir)


def _bias_act_derivative(ctx: Any, dy: Tensor) -> tuple[Any, ...]:
    y, bias, scale, noise, fir = ctx.saved_tensors
    if torch.is_grad_enabled():  # create_graph
        dx, dbias, dscale, dnoise = _differentiable(dy, y, bias, scale, noise, fir, *ctx.constants)
    else:
        backward = torch.ops.stylegan_inv.bias_act_backward
        dx, dbias, dscale = backward(dy, y, bias, scale, noise, fir, *ctx.constants)
        dnoise = None
        if ctx.needs_input_grad[3]:  # a sum over channels, for which the kernel is not made: dv by itself
            dv = backward(dy, y, None, None, None, None, *ctx.constants)[0]
            dnoise = dv.sum_to_size(noise.shape).to(noise.dtype)
    grads = [g if need else None for g, need in zip((dx, dbias, dscale, dnoise), ctx.needs_input_grad, strict=False)]
    return *grads, None, None, None, None, None


def _differentiable(
    dy: Tensor,
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    fir_gain: float,
    slope: float,
    gain: float,
    clamp: float | None,
) -> tuple[Tensor, Tensor | None, Tensor | None, Tensor | None]:
    """Gradients for x, bias, scale and noise from the output alone (the derivation is in csrc/cuda/bias_act.cu).

    They hold as identities, with y a function of the inputs, so their derivatives are right as well.
    """
    dtype, wide = y.dtype, torch.promote_types(y.dtype, torch.float32)
    inside = None if clamp is None else y.abs() < clamp  # in the dtype of y, in which the limit was stored
    dy, y = dy.to(wide), y.to(wide)
    slopes = (y > 0).to(wide) * (gain - gain * slope) + gain * slope
    if inside is not None:
        slopes, y = slopes * inside, y * inside
    dv = dy * slopes
    dx = dv if scale is None else dv * scale[:, :, None, None]
    if fir is not None:
        shape = (*y.shape[:2], y.shape[2] + 1, y.shape[3] + 1)
        dx = _adjoint(dx, fir, shape, (1, 1), (1, 1), _BLUR_PADDING, False, fir_gain)
    dbias = dscale = dnoise = None
    if bias is not None:
        dbias = dv.sum(dim=(0, 2, 3)).to(bias.dtype)
    if noise is not None:
        dnoise = dv.sum_to_size(noise.shape).to(noise.dtype)
    if scale is not None:
        dscale = dy * y
        if noise is not None:
            dscale = dscale - dv * noise
        if bias is not None:
            dscale = dscale - dv * _rows(bias)
        dscale = (dscale.sum(dim=(2, 3)) / scale).to(scale.dtype)
    return dx.to(dtype), dbias, dscale, dnoise


def _bias_act_backward(
    dy: Tensor,
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    *constants: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dbias, dscale, _ = _differentiable(dy, y, bias, scale, noise, fir, *constants)
    dx = dx.contiguous(memory_format=layout(y))
    return dx, y.new_empty(0) if dbias is None else dbias, y.new_empty(0) if dscale is None else dscale


def _bias_act_backward_kernels(
    dy: Tensor,
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    *constants: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    if not cuda.available(y):
        return _bias_act_backward(dy, y, bias, scale, noise, fir, *constants)
    dx, (dv, dy_y, dv_noise) = cuda.bias_act_backward(dy, y, bias, scale, noise, fir, *constants)
    dbias = y.new_empty(0) if bias is None else dv.sum(dim=0).to(bias.dtype)
    if scale is None:
        return dx, dbias, y.new_empty(0)
    dscale = dy_y - dv_noise
    if bias is not None:
        dscale = dscale - dv * bias
    return dx, dbias, (dscale / scale).to(scale.dtype)


def _bias_act_backward_fake(
    dy: Tensor,
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    *constants: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    grow = 0 if fir is None else 1
    dx = empty(y, y.shape[2] + grow, y.shape[3] + grow)
    dbias = y.new_empty(0) if bias is None else bias.new_empty(bias.shape)
    return dx, dbias, y.new_empty(0) if scale is None else scale.new_empty(scale.shape)


_CONSTANTS = "float fir_gain, float slope, float gain, float? clamp"
_define(
    f"bias_act(Tensor x, Tensor? bias, Tensor? scale, Tensor? noise, Tensor? fir, {_CONSTANTS}) -> Tensor",
    _bias_act,
    _bias_act_kernels,
    _bias_act_fake,
)
_define(
    "bias_act_backward(Tensor dy, Tensor y, Tensor? bias, Tensor? scale, Tensor? noise, Tensor? fir, "
    f"{_CONSTANTS}) -> (Tensor, Tensor, Tensor)",
    _bias_act_backward,
    _bias_act_backward_kernels,
    _bias_act_backward_fake,
)
_derivative("bias_act", _bias_act_derivative, _bias_act_setup)


# modulate: x * styles -------------------------------------------------------------------------------------------------


def _modulate(x: Tensor, styles: Tensor) -> Tensor:
    return (x * styles[:, :, None, None]).to(x.dtype).contiguous(memory_format=layout(x))


def _modulate_kernels(x: Tensor, styles: Tensor) -> Tensor:
    return cuda.modulate(x, styles) if cuda.available(x) else _modulate(x, styles)


def _modulate_backward(dy: Tensor, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    dx = (dy * styles[:, :, None, None]).to(x.dtype).contiguous(memory_format=layout(x))
    return dx, (dy * x).sum(dim=(2, 3)).to(styles.dtype)


def _modulate_backward_kernels(dy: Tensor, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    if not cuda.available(x):
        return _modulate_backward(dy, x, styles)
    dx, dstyles = cuda.modulate_backward(dy, x, styles)
    return dx, dstyles.to(styles.dtype)


def _modulate_setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _modulate_derivative(ctx: Any, dy: Tensor) -> tuple[Tensor, Tensor]:
    return modulate_backward(dy, *ctx.saved_tensors)


def modulate_backward(dy: Tensor, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients of :func:`modulate` for ``x`` and ``styles``: fused, or differentiable under ``create_graph``."""
    if torch.is_grad_enabled():
        return _modulate_backward(dy, x, styles)
    return torch.ops.stylegan_inv.modulate_backward(dy, x, styles)


_define(
    "modulate(Tensor x, Tensor styles) -> Tensor",
    _modulate,
    _modulate_kernels,
    lambda x, styles: empty(x, *x.shape[2:]),
)
_define(
    "modulate_backward(Tensor dy, Tensor x, Tensor styles) -> (Tensor, Tensor)",
    _modulate_backward,
    _modulate_backward_kernels,
    lambda dy, x, styles: (empty(x, *x.shape[2:]), styles.new_empty(styles.shape)),
)
_derivative("modulate", _modulate_derivative, _modulate_setup)
