"""The Feature-Style encoder: codes and one feature map of the generator from a single pass of IResNet-50.

Papers: "Feature-Style Encoder for Style-Based GAN Inversion" (Yao, Newson, Gousseau and Hellier, arXiv 2202.02183;
official class ``fs_encoder_v2`` of InterDigitalInc/FeatureStyleEncoder, nets/feature_style_encoder.py), and, with finer
maps, StyleFeatureEditor (Bobkov et al., CVPR 2024, arXiv 2406.10601; ControlGenAI/StyleFeatureEditor).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.feature_space.iresnet import CHANNELS, UNITS_50, group, read_iresnet, renamed_backbone
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number

#: Size of the input divided by that of the feature map -> strides of the third group and of the content layers.
STRIDES = {16: (2, 2), 8: (2, 1), 4: (1, 1)}
#: Side of the grid to which each map is averaged before the linear heads.
POOLED = 3


@runtime_checkable
class FeatureEncoder(Protocol):
    """A network that maps images to codes and to a feature map of the generator.

    Attributes:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: Channels of the input.
        input_size: Side of the images that it reads, in pixels.
    """

    num_ws: int
    w_dim: int
    in_channels: int
    input_size: int

    def __call__(self, x: Tensor, /) -> tuple[Tensor, Tensor]:
        """Maps images ``(B, in_channels, S, S)`` to codes ``(B, L, D)`` and features ``(B, C, r, r)``."""


class FeatureStyleEncoder(nn.Module):
    """Maps images to codes relative to the latent average, and to a feature map.

    The codes are linear in the averages of the four maps on a 3x3 grid. The feature map comes from the third map.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: Channels of the input.
        feature_channels: Channels C of the feature map.
        feature_size: Side r of the feature map: 1/16 (Feature-Style encoder), 1/8 or 1/4 (StyleFeatureEditor) of
            ``input_size``.
        input_size: Side S of the images that it reads, in pixels.
        channels: Channels of the four groups.
        units: Number of units in each group.
        pretrained: Initial weights of the backbone: the file of an IResNet-50 of InsightFace; None for random ones.

    Raises:
        UserError: A feature map of another size.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        in_channels: int = 3,
        *,
        feature_channels: int,
        feature_size: int,
        input_size: int = 256,
        channels: Sequence[int] = CHANNELS,
        units: Sequence[int] = UNITS_50,
        pretrained: str | Path | None = None,
    ) -> None:
        super().__init__()
        whole_number("encoder.input_size", input_size, least=16)
        ratio, rest = divmod(input_size, feature_size)
        if rest or ratio not in STRIDES:
            sizes = ", ".join(str(input_size // r) for r in STRIDES)
            raise UserError(
                f"encoder.input_size={input_size}: it makes feature maps of {sizes} px, expected {feature_size} px, "
                "those of the generator; give another method.feature_index or encoder.input_size"
            )
        if len(channels) != 4 or len(units) != 4 or min(*channels, *units) < 1:
            raise UserError(
                f"the encoder got groups of {list(channels)} channels and {list(units)} units, expected four positive "
                "numbers of each"
            )
        self.num_ws, self.w_dim, self.in_channels, self.input_size = num_ws, w_dim, in_channels, input_size
        third, content = STRIDES[ratio]
        self.conv = nn.Sequential(
            nn.Conv2d(in_channels, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.PReLU(channels[0])
        )
        inputs, strides = (channels[0], *channels[:-1]), (2, 2, third, 2)
        for number, (i, o, count, stride) in enumerate(zip(inputs, channels, units, strides, strict=True), start=1):
            self.add_module(f"block_{number}", group(i, o, count, stride))
        self.content_layer = nn.Sequential(
            nn.BatchNorm2d(channels[2]),
            nn.Conv2d(channels[2], feature_channels, 3, 1, 1, bias=False),
            nn.BatchNorm2d(feature_channels),
            nn.PReLU(feature_channels),
            nn.Conv2d(feature_channels, feature_channels, 3, content, 1, bias=False),
            nn.BatchNorm2d(feature_channels),
        )
        self.styles = nn.ModuleList(nn.Linear(sum(channels) * POOLED**2, w_dim) for _ in range(num_ws))
        if pretrained is not None:
            if in_channels != 3:
                raise UserError(f"encoder.pretrained={pretrained}: is for RGB images, got {in_channels} channels")
            self.load_state_dict(renamed_backbone(read_iresnet(pretrained), self.state_dict()), strict=False)

    def maps(self, x: Tensor) -> list[Tensor]:
        """Returns the maps of the four groups, the finest first.

        Raises:
            UserError: Images of another size.
        """
        if x.shape[1:] != (self.in_channels, self.input_size, self.input_size):
            size = self.input_size
            raise UserError(f"the encoder got {tuple(x.shape)}, expected (B, {self.in_channels}, {size}, {size})")
        x = self.conv(x)
        found = []
        for number in range(1, 5):
            x = self.get_submodule(f"block_{number}")(x)
            found.append(x)
        return found

    @staticmethod
    def pooled(maps: Sequence[Tensor]) -> Tensor:
        """Returns the averages of all maps on a 3x3 grid as one vector for each image, channel by channel."""
        return torch.cat([F.adaptive_avg_pool2d(m, (POOLED, POOLED)) for m in maps], dim=1).flatten(1)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Maps images ``(B, in_channels, S, S)`` in [-1, 1] to codes ``(B, L, D)`` and features ``(B, C, r, r)``."""
        maps = self.maps(x)
        vector = self.pooled(maps)
        return torch.stack([style(vector) for style in self.styles], dim=1), self.content_layer(maps[2])
