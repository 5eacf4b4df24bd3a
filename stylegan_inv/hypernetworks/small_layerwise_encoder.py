"""A layer-wise encoder for 64-px images: one feature map of 8x8 for each row of the code, as HyperInverter's has."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.encoders.small_backbone import SmallBackbone, to_input_size
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number

#: Side of the feature maps.
_SIZE = 8


class SmallLayerwiseEncoder(nn.Module):
    """Maps images to one feature map for each row of the code, by a 1x1 convolution of three maps of a small backbone.

    Args:
        num_maps: Number of maps.
        in_channels: Channels of the input.
        width: Width of the backbone, see `SmallBackbone`; must be that of the face network if ``pretrained`` is set.
        pretrained: Initial weights: the name or file of a face network (`load_face_network`); None initialises
            randomly.
        features: Channels of a map.

    Raises:
        UserError: A pretrained backbone of another width, or for images of other channels.
    """

    def __init__(
        self,
        num_maps: int,
        in_channels: int = 3,
        *,
        width: int = 24,
        pretrained: str | Path | None = None,
        features: int = 32,
    ) -> None:
        super().__init__()
        whole_number("encoder.features", features)
        self.num_maps, self.features, self.image_size = num_maps, features, 64
        self.backbone = SmallBackbone(in_channels, width, norm=False)
        if pretrained is not None:
            face = load_face_network(pretrained).backbone
            if (face.width, in_channels) != (width, 3):
                raise UserError(
                    f"encoder.width={width}: {pretrained} has width {face.width} and reads 3 channels; set "
                    f"encoder.width={face.width}, or encoder.pretrained=null"
                )
            self.backbone.load_state_dict({k: v.clone() for k, v in face.state_dict().items()})
        self.heads = nn.Conv2d(sum(self.backbone.channels[1:]), num_maps * features, 1)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to features ``(B, num_maps, C, 8, 8)``."""
        _, fine, middle, coarse = self.backbone(to_input_size(x))
        maps = [F.avg_pool2d(fine, 2), middle, F.interpolate(coarse, size=(_SIZE, _SIZE), mode="nearest")]
        found: Tensor = self.heads(torch.cat(maps, dim=1))
        return found.unflatten(1, (self.num_maps, self.features))
