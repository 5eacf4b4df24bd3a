"""Bias, activation, gain and clamp as one operation."""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import dispatch

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
