"""The encoder of one w for all layers.

Official class ``BackboneEncoderUsingLastLayerIntoW`` of pSp (Richardson et al., CVPR 2021, arXiv 2008.00951;
``--learn_in_w``) and, as ``SingleStyleCodeEncoder``, of e4e (Tov et al., SIGGRAPH 2021, arXiv 2102.02766), with which
HyperStyle's W encoders were trained.
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.generators.layers import FullyConnected


class SingleWEncoder(Backbone):
    """Maps the mean of the last feature map through a linear layer with equalised learning rate.

    Accepts images of any size.

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
        self.linear = FullyConnected(self.channels[-1], w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to codes ``(B, L, D)``, a view that repeats one w."""
        w: Tensor = self.linear(self.maps(x)[-1].mean(dim=(2, 3)))
        return w[:, None].expand(-1, self.num_ws, -1)
