"""Pixel-wise losses."""

from __future__ import annotations

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, check_region


class L2(nn.Module):
    """Mean squared error over all pixels and channels, images in [-1, 1] (pSp, equation 2).

    Args:
        region: ``whole`` or ``interest`` (both images multiplied by the mask).
        normalise: with a mask, average over ``all_pixels`` (IntereStyle's code) or over the ``mask_area``.
    """

    def __init__(self, region: str = "whole", normalise: str = "all_pixels") -> None:
        super().__init__()
        self.region = check_region(region)
        if normalise not in ("all_pixels", "mask_area"):
            raise UserError(f"normalise={normalise!r}: expected 'all_pixels' or 'mask_area'")
        self.normalise = normalise

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean squared error."""
        image, target = inputs.picture("image", self.region), inputs.picture("target", self.region)
        squared = (image - target).square()
        if self.region == "whole" or self.normalise == "all_pixels":
            return squared.mean()
        assert inputs.mask is not None  # picture() has checked
        return squared.sum() / (inputs.mask.square().sum() * squared.shape[1]).clamp_min(1e-6)
