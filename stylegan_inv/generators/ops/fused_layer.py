"""A synthesis layer in three passes over the feature map: modulation, convolution, and all that follows it."""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.generators.ops import cpu, dispatch
from stylegan_inv.generators.ops.cpu_functions import LayerEpilogue, conv3x3, conv3x3_weight_gradient
from stylegan_inv.generators.ops.layer_operators import modulate_backward
from stylegan_inv.utils.compat import is_plain_cpu_tensor


def covers(x: Tensor, weight: Tensor, noise: Tensor | None, up: int, f: Tensor | None) -> bool:
    """Returns whether :func:`run` supports a layer: 3x3 weights, four taps, and one noise map for all channels."""
    size = (x.shape[2] * up, x.shape[3] * up)
    shared = noise is None or (noise.ndim == 4 and noise.shape[1:] == (1, *size) and noise.shape[0] in (1, x.shape[0]))
    blur = f is not None and f.ndim == 1 and f.shape[0] == 4
    return shared and weight.shape[2:] == (3, 3) and (up == 1 or (up == 2 and blur))


def run(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    d: Tensor,
    bias: Tensor,
    noise: Tensor | None,
    up: int,
    f: Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Runs :func:`.styled_conv2d` with a given demodulation ``d`` ``(B, O)``, in the dtype of ``x`` or of autocast."""
    if torch.is_autocast_enabled(x.device.type):
        x = x.to(torch.get_autocast_dtype(x.device.type))
    if x.dtype == torch.float16:
        # Keeps the sums of the convolution near 1, far below the largest float16. The factor and its derivative cancel.
        largest = styles.detach().abs().amax(dim=1, keepdim=True).clamp_min(1e-20)
        shrink = 1 / (largest * math.sqrt(weight[0].numel()))
        styles, d = styles * shrink, d / shrink
    y = _ModulatedConv.apply(x, weight.to(x.dtype), styles, up)
    blur = f.to(x.device) if up == 2 and f is not None else None
    if dispatch.trains_natively("auto", x) and cpu.available(y):
        native: Tensor = LayerEpilogue.apply(y, bias, d, noise, blur, float(up * up), slope, gain, clamp)
        return native
    out: Tensor = torch.ops.stylegan_inv.bias_act(y, bias, d, noise, blur, float(up * up), slope, gain, clamp)
    return out


def _modulate(x: Tensor, styles: Tensor) -> Tensor:
    if x.device.type == "cpu" and x.dtype == styles.dtype:
        return x * styles[:, :, None, None]
    product: Tensor = torch.ops.stylegan_inv.modulate(x, styles)
    return product


def _modulate_backward(dy: Tensor, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    if x.device.type != "cpu" or x.dtype != styles.dtype:
        return modulate_backward(dy, x, styles)
    plain = is_plain_cpu_tensor(dy) and dispatch.trains_natively("auto", x)  # and no batch of is_grads_batched
    if plain and not torch.is_grad_enabled() and cpu.available(x):
        return cpu.modulate_backward(dy, x, styles)
    return dy * styles[:, :, None, None], (dy * x).sum(dim=(2, 3))


class _ModulatedConv(torch.autograd.Function):
    """Computes ``conv(x * styles, weight)`` and saves ``x`` instead of the product for the backward pass.

    ``x`` is the output of the previous layer and in memory anyway; the product would be another feature map for each
    layer. Gradients that are not required are not computed: frozen weights need no convolution for their gradient.
    """

    generate_vmap_rule = True

    @staticmethod
    def forward(x: Tensor, weight: Tensor, styles: Tensor, up: int) -> Tensor:
        if up == 1 and _natively(x, weight.shape[0]):
            return cpu.conv3x3(x, weight, False, scale=styles)
        scaled = _modulate(x, styles)
        if up == 2:
            return F.conv_transpose2d(scaled, weight.transpose(0, 1), stride=2)
        return F.conv2d(scaled, weight, padding=1)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        x, weight, styles, ctx.up = inputs
        ctx.save_for_backward(x, weight, styles)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, styles = ctx.saved_tensors
        dx = dweight = dstyles = None
        if ctx.needs_input_grad[0] or ctx.needs_input_grad[2]:
            if ctx.up == 2:
                back = F.conv2d(grad, weight.transpose(0, 1), stride=2)
            elif dispatch.trains_natively("auto", x):
                back = conv3x3(grad, weight, True)
            else:
                back = F.conv_transpose2d(grad, weight, padding=1)
            dx, dstyles = _modulate_backward(back, x, styles)
        if ctx.needs_input_grad[1] and dispatch.weight_gradients():
            dweight = _weight_gradient(grad, x, styles, weight, ctx.up)
        return dx, dweight, dstyles, None


def _natively(x: Tensor, channels: int) -> bool:
    return dispatch.trains_natively("auto", x) and cpu.available(x) and cpu.convolves(x, channels)


def _weight_gradient(grad: Tensor, x: Tensor, styles: Tensor, weight: Tensor, up: int) -> Tensor:
    native = up == 1 and is_plain_cpu_tensor(grad) and _natively(x, weight.shape[0])
    if native and not torch.is_grad_enabled():
        return cpu.conv3x3_weight_gradient(x, grad, scale=styles)
    scaled = _modulate(x, styles)
    if native:
        return conv3x3_weight_gradient(scaled, grad)
    kernel = weight.transpose(0, 1) if up == 2 else weight
    geometry = ([up] * 2, [0, 0] if up == 2 else [1, 1], [1, 1], up == 2, [0, 0], 1)
    gradient: Tensor = torch.ops.aten.convolution_backward(grad, scaled, kernel, None, *geometry, [False, True, False])[
        1
    ]
    return gradient.transpose(0, 1) if up == 2 else gradient
