"""ResNet-34 without max-pooling, ReStyle's backbone for images other than faces.

Official code: ``ResNetBackboneEncoder`` and ``ResNetGradualStyleEncoder`` (yuval-alaluf/restyle-encoder,
models/encoders/restyle_psp_encoders.py and fpn_encoders.py). Papers: ReStyle (Alaluf et al., ICCV 2021, arXiv
2104.02699), ResNet (He et al., CVPR 2016, arXiv 1512.03385).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate
from pathlib import Path

from torch import nn
from torchvision.models.resnet import BasicBlock

from stylegan_inv.encoders.backbone import Layers, residual_groups, start_from

CHANNELS = (64, 128, 256, 512)
UNITS = (3, 4, 6, 3)


def resnet34(
    in_channels: int = 3,
    *,
    channels: Sequence[int] = CHANNELS,
    units: Sequence[int] = UNITS,
    pretrained: str | Path | None = None,
    extra_channels: str = "zero",
) -> Layers:
    """Builds the layers of ResNet-34, or of a similar network.

    As in the official code, no max-pooling follows the stem, so that the last map has 1/16 of the image's size. The
    stem ends with a PReLU, which pretrained files do not contain; its initial slope is 0.25.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the four groups; the stem has those of the first.
        units: Number of residual units in each group. All groups but the first start with a stride of 2.
        pretrained: Initial weights: the file of a torchvision ResNet of the same size (``resnet34-….pth``), or its name
            in the weights table, ``resnet34``.
        extra_channels: Weights of further input images, see `backbone.start_from`.
    """
    groups = residual_groups(_unit, channels[0], channels, units, first_stride=1)
    stem = {
        "conv1": nn.Conv2d(in_channels, channels[0], 7, 2, 3, bias=False),
        "bn1": nn.BatchNorm2d(channels[0]),
        "relu": nn.PReLU(channels[0]),
    }
    layers = Layers(in_channels, stem, groups, tuple(channels))
    if pretrained is not None:
        firsts = list(accumulate(units, initial=0))

        def rename(key: str) -> str:
            """Converts e.g. ``layer2.1.conv1.weight`` to ``body.4.conv1.weight``."""
            for group, first in enumerate(firsts[:-1], start=1):
                if key.startswith(f"layer{group}."):
                    _, unit, rest = key.split(".", 2)
                    return f"body.{first + int(unit)}.{rest}"
            return key

        start_from(
            layers,
            pretrained,
            first_conv="conv1.weight",
            ignored="fc.",
            rename=rename,
            absent={"relu.weight"},
            extra_channels=extra_channels,
        )
    return layers


def _unit(in_channels: int, out_channels: int, stride: int) -> nn.Module:
    downsample = None
    if in_channels != out_channels or stride != 1:
        downsample = nn.Sequential(
            nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
        )
    unit: nn.Module = BasicBlock(in_channels, out_channels, stride, downsample)
    return unit
