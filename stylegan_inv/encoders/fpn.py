"""The feature-pyramid encoder of pSp and, with the progressive rule, of e4e.

=========  ===============  ======================================================================
backbone   ``progressive``  paper and official class
=========  ===============  ======================================================================
IR-SE50    False            pSp (Richardson et al., CVPR 2021, arXiv 2008.00951):
                            ``GradualStyleEncoder`` (eladrich/pixel2style2pixel)
IR-SE50    True             e4e (Tov et al., SIGGRAPH 2021, arXiv 2102.02766):
                            ``Encoder4Editing`` (omertov/encoder4editing)
IR-SE50    False            ReStyle (Alaluf et al., ICCV 2021, arXiv 2104.02699), 6 channels:
                            ``GradualStyleEncoder`` (yuval-alaluf/restyle-encoder)
ResNet-34  False            ReStyle, 6 channels: ``ResNetGradualStyleEncoder``
=========  ===============  ======================================================================
"""

from __future__ import annotations

from collections.abc import Callable

from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.backbone import Layers
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.encoders.map2style import StyleEncoder

# Paper: the finest map gives styles 7-18. Official code: 7-17, counted from 0 (coarse_ind 3, middle_ind 7), for every
# number of styles. We follow the code.
MIDDLE, FINE = 3, 7


class FPNEncoder(StyleEncoder):
    """Reads styles 0-2 from the map of 1/16 of the image's size, 3-6 from that of 1/8, the others from that of 1/4.

    A finer map is the sum of the upsampled coarser one and a 1x1 convolution of the backbone's map.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: 3 for RGB images (pSp, e4e), 6 for an image concatenated with its reconstruction (ReStyle), 1 or 19
            for sketches or label maps (pSp).
        backbone: Builds the layers, called with ``in_channels``.
        resolution: Longest side of the images, in pixels.
        progressive: e4e's rule, see `map2style.StyleEncoder`.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        in_channels: int = 3,
        *,
        backbone: Callable[..., Layers] = ir_se,
        resolution: int = 256,
        progressive: bool = False,
    ) -> None:
        strides = [16] * MIDDLE + [8] * (FINE - MIDDLE) + [4] * max(num_ws - FINE, 0)
        super().__init__(num_ws, w_dim, in_channels, backbone, strides, resolution, progressive)
        _, fine, middle, coarse = self.channels
        self.latlayer1 = nn.Conv2d(middle, coarse, 1)
        self.latlayer2 = nn.Conv2d(fine, coarse, 1)

    def levels(self, x: Tensor, count: int) -> list[Tensor]:
        """Returns the maps of the first ``count`` styles. Finer maps are not computed."""
        _, fine, middle, coarse = self.maps(x)
        pyramid = feature_pyramid(
            coarse,
            middle if count > MIDDLE else None,
            fine if count > FINE else None,
            self.latlayer1,
            self.latlayer2,
        )
        return [pyramid[(style >= MIDDLE) + (style >= FINE)] for style in range(count)]


def feature_pyramid(
    coarse: Tensor, middle: Tensor | None, fine: Tensor | None, first: nn.Module, second: nn.Module
) -> list[Tensor]:
    """Returns the coarse map, and the finer ones plus the upsampled coarser one.

    Args:
        coarse: Map of 1/16 of the image's size.
        middle: Map of 1/8; None ends the pyramid before it.
        fine: Map of 1/4; None ends the pyramid before it.
        first: Convolution of the middle map to the channels of the coarse one.
        second: The same of the fine map.
    """
    pyramid = [coarse]
    for finer, lateral in ((middle, first), (fine, second)):
        if finer is None:
            break
        pyramid.append(_upsample_add(pyramid[-1], lateral(finer)))
    return pyramid


def _upsample_add(coarse: Tensor, lateral: Tensor) -> Tensor:
    return F.interpolate(coarse, lateral.shape[2:], mode="bilinear", align_corners=True) + lateral
