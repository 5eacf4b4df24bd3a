"""A Feature-Style encoder for the embedded world: codes of `SmallEncoder`, and a feature map from the same backbone."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.encoders.small_backbone import to_input_size
from stylegan_inv.errors import UserError

#: Side of the images that it reads, in pixels.
INPUT_SIZE = 64


class SmallFeatureStyleEncoder(SmallEncoder):
    """Maps 64-px images to codes relative to the latent average, and to a feature map.

    The feature map is a sum of projections of the backbone's maps of its size and coarser, followed by two 3x3
    convolutions. Before training it is zero, as the codes are.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: 3.
        feature_channels: Channels C of the feature map.
        feature_size: Side r of the feature map: 32, 16 or 8.
        content_width: Channels of the convolutions before the feature map.
        feature_gain: Factor of the feature map. The embedded generator's features are about 0.1.
        **kwargs: Further arguments of `SmallEncoder`.

    Raises:
        UserError: A feature map of another size, or other input channels.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        in_channels: int = 3,
        *,
        feature_channels: int,
        feature_size: int,
        content_width: int = 64,
        feature_gain: float = 0.1,
        **kwargs: Any,
    ) -> None:
        sizes = [INPUT_SIZE >> level for level in (1, 2, 3)]
        if feature_size not in sizes:
            raise UserError(
                f"encoder: makes feature maps of {', '.join(map(str, sizes))} px, expected {feature_size} px, those of "
                "the generator; give another method.feature_index"
            )
        if in_channels != 3:
            raise UserError(f"method.in_channels={in_channels}: this encoder reads RGB images; give 3")
        super().__init__(num_ws, w_dim, in_channels, **kwargs)
        self.input_size, self.feature_gain, self.level = INPUT_SIZE, feature_gain, sizes.index(feature_size)
        self.lateral = nn.ModuleList(nn.Conv2d(c, content_width, 1) for c in self.backbone.channels[self.level :])
        last = nn.Conv2d(content_width, feature_channels, 3, 1, 1)
        nn.init.zeros_(last.weight)
        nn.init.zeros_(last.bias)  # type: ignore[arg-type]
        self.content = nn.Sequential(
            nn.PReLU(content_width), nn.Conv2d(content_width, content_width, 3, 1, 1), nn.PReLU(content_width), last
        )
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]
        """Maps images ``(B, 3, H, W)`` in [-1, 1] to codes ``(B, L, D)`` and features ``(B, C, r, r)``."""
        maps = self.backbone(to_input_size(x))
        merged = self.lateral[-1](maps[-1])
        for lateral, finer in zip(reversed(self.lateral[:-1]), reversed(maps[self.level : -1]), strict=True):
            merged = F.interpolate(merged, scale_factor=2.0, mode="bilinear", align_corners=False) + lateral(finer)
        features: Tensor = self.content(merged)
        return self.codes(self.vector(maps)), self.feature_gain * features
