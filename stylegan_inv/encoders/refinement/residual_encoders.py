"""HFGI's two networks: one aligns a residual with an edited image, the other encodes it for the generator.

Wang, Zhang, Fan, Wang, Chen, "High-Fidelity GAN Inversion for Image Attribute Editing", CVPR 2022, arXiv 2109.06590,
sections 3.2 and 3.3. Official classes: ``ResidualAligner`` and ``ResidualEncoder`` (Tengfei-Wang/HFGI, commit e30f33c,
models/encoders/psp_encoders.py). The names of the weights are theirs.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.irse import ResidualUnit
from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import normal
from stylegan_inv.utils.checks import true_or_false

#: Units of each group.
_UNITS = 3


class EqualConv(nn.Module):
    """3x3 convolution with equalised learning rate: the stored weights are N(0, 1) and divided by sqrt(9 I).

    Args:
        in_channels: I.
        out_channels: Channels of the output.
    """

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.gain = 1 / math.sqrt(9 * in_channels)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, I, h, w)`` to ``(B, O, h, w)``."""
        return F.conv2d(x, self.weight * self.gain, self.bias, padding=1)


class ScaledLeakyReLU(nn.Module):
    """Leaky ReLU of slope 0.2, times sqrt(2), which keeps the variance."""

    def forward(self, x: Tensor) -> Tensor:
        """Returns a tensor of the same shape."""
        return F.leaky_relu(x, 0.2) * math.sqrt(2)


class ConsultationEncoder(nn.Module):
    """Encodes a residual as scale and shift of a feature map of the generator.

    Args:
        feature_channels: Channels C of the generator's feature map.
        widths: Channels of the stem and of the two groups of units.
        strides: Stride of each group. Paper: 2 and 2, for a feature map of a quarter of the residual's size.
        hidden: Channels between the two convolutions of a head; None for C, as in the paper.
        zero_start: Start with scales and shifts of zero, which leave the image as it is. Paper: no, which 100,000 steps
            make up for.
    """

    def __init__(
        self,
        feature_channels: int,
        *,
        widths: Sequence[int] = (32, 48, 64),
        strides: Sequence[int] = (2, 2),
        hidden: int | None = None,
        zero_start: bool = False,
    ) -> None:
        super().__init__()
        if len(widths) != 3 or len(strides) != 2:
            raise UserError(
                f"method.consultation: got {len(widths)} widths and {len(strides)} strides, expected three and two"
            )
        self.feature_channels = feature_channels
        self.conv_layer1 = _stem(3, widths[0])
        self.conv_layer2 = _group(widths[0], widths[1], strides[0])
        self.conv_layer3 = _group(widths[1], widths[2], strides[1])
        self.condition_scale3 = _head(widths[2], hidden or feature_channels, feature_channels)
        self.condition_shift3 = _head(widths[2], hidden or feature_channels, feature_channels)
        if true_or_false("method.consultation.zero_start", zero_start):
            for head in (self.condition_scale3, self.condition_shift3):
                nn.init.zeros_(head[-1].get_parameter("weight"))

    def forward(self, residual: Tensor, size: int) -> tuple[Tensor, Tensor]:
        """Returns scale and shift, ``(B, C, size, size)`` each, to be used as ``x (1 + scale) + shift``.

        Args:
            residual: ``(B, 3, H, W)``.
            size: Side of the generator's feature map.
        """
        features = self.conv_layer3(self.conv_layer2(self.conv_layer1(residual)))
        scale, shift = (resized(head(features), size) for head in (self.condition_scale3, self.condition_shift3))
        return scale, shift


class ResidualAligner(nn.Module):
    """Moves a residual to where an edited image has what it belongs to (the paper's ADA).

    Args:
        widths: Channels of the four scales, the finest first.
        zero_start: Start with an output of zero instead of one of unit variance, see `ConsultationEncoder`.
    """

    def __init__(self, *, widths: Sequence[int] = (16, 32, 48, 64), zero_start: bool = False) -> None:
        super().__init__()
        if len(widths) != 4:
            raise UserError(f"method.aligner: got {len(widths)} widths, expected four")
        first, second, third, last = widths
        self.conv_layer1 = _stem(6, first)
        self.conv_layer2 = _group(first, second, 2)
        self.conv_layer3 = _group(second, third, 2)
        self.conv_layer4 = _group(third, last, 2)
        self.dconv_layer1 = _units(last + third, last, second, second)
        self.dconv_layer2 = _units(second + second, second, first, first)
        self.dconv_layer3 = _units(first + first, first, 3, 3)
        if true_or_false("method.aligner.zero_start", zero_start):
            # The last two units sum up to the output; each of their branches ends with one of these norms.
            for name in ("1.shortcut_layer.1", "1.res_layer.4", "2.res_layer.4"):
                nn.init.zeros_(self.dconv_layer3.get_parameter(f"{name}.weight"))

    def forward(self, x: Tensor) -> Tensor:
        """Returns the aligned residual ``(B, 3, H, W)``.

        Args:
            x: The residual and the image that it is aligned with, ``(B, 6, H, W)``; H and W are at least 8.
        """
        if x.ndim != 4 or x.shape[1] != 6 or min(x.shape[2:]) < 8:
            raise UserError(
                f"the aligner got {tuple(x.shape)}, expected a residual and an image (B, 6, H, W), H, W >= 8"
            )
        finest = self.conv_layer1(x)
        fine = self.conv_layer2(finest)
        middle = self.conv_layer3(fine)
        out = self.conv_layer4(middle)
        for decoder, skip in ((self.dconv_layer1, middle), (self.dconv_layer2, fine), (self.dconv_layer3, finest)):
            out = decoder(torch.cat([_like(out, skip), skip], dim=1))
        residual: Tensor = out
        return residual


def resized(x: Tensor, size: int, antialias: bool = False) -> Tensor:
    """Resizes ``(B, C, h, w)`` to ``(B, C, size, size)`` bilinearly.

    Args:
        x: Images or feature maps.
        size: Side of the result.
        antialias: Whether a reduction averages all pixels. Without it only four pixels are read.
    """
    if x.shape[-2:] == (size, size):
        return x
    return F.interpolate(x, (size, size), mode="bilinear", align_corners=False, antialias=antialias)


def _like(x: Tensor, other: Tensor) -> Tensor:
    return F.interpolate(x, other.shape[-2:], mode="bilinear", align_corners=False)


def _stem(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False), nn.BatchNorm2d(out_channels), nn.PReLU(out_channels)
    )


def _group(in_channels: int, out_channels: int, stride: int) -> nn.Sequential:
    units = [ResidualUnit(in_channels, out_channels, stride, se=False)]
    units += [ResidualUnit(out_channels, out_channels, 1, se=False) for _ in range(_UNITS - 1)]
    return nn.Sequential(*units)


def _units(*channels: int) -> nn.Sequential:
    pairs = zip(channels, channels[1:], strict=False)
    return nn.Sequential(*(ResidualUnit(i, o, 1, se=False) for i, o in pairs))


def _head(in_channels: int, hidden: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(EqualConv(in_channels, hidden), ScaledLeakyReLU(), EqualConv(hidden, out_channels))
