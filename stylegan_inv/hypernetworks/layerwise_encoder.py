"""HyperInverter's layer-wise encoder: one feature map for each row of the code.

Tan M. Dinh, Anh Tuan Tran, Rang Nguyen, Binh-Son Hua, CVPR 2022, arXiv 2112.00719. Official classes:
``LayerWiseEncoder`` (IR-SE50) and ``ResNetLayerWiseEncoder`` (ResNet-34) (VinAIResearch/HyperInverter, commit 3966220,
models/encoders/fpn_encoders.py), whose keys the state dict has.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.encoders.fpn import FINE, MIDDLE, feature_pyramid
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.errors import UserError


class LayerwiseEncoder(Backbone):
    """Maps an image to feature maps of 1/32 of its size, by pSp's feature pyramid and strided convolutions.

    Args:
        num_maps: Number of maps.
        in_channels: Channels of the input.
        backbone: Builds the layers, called with ``in_channels``.
        resolution: Side of the images in pixels, a multiple of 32. The regressors need maps of 8x8, which are those of
            256.
    """

    def __init__(
        self,
        num_maps: int,
        in_channels: int = 3,
        *,
        backbone: Callable[..., Layers] = ir_se,
        resolution: int = 256,
    ) -> None:
        super().__init__(backbone(in_channels))
        if resolution != 256:
            raise UserError(f"encoder.resolution={resolution}: expected 256, of which the maps have 8x8")
        self.num_maps, self.image_size = num_maps, resolution
        _, fine, middle, coarse = self.channels
        self.features = coarse
        self.latlayer1, self.latlayer2 = nn.Conv2d(middle, coarse, 1), nn.Conv2d(fine, coarse, 1)
        counts = [1 + (number >= MIDDLE) + (number >= FINE) for number in range(num_maps)]
        self.styles = nn.ModuleList(_Head(coarse, count) for count in counts)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(B, in_channels, 256, 256)`` in [-1, 1] to features ``(B, num_maps, C, 8, 8)``."""
        _, fine, middle, coarse = self.maps(x)
        pyramid = feature_pyramid(coarse, middle, fine, self.latlayer1, self.latlayer2)
        maps = [head(pyramid[(k >= MIDDLE) + (k >= FINE)]) for k, head in enumerate(self.styles)]
        return torch.stack(maps, dim=1)


class _Head(nn.Module):
    def __init__(self, channels: int, count: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for _ in range(count):
            layers += [nn.Conv2d(channels, channels, 3, 2, 1), nn.LeakyReLU(0.01, inplace=True)]
        self.convs = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.convs(x)
        return y
