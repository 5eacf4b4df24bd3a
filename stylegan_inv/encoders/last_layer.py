"""The "naive W+" encoder of pSp's ablation, which reads w+ from the flattened last map.

Paper: Richardson et al., CVPR 2021, arXiv 2008.00951. Official class: ``BackboneEncoderUsingLastLayerIntoWPlus``
(eladrich/pixel2style2pixel, models/encoders/psp_encoders.py).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.generators.layers import FullyConnected

#: Side to which the last map is pooled, that of a 112-px face in ArcFace.
POOLED_SIZE = 7


class LastLayerEncoder(Backbone):
    """Maps the last feature map, pooled to 7x7 and flattened, through two linear layers. Accepts images of any size.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: Channels of the input.
        backbone: Builds the layers, called with ``in_channels``.
    """

    def __init__(
        self, num_ws: int, w_dim: int, in_channels: int = 3, *, backbone: Callable[..., Layers] = ir_se
    ) -> None:
        super().__init__(backbone(in_channels))
        self.num_ws, self.w_dim = num_ws, w_dim
        last = self.channels[-1]
        self.output_layer_2 = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.AdaptiveAvgPool2d(POOLED_SIZE),
            nn.Flatten(),
            nn.Linear(last * POOLED_SIZE**2, w_dim),
        )
        self.linear = FullyConnected(w_dim, num_ws * w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to codes ``(B, L, D)``."""
        codes: Tensor = self.linear(self.output_layer_2(self.maps(x)[-1]))
        return torch.unflatten(codes, 1, (self.num_ws, self.w_dim))
