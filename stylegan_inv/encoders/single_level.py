"""ReStyle's simplified encoder, which reads every style from the last map.

Paper: Alaluf et al., ICCV 2021, arXiv 2104.02699.

===========  ===============  ==========================================================================
backbone     ``progressive``  official class (yuval-alaluf/restyle-encoder, models/encoders)
===========  ===============  ==========================================================================
IR-SE50      False            ``BackboneEncoder`` (faces, with pSp)
IR-SE50      True             ``ProgressiveBackboneEncoder`` (faces, with e4e)
ResNet-34    False            ``ResNetBackboneEncoder`` (other domains, with pSp)
ResNet-34    True             ``ResNetProgressiveBackboneEncoder`` (other domains, with e4e)
===========  ===============  ==========================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor

from stylegan_inv.encoders.backbone import Layers
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.encoders.map2style import StyleEncoder


class SingleLevelEncoder(StyleEncoder):
    """Reads all styles from the map of 1/16 of the image's size.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: 6 for an image concatenated with its reconstruction.
        backbone: Builds the layers, called with ``in_channels``.
        resolution: Longest side of the images, in pixels.
        progressive: e4e's rule, see `map2style.StyleEncoder`.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        in_channels: int = 6,
        *,
        backbone: Callable[..., Layers] = ir_se,
        resolution: int = 256,
        progressive: bool = False,
    ) -> None:
        super().__init__(num_ws, w_dim, in_channels, backbone, [16] * num_ws, resolution, progressive)

    def levels(self, x: Tensor, count: int) -> list[Tensor]:
        """Returns the last map ``count`` times."""
        return [self.maps(x)[-1]] * count
