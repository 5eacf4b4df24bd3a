"""The operators ``bias_act`` (``clamp(gain * lrelu(blur(x) * scale + noise + bias))``) and ``modulate``."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.generators.ops import cuda
from stylegan_inv.generators.ops.bias_act import BLUR_PADDING, activation_gradient
from stylegan_inv.generators.ops.cuda import empty, layout
from stylegan_inv.generators.ops.library import define, derivative
from stylegan_inv.generators.ops.resampling_operator import adjoint
from stylegan_inv.generators.ops.upfirdn2d import upfirdn2d


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
    v = x if fir is None else upfirdn2d(x, fir, padding=BLUR_PADDING, gain=fir_gain, impl="ref")
    if scale is not None:
        v = v * scale[:, :, None, None]
    if noise is not None:
        v = v + noise
    if bias is not None:
        v = v + bias[:, None, None]
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
        dx, dbias, dscale, dnoise = activation_gradient(
            _adjoint_of_blur, dy, y, bias, scale, noise, fir, *ctx.constants
        )
    else:
        backward = torch.ops.stylegan_inv.bias_act_backward
        dx, dbias, dscale = backward(dy, y, bias, scale, noise, fir, *ctx.constants)
        dnoise = None
        if ctx.needs_input_grad[3]:  # a sum over channels, which the kernel does not compute: it returns dv
            dv = backward(dy, y, None, None, None, None, *ctx.constants)[0]
            dnoise = dv.sum_to_size(noise.shape).to(noise.dtype)
    grads = [g if need else None for g, need in zip((dx, dbias, dscale, dnoise), ctx.needs_input_grad, strict=False)]
    return *grads, None, None, None, None, None


def _adjoint_of_blur(dx: Tensor, fir: Tensor, shape: Sequence[int], padding: Sequence[int], gain: float) -> Tensor:
    return adjoint(dx, fir, shape, (1, 1), (1, 1), padding, False, gain)


def _bias_act_backward(
    dy: Tensor,
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    *constants: Any,
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dbias, dscale, _ = activation_gradient(_adjoint_of_blur, dy, y, bias, scale, noise, fir, *constants)
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
define(
    f"bias_act(Tensor x, Tensor? bias, Tensor? scale, Tensor? noise, Tensor? fir, {_CONSTANTS}) -> Tensor",
    _bias_act,
    _bias_act_kernels,
    _bias_act_fake,
)
define(
    "bias_act_backward(Tensor dy, Tensor y, Tensor? bias, Tensor? scale, Tensor? noise, Tensor? fir, "
    f"{_CONSTANTS}) -> (Tensor, Tensor, Tensor)",
    _bias_act_backward,
    _bias_act_backward_kernels,
    _bias_act_backward_fake,
)
derivative("bias_act", _bias_act_derivative, _bias_act_setup)


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
    """Returns the gradients of ``x`` and ``styles``, by a fused operator or, under ``create_graph``, differentiably."""
    if torch.is_grad_enabled():
        return _modulate_backward(dy, x, styles)
    gradients: tuple[Tensor, Tensor] = torch.ops.stylegan_inv.modulate_backward(dy, x, styles)
    return gradients


define(
    "modulate(Tensor x, Tensor styles) -> Tensor",
    _modulate,
    _modulate_kernels,
    lambda x, styles: empty(x, *x.shape[2:]),
)
define(
    "modulate_backward(Tensor dy, Tensor x, Tensor styles) -> (Tensor, Tensor)",
    _modulate_backward,
    _modulate_backward_kernels,
    lambda dy, x, styles: (empty(x, *x.shape[2:]), styles.new_empty(styles.shape)),
)
derivative("modulate", _modulate_derivative, _modulate_setup)
