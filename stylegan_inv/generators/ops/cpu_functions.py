"""The operations of :mod:`.cpu` as differentiable functions, for networks in training on a CPU.

They are autograd functions and no operators of :mod:`.library`, whose calls cost more than the work on small images.
Each is differentiable to any order: under ``create_graph``, the backward pass consists of differentiable operations.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.generators.ops import cpu, dispatch
from stylegan_inv.generators.ops.bias_act import activation_gradient
from stylegan_inv.generators.ops.fir import Fir
from stylegan_inv.utils.compat import is_plain_cpu_tensor


class Resample(torch.autograd.Function):
    """``upfirdn2d`` by a separable filter of four taps; its adjoint is the same function, see :func:`.adjoint_padding`.

    Arguments of ``apply``: images, filter ``(4,)``, up, down, padding (x0, x1, y0, y1), flip, gain, (height, width).
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        f: Tensor,
        up: int,
        down: int,
        padding: Sequence[int],
        flip: bool,
        gain: float,
        size: tuple[int, int],
    ) -> Tensor:
        ctx.save_for_backward(f)
        ctx.arguments, ctx.shape = (up, down, padding, flip, gain), x.shape
        return cpu.resample(x, f, up, down, padding, flip, gain, None, size)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        (f,) = ctx.saved_tensors
        dx = adjoint(grad, f, ctx.shape, *ctx.arguments) if ctx.needs_input_grad[0] else None
        return dx, None, None, None, None, None, None, None


def adjoint(
    dy: Tensor, f: Tensor, shape: Sequence[int], up: int, down: int, padding: Sequence[int], flip: bool, gain: float
) -> Tensor:
    """Returns the transpose of `Resample` for an input of a given shape, differentiably."""
    x0, _, y0, _ = padding
    back = []
    for axis, first in ((3, x0), (2, y0)):
        back += [len(f) - first - 1, shape[axis] * up - dy.shape[axis] * down + first - up + 1]
    if not is_plain_cpu_tensor(dy):
        dense = torch.outer(f, f) * gain
        batched: Tensor = Fir.apply(dy, dense, (down, down), (up, up), tuple(back), not flip)
        return batched
    dy = dy.contiguous(memory_format=torch.channels_last)
    dx: Tensor = Resample.apply(dy, f, down, up, back, not flip, gain, (shape[2], shape[3]))
    return dx


class LayerEpilogue(torch.autograd.Function):
    """``clamp(gain * lrelu(blur(x) * scale + noise + bias))``, what follows the convolution of a synthesis layer.

    Arguments of ``apply``: those of :func:`.cpu.bias_act`.
    """

    @staticmethod
    def forward(  # noqa: D102
        ctx: Any,
        x: Tensor,
        bias: Tensor,
        scale: Tensor,
        noise: Tensor | None,
        fir: Tensor | None,
        fir_gain: float,
        slope: float,
        gain: float,
        clamp: float | None,
    ) -> Tensor:
        ctx.constants = (fir_gain, slope, gain, clamp)
        y = cpu.bias_act(x, bias, scale, noise, fir, *ctx.constants)
        ctx.save_for_backward(y, bias, scale, noise, fir)
        return y

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        y, bias, scale, noise, fir = ctx.saved_tensors
        if torch.is_grad_enabled() or not is_plain_cpu_tensor(dy):  # create_graph, is_grads_batched
            gradients = activation_gradient(_adjoint_of_blur, dy, y, bias, scale, noise, fir, *ctx.constants)
        else:
            needed = ctx.needs_input_grad[3]
            dx, (dv, dy_y, dv_noise), of_noise = cpu.bias_act_backward(
                needed, dy, y, bias, scale, noise, fir, *ctx.constants
            )
            dscale = (dy_y - dv_noise - dv * bias) / scale
            dnoise = None if of_noise is None or noise is None else of_noise.sum_to_size(noise.shape)
            gradients = dx, dv.sum(dim=0), dscale, dnoise
        kept = [g if need else None for g, need in zip(gradients, ctx.needs_input_grad, strict=False)]
        return *kept, None, None, None, None, None


class Conv3x3(torch.autograd.Function):
    """3x3 convolution with one pixel of padding, or its adjoint, see :func:`.cpu.conv3x3`.

    Arguments of ``apply``: images, weight, bias ``(O,)`` or None, whether it is the adjoint.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, adjoint: bool) -> Tensor:  # noqa: D102
        ctx.save_for_backward(x, weight)
        ctx.adjoint = adjoint
        return cpu.conv3x3(x, weight, adjoint, bias=bias)

    @staticmethod
    def backward(ctx: Any, dy: Tensor) -> tuple[Tensor | None, ...]:  # noqa: D102
        x, weight = ctx.saved_tensors
        dx = dweight = dbias = None
        if ctx.needs_input_grad[0]:
            dx = conv3x3(dy, weight, not ctx.adjoint)
        if ctx.needs_input_grad[1] and dispatch.weight_gradients():
            dweight = conv3x3_weight_gradient(dy, x) if ctx.adjoint else conv3x3_weight_gradient(x, dy)
        if ctx.needs_input_grad[2]:
            dbias = dy.sum(dim=(0, 2, 3))
        return dx, dweight, dbias, None


class _Conv3x3WeightGradient(torch.autograd.Function):
    """Gradient of the weight of `Conv3x3`, bilinear in the images and the gradient of the result."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, dy: Tensor) -> Tensor:
        ctx.save_for_backward(x, dy)
        return cpu.conv3x3_weight_gradient(x, dy)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        x, dy = ctx.saved_tensors
        dx = conv3x3(dy, grad, True) if ctx.needs_input_grad[0] else None
        return dx, conv3x3(x, grad, False) if ctx.needs_input_grad[1] else None


def conv3x3(x: Tensor, weight: Tensor, adjoint: bool) -> Tensor:
    """Convolves with one pixel of padding, or computes the adjoint; any images, also batches of ``is_grads_batched``.

    Args:
        x: Images ``(B, I, H, W)``.
        weight: Weight ``(O, I, 3, 3)``, or ``(I, O, 3, 3)`` for the adjoint.
        adjoint: Whether the adjoint is computed.
    """
    if is_plain_cpu_tensor(weight) and cpu.convolves(x, weight.shape[adjoint]):
        y: Tensor = Conv3x3.apply(x, weight, None, adjoint)
        return y
    return F.conv_transpose2d(x, weight, padding=1) if adjoint else F.conv2d(x, weight, padding=1)


def conv3x3_weight_gradient(x: Tensor, dy: Tensor) -> Tensor:
    """Returns the gradient ``(O, I, 3, 3)`` of the weight of :func:`conv3x3`, without ``adjoint``.

    Args:
        x: Images ``(B, I, H, W)``.
        dy: Gradient of the result ``(B, O, H, W)``.
    """
    if is_plain_cpu_tensor(dy) and cpu.convolves(x, dy.shape[1]):
        gradient: Tensor = _Conv3x3WeightGradient.apply(x, dy)
        return gradient
    weight = x.new_empty(1).expand(dy.shape[1], x.shape[1], 3, 3)  # its values are not read
    options = ([1, 1], [1, 1], [1, 1], False, [0, 0], 1, [False, True, False])
    plain: Tensor = torch.ops.aten.convolution_backward(dy, x, weight, None, *options)[1]
    return plain


def _adjoint_of_blur(dx: Tensor, fir: Tensor, shape: Sequence[int], padding: Sequence[int], gain: float) -> Tensor:
    return adjoint(dx, fir, shape, 1, 1, padding, False, gain)
