"""The derivative of the activation of a synthesis layer, in differentiable operations."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
from torch import Tensor

#: Of the filter after a convolution that upsamples.
BLUR_PADDING = (1, 1, 1, 1)

#: Gradient, filter, shape of the filter's input, its padding and gain -> gradient of that input.
AdjointOfBlur: TypeAlias = Callable[[Tensor, Tensor, Sequence[int], Sequence[int], float], Tensor]


def activation_gradient(
    adjoint_of_blur: AdjointOfBlur,
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
    """Returns the gradients of x, bias, scale and noise from the output (derivation: csrc/cuda/bias_act.cu).

    The formulae are identities in the inputs, of which y is a function, so their derivatives are correct as well.

    Args:
        adjoint_of_blur: Runs the transpose of the filter for an input of a given shape.
        dy: Gradient of the output, (B, C, H, W).
        y: Output.
        bias: (C,) or None.
        scale: (B, C) or None.
        noise: Broadcastable to y, or None.
        fir: Filter of four taps, or None.
        fir_gain: Gain of the filter.
        slope: Slope of the leaky ReLU below zero.
        gain: Gain of the activation.
        clamp: Largest magnitude of y, or None.
    """
    dtype, wide = y.dtype, torch.promote_types(y.dtype, torch.float32)
    inside = None if clamp is None else y.abs() < clamp  # in the dtype of y, in which the output was clamped
    dy, y = dy.to(wide), y.to(wide)
    slopes = (y > 0).to(wide) * (gain - gain * slope) + gain * slope
    if inside is not None:
        slopes, y = slopes * inside, y * inside
    dv = dy * slopes
    dx = dv if scale is None else dv * scale[:, :, None, None]
    if fir is not None:
        shape = (*y.shape[:2], y.shape[2] + 1, y.shape[3] + 1)
        dx = adjoint_of_blur(dx, fir, shape, BLUR_PADDING, fir_gain)
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
            dscale = dscale - dv * bias[:, None, None]
        dscale = (dscale.sum(dim=(2, 3)) / scale).to(scale.dtype)
    return dx.to(dtype), dbias, dscale, dnoise
