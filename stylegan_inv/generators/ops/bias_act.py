"""Bias, activation, gain and clamp as one operation, and its derivative after a convolution."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import TypeAlias

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import dispatch

#: Of the filter after a convolution that upsamples.
BLUR_PADDING = (1, 1, 1, 1)

#: Gradient, filter, shape of the filter's input, its padding and gain -> gradient of that input.
AdjointOfBlur: TypeAlias = Callable[[Tensor, Tensor, Sequence[int], Sequence[int], float], Tensor]

_SQRT2 = math.sqrt(2.0)

# The activations of the kernels: piecewise linear with a kink at zero.
_SLOPED = ("linear", "relu", "lrelu")

# Name -> (function of (x, alpha), default alpha, default gain). The gain keeps the variance of a unit normal input:
# sqrt(2) for the rectifiers, 1 for activations that saturate or keep it.
_ACTIVATIONS: dict[str, tuple[Callable[[Tensor, float], Tensor], float, float]] = {
    "linear": (lambda x, alpha: x, 0.0, 1.0),
    "relu": (lambda x, alpha: F.relu(x), 0.0, _SQRT2),
    "lrelu": (lambda x, alpha: F.leaky_relu(x, alpha), 0.2, _SQRT2),
    "tanh": (lambda x, alpha: torch.tanh(x), 0.0, 1.0),
    "sigmoid": (lambda x, alpha: torch.sigmoid(x), 0.0, 1.0),
    "elu": (lambda x, alpha: F.elu(x), 0.0, 1.0),
    "selu": (lambda x, alpha: F.selu(x), 0.0, 1.0),
    "softplus": (lambda x, alpha: F.softplus(x), 0.0, 1.0),
    "swish": (lambda x, alpha: torch.sigmoid(x) * x, 0.0, _SQRT2),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "auto",
) -> Tensor:
    """Computes ``clamp(gain * act(x + b), -clamp, +clamp)``, differentiable to any order.

    Args:
        x: Input of any shape.
        b: Bias of shape ``(x.shape[dim],)``, or None.
        dim: Axis of the bias.
        act: One of ``linear relu lrelu tanh sigmoid elu selu softplus swish``.
        alpha: Slope of ``lrelu`` below zero; default 0.2.
        gain: Factor after the activation; default sqrt(2) for ``relu lrelu swish``, else 1.
        clamp: Largest magnitude of the output, applied after the gain; None for no limit. Clamped elements have no
            gradient.
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`. ``fast`` supports ``linear relu lrelu`` of two or
            four axes with ``dim=1``, a slope of at least 0 and a positive gain; otherwise ``ref`` runs.

    Returns:
        A tensor of the shape and dtype of ``x``.

    Raises:
        UserError: An unknown activation, or a bias whose shape does not fit.
    """
    if act not in _ACTIVATIONS:
        raise UserError(f"act={act!r}: unknown activation, expected one of {', '.join(_ACTIVATIONS)}")
    function, default_alpha, default_gain = _ACTIVATIONS[act]
    if b is not None:
        if b.ndim != 1 or b.shape[0] != x.shape[dim]:
            raise UserError(
                f"bias of shape {tuple(b.shape)} does not fit axis {dim} of an input of shape {tuple(x.shape)}: "
                f"expected ({x.shape[dim]},)"
            )
    alpha = default_alpha if alpha is None else alpha
    gain = default_gain if gain is None else gain
    if act == "linear" and b is None and gain == 1 and clamp is None:
        return x
    if dispatch.resolve(impl, x) == "fast" and act in _SLOPED and dim == 1 and alpha >= 0 and gain > 0:
        if x.ndim == 4:
            return _fused(x, b, act, alpha, gain, clamp)
        if x.ndim == 2:
            return _fused(x[:, :, None, None], b, act, alpha, gain, clamp)[:, :, 0, 0]
    if b is not None:
        shape = [1] * x.ndim
        shape[dim] = -1
        x = x + b.reshape(shape)
    x = function(x, alpha)
    if gain != 1:
        x = x * gain
    if clamp is not None:
        x = x.clamp(-clamp, clamp)
    return x


def _fused(x: Tensor, b: Tensor | None, act: str, alpha: float, gain: float, clamp: float | None) -> Tensor:
    slope = 1.0 if act == "linear" else alpha
    y: Tensor = torch.ops.stylegan_inv.bias_act(x, b, None, None, None, 1.0, slope, gain, clamp)
    return y


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
