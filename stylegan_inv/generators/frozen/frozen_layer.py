"""A synthesis layer whose weights do not change: its constants, and the plain PyTorch form of its two passes.

Three things follow from weights that stay what they are (Karras et al. 2020, section 2.2, with x scaled by s instead of
the weights):

* Demodulation needs only ``V[o, i] = sum_k w[o, i, k]**2``, summed once: ``d = gain / sqrt(s**2 V^T + eps)``.
* ``gain * lrelu(v) = lrelu(gain * v)``, so the gain of the activation goes into d, noise and bias, and a layer is
  ``y = lrelu(z)`` with ``z = u * d + n + b`` and u the convolution of x * s.
* Backward needs nothing but y, which is kept anyway because it is the next layer's input. With g the gradient of y,
  ``dz = g`` or ``slope * g`` by the sign of y, and ``z * dz = y * g``. Hence the gradient of d, summed over the image,
  is ``(sum(y * g) - sum(n * dz) - b * sum(dz)) / d``, without u; that of s is ``sum(x * dxs)`` with dxs the gradient of
  x * s. No weight gradient is ever formed.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from stylegan_inv.generators.ops import FILTER_TAPS, demodulation, setup_filter, upfirdn2d, upsample2d, weight_squares

GAIN = math.sqrt(2.0)
SLOPE = 0.2
_FILTER = setup_filter(FILTER_TAPS)


class StyledConvolution(Protocol):
    """What is read of a synthesis layer."""

    up: int
    resolution: int
    conv_clamp: float | None
    demod_eps: float
    weight: nn.Parameter  # (O, I, 3, 3)
    bias: nn.Parameter  # (O,)
    noise_strength: nn.Parameter  # ()

    def styled(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """The layer's output from its style (B, I)."""


class ColourConvolution(Protocol):
    """What is read of a ToRGB layer."""

    conv_clamp: float | None
    weight_gain: float
    weight: nn.Parameter  # (colours, O, 1, 1)
    bias: nn.Parameter  # (colours,)

    def styled(self, x: Tensor, style: Tensor) -> Tensor:
        """The colours from the style (B, O)."""


@dataclass
class FrozenLayer:
    """Constants of one layer and of the ToRGB that reads it (``colour`` is None where none does)."""

    up: int
    resolution: int  # of the output
    weight: Tensor  # (O, I, 3, 3)
    squares: Tensor  # (O, I)
    demod_eps: float
    bias: Tensor  # (O,)
    noise_gain: float
    clamp: float  # infinite for none
    colour: Tensor | None  # (colours, O)
    prepared: dict[str, Any] = field(default_factory=dict)  # what the kernels made of the weight, by their name
    spare: list[Tensor] = field(default_factory=list)  # large outputs that a backward needs no more

    @classmethod
    def of(cls, layer: StyledConvolution, torgb: ColourConvolution | None) -> FrozenLayer:
        """Read the modules."""
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
        """What follows this layer's convolution in one call.

        Args:
            style: ``(B, I)``.
            noise: ``(1 or B, 1, r, r)`` or None.
            colour_style: ``(B, O)`` where there is a ToRGB.
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
    """What follows a convolution in one call: ``y = clamp(lrelu(u * demod + noise + bias))``, ``rgb = colour y``."""

    layer: FrozenLayer
    demod: Tensor  # (B, O)
    noise: Tensor | None  # (1 or B, r, r)
    colour: Tensor | None  # (B, colours, O)
    wants_noise: bool = False  # a gradient for it
    # of backward:
    grad_rgb: Tensor | None = None  # (B, colours, r, r), goes in
    sums: Tensor | None = None  # (B, 3 + colours, O): of dz, y g, dz noise and, for each colour, grad_rgb y
    grad_noise: Tensor | None = None  # (B, r, r): sum of dz over the channels

    def grad_style(self, style: Tensor) -> Tensor:
        """The demodulation's part of the gradient of the style ``(B, I)``."""
        assert self.sums is not None
        demod, sums, bias = self.demod, self.sums, self.layer.bias
        grad_demod = (sums[:, 1] - sums[:, 2] - bias * sums[:, 0]) / demod
        return (grad_demod * demod**3 / -(GAIN**2)) @ self.layer.squares * style

    def grad_colour_style(self) -> Tensor:
        """The gradient of ToRGB's style ``(B, O)``."""
        assert self.sums is not None and self.layer.colour is not None
        return (self.sums[:, 3:] * self.layer.colour).sum(dim=1)


class TorchKernels:
    """The two passes in plain PyTorch operations; images are ``(B, H, W, C)`` in memory.

    Args:
        dtype: of the convolutions, and of the activations that they make; None for that of the weights.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.name = f"torch {dtype}"

    def forward(
        self, layer: FrozenLayer, x: Tensor, style: Tensor, epilogue: Epilogue, keep: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """One layer.

        Args:
            layer: its constants.
            x: ``(B or 1, h, w, I)``.
            style: ``(B, I)``.
            epilogue: see there.
            keep: whether y is needed (the last layer's is not where no gradient will come).

        Returns:
            y ``(B, H, W, O)`` or None, and rgb ``(B, colours, H, W)`` or None where no ToRGB reads y.
        """
        y = self._convolve(layer, x * style[:, None, None, :])
        y = torch.addcmul(layer.bias.to(y.dtype), y, epilogue.demod[:, None, None, :].to(y.dtype), out=y)
        if epilogue.noise is not None:
            y += epilogue.noise[..., None].to(y.dtype)
        y = F.leaky_relu_(y, SLOPE)
        if layer.clamp < math.inf:
            y.clamp_(-layer.clamp, layer.clamp)
        rgb = None
        if epilogue.colour is not None:
            size = (epilogue.colour.shape[1], *y.shape[1:3])
            rgb = (epilogue.colour @ y.flatten(1, 2).transpose(1, 2).to(epilogue.colour.dtype)).unflatten(2, size[1:])
        return y if keep else None, rgb

    def backward(
        self,
        layer: FrozenLayer,
        x: Tensor,
        style: Tensor,
        epilogue: Epilogue,
        y: Tensor | None,
        grad: Tensor | None,
        before: Epilogue | None,
        reuse: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """The gradients of one layer, on the way filling in the sums and ``grad_noise`` of epilogues.

        Args:
            layer: its constants.
            x: as forward had it.
            style: as forward had it.
            epilogue: of this layer.
            y: what forward returned, needed where ``grad`` is None; if None as well, it is computed again.
            grad: gradient of this layer's convolution, as this function returned it for the layer behind; None for the
                last layer, whose gradient comes from ``epilogue.grad_rgb``.
            before: epilogue of the layer that made x, with its ``grad_rgb``; None where no gradient goes on to it.
            reuse: the memory of x may be overwritten.

        Returns:
            The gradient of the convolution of the layer before, shaped as x, or None; and that of the style without
            the demodulation's part, ``(B, I)``.
        """
        if grad is None:
            if y is None:
                y, _ = self.forward(layer, x, style, epilogue, keep=True)
            assert y is not None
            grad = self._through(epilogue, y, None)
        grad_xs = self._transposed(layer, grad).to(style.dtype)
        grad_style = torch.einsum("bhwc,bhwc->bc", grad_xs, x.to(style.dtype).expand_as(grad_xs))
        if before is None:
            return None, grad_style
        return self._through(before, x, (grad_xs * style[:, None, None, :]).to(x.dtype)), grad_style

    @staticmethod
    def give_back(layer: FrozenLayer, y: Tensor) -> None:
        """Take notice that nobody needs an output of ``layer`` any more; this implementation has no use for it."""

    @staticmethod
    def upsample_add(image: Tensor, rgb: Tensor) -> None:
        """``rgb += upsampled image``: ``(B, colours, r, r)`` into ``(B, colours, 2r, 2r)``."""
        rgb += upsample2d(image, _FILTER, impl="ref")

    @staticmethod
    def downsample(grad: Tensor) -> Tensor:
        """Its adjoint: the gradient of the enlarged image -> that of the image."""
        return upfirdn2d(grad, _FILTER, down=2, padding=1, gain=4.0, impl="ref")

    @staticmethod
    def _through(epilogue: Epilogue, y: Tensor, grad: Tensor | None) -> Tensor:
        """From the gradient of y (without ToRGB's part) to that of the convolution; fills in the sums."""
        rows = y.flatten(1, 2)  # (B, HW, O)
        sums = []
        if epilogue.colour is not None and epilogue.grad_rgb is not None:
            grad_rgb = epilogue.grad_rgb.flatten(2).to(y.dtype)  # (B, colours, HW)
            sums.append(grad_rgb @ rows)
            coloured = (grad_rgb.transpose(1, 2) @ epilogue.colour.to(y.dtype)).view_as(y)
            grad = coloured if grad is None else grad.add_(coloured)
        assert grad is not None
        if epilogue.layer.clamp < math.inf:
            grad = grad.masked_fill_(y.abs() >= epilogue.layer.clamp, 0)
        dz = torch.ops.aten.leaky_relu_backward(grad, y, SLOPE, True)
        columns = dz.flatten(1, 2)
        if epilogue.noise is None:
            with_noise = columns.new_zeros(columns.shape[0], 1, columns.shape[2])
        else:
            with_noise = epilogue.noise.flatten(1)[:, None].to(y.dtype) @ columns
        first = [columns.sum(dim=1, keepdim=True), (grad.flatten(1, 2) * rows).sum(dim=1, keepdim=True), with_noise]
        epilogue.sums = torch.cat(first + sums, dim=1).to(epilogue.demod.dtype)
        if epilogue.wants_noise:
            epilogue.grad_noise = dz.sum(dim=3).to(epilogue.demod.dtype)
        return dz.mul_(epilogue.demod[:, None, None, :].to(dz.dtype))

    def _weights(self, layer: FrozenLayer) -> list[Tensor]:
        """The weight as the convolutions take it, made once."""
        if self.name not in layer.prepared:
            w = layer.weight.to(self.dtype or layer.weight.dtype)
            # Transposed convolution by parity of the result's row and column: a 2x2, 2x1, 1x2 and 1x1 convolution. They
            # do the same work as one call, which is at half its speed on large images.
            rows = ((2, 0), (1,)) if layer.up == 2 else ((0, 1, 2),)
            parts = [w[:, :, list(i)][:, :, :, list(j)] for i in rows for j in rows]
            parts.append(w.transpose(0, 1) if layer.up == 2 else w)  # for backward
            layer.prepared[self.name] = [p.contiguous(memory_format=torch.channels_last) for p in parts]
        return layer.prepared[self.name]

    def _convolve(self, layer: FrozenLayer, xs: Tensor) -> Tensor:
        weights = self._weights(layer)
        x = xs.to(weights[0].dtype).permute(0, 3, 1, 2)  # a view in channels_last
        if layer.up == 1:
            return F.conv2d(x, weights[0], padding=1).permute(0, 2, 3, 1).contiguous()
        batch, h, w = xs.shape[:3]
        u = x.new_empty(batch, 2 * h + 1, 2 * w + 1, layer.weight.shape[0]).permute(0, 3, 1, 2)
        for index, part in enumerate(weights[:4]):
            i, j = divmod(index, 2)
            u[:, :, i::2, j::2] = F.conv2d(x, part, padding=(1 - i, 1 - j))
        return F.conv2d(u, _blur(u), padding=1, groups=u.shape[1]).permute(0, 2, 3, 1).contiguous()

    def _transposed(self, layer: FrozenLayer, grad: Tensor) -> Tensor:
        w = self._weights(layer)[-1]
        g = grad.to(w.dtype).permute(0, 3, 1, 2)
        if layer.up == 2:  # the filter is symmetric
            g = F.conv2d(F.conv2d(g, _blur(g), padding=2, groups=g.shape[1]), w, stride=2)
        else:
            g = F.conv_transpose2d(g, w, padding=1)
        return g.permute(0, 2, 3, 1).contiguous()


def _blur(like: Tensor) -> Tensor:
    """The filter after a transposed convolution of stride 2, with the gain that makes up for the inserted zeros."""
    taps = _FILTER.to(like) * 2
    return torch.outer(taps, taps).expand(like.shape[1], 1, -1, -1)
