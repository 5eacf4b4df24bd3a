"""Constants of a synthesis layer with frozen weights, and what one call of it keeps for backward.

Frozen weights simplify a layer (Karras et al. 2020, section 2.2, with x scaled by s instead of the weights):

* Demodulation only needs ``V[o, i] = sum_k w[o, i, k]**2``, which is summed once: ``d = gain / sqrt(s**2 V^T + eps)``.
* ``gain * lrelu(v) = lrelu(gain * v)``. The gain of the activation is therefore part of d, noise and bias, and a layer
  is ``y = lrelu(z)`` with ``z = u * d + n + b``, where u is the convolution of x * s.
* Backward only needs y, which is kept anyway because it is the input of the next layer. With g the gradient of y,
  ``dz = g`` or ``slope * g`` by the sign of y, and ``z * dz = y * g``. The gradient of d, summed over the image, is
  therefore ``(sum(y * g) - sum(n * dz) - b * sum(dz)) / d``, without u. The gradient of s is ``sum(x * dxs)`` with dxs
  the gradient of x * s. No weight gradient is computed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan_inv.generators.ops import demodulation, weight_squares

GAIN = math.sqrt(2.0)
SLOPE = 0.2


class StyledConvolution(Protocol):
    """The attributes of a synthesis layer that the fast path reads."""

    up: int
    resolution: int
    conv_clamp: float | None
    demod_eps: float
    weight: nn.Parameter  # (O, I, 3, 3)
    bias: nn.Parameter  # (O,)
    noise_strength: nn.Parameter  # ()


class ColourConvolution(Protocol):
    """The attributes of a ToRGB layer that the fast path reads."""

    conv_clamp: float | None
    weight_gain: float
    weight: nn.Parameter  # (colours, O, 1, 1)
    bias: nn.Parameter  # (colours,)


@dataclass
class FrozenLayer:
    """Constants of one layer and of the ToRGB layer that reads it.

    Attributes:
        up: 2 for a layer that upsamples its input, else 1.
        resolution: Side of the output in pixels.
        weight: ``(O, I, 3, 3)``.
        squares: ``(O, I)``, sums of the squared weights.
        demod_eps: Added to the demodulation's norm.
        bias: ``(O,)``.
        noise_gain: Factor of the noise map.
        clamp: Largest magnitude of the output; infinite for none.
        colour: ToRGB's weight ``(colours, O)``; None where no ToRGB reads this layer.
        prepared: What the kernels made of the weight, by the name of the kernels.
        spare: Memory of large outputs that no backward needs any more.
        slope: Of the leaky ReLU.
    """

    up: int
    resolution: int
    weight: Tensor
    squares: Tensor
    demod_eps: float
    bias: Tensor
    noise_gain: float
    clamp: float
    colour: Tensor | None
    prepared: dict[str, Any] = field(default_factory=dict)
    spare: list[Tensor] = field(default_factory=list)
    slope: float = SLOPE

    @classmethod
    def of(cls, layer: StyledConvolution, torgb: ColourConvolution | None) -> FrozenLayer:
        """Reads the constants from the modules."""
        weight = layer.weight.detach()
        return cls(
            up=layer.up,
            resolution=layer.resolution,
            weight=weight,
            squares=weight_squares(weight),
            demod_eps=layer.demod_eps,
            bias=layer.bias.detach() * GAIN,
            noise_gain=float(layer.noise_strength) * GAIN,
            clamp=math.inf if layer.conv_clamp is None else layer.conv_clamp,
            colour=None if torgb is None else torgb.weight.detach()[:, :, 0, 0] * torgb.weight_gain,
        )

    def epilogue(self, style: Tensor, noise: Tensor | None, colour_style: Tensor | None) -> Epilogue:
        """Returns what follows the convolution in one call.

        Args:
            style: ``(B, I)``.
            noise: ``(1 or B, 1, r, r)`` or None.
            colour_style: ``(B, O)`` where a ToRGB layer runs, else None.
        """
        colour = None
        if self.colour is not None and colour_style is not None:
            colour = self.colour * colour_style[:, None, :]
        return Epilogue(
            layer=self,
            demod=demodulation(style, self.squares, self.demod_eps, GAIN),
            noise=None if noise is None else (noise * self.noise_gain).flatten(0, 1).contiguous(),
            colour=colour,
        )


@dataclass
class Epilogue:
    """What follows a convolution in one call: ``y = clamp(lrelu(u * demod + noise + bias))``, ``rgb = colour y``.

    Attributes:
        layer: Constants of the layer.
        demod: ``(B, O)``.
        noise: ``(1 or B, r, r)`` or None.
        colour: Modulated weight of ToRGB, ``(B, colours, O)``, or None.
        wants_noise: Whether backward computes the gradient of the noise.
        grad_rgb: Gradient of rgb, ``(B, colours, r, r)``: an input of backward.
        sums: ``(B, 3 + colours, O)``, an output of backward: the sums over the image of dz, y g, dz noise and, for each
            colour, grad_rgb y.
        grad_noise: ``(B, r, r)``, an output of backward: the sum of dz over the channels.
    """

    layer: FrozenLayer
    demod: Tensor
    noise: Tensor | None
    colour: Tensor | None
    wants_noise: bool = False
    grad_rgb: Tensor | None = None
    sums: Tensor | None = None
    grad_noise: Tensor | None = None

    @classmethod
    def identity(cls, x: Tensor) -> Epilogue:
        """Returns an epilogue that does nothing, for an input ``(B, H, W, C)`` that no layer computed.

        Backward passes the gradient of x through it unchanged.
        """
        none = x.new_zeros(0)
        bias = torch.zeros(x.shape[3], dtype=x.dtype)
        layer = FrozenLayer(1, x.shape[1], none, none, 0.0, bias, 0.0, math.inf, None, slope=1.0)
        return cls(layer, torch.ones(x.shape[0], x.shape[3], dtype=x.dtype), None, None)

    def grad_style(self, style: Tensor) -> Tensor:
        """Returns the demodulation's part of the gradient of the style ``(B, I)``."""
        assert self.sums is not None
        demod, sums, bias = self.demod, self.sums, self.layer.bias
        grad_demod = (sums[:, 1] - sums[:, 2] - bias * sums[:, 0]) / demod
        return (grad_demod * demod**3 / -(GAIN**2)) @ self.layer.squares * style

    def grad_colour_style(self) -> Tensor:
        """Returns the gradient of ToRGB's style ``(B, O)``."""
        assert self.sums is not None and self.layer.colour is not None
        return (self.sums[:, 3:] * self.layer.colour).sum(dim=1)
