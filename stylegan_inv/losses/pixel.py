"""Pixel-wise losses."""

from __future__ import annotations

from torch import Tensor, nn

from stylegan_inv.losses.compose import LossInputs, check_normalise, check_region


class L2(nn.Module):
    """Mean squared error over all pixels and channels, for images in [-1, 1] (pSp, equation 2).

    Args:
        region: ``whole``, ``interest`` (both images are multiplied by the mask) or ``crop`` (frontalisation).
        normalise: With a mask, average over ``all_pixels`` (IntereStyle's code) or over the ``mask_area``.
    """

    domain: str | None = None

    def __init__(self, region: str = "whole", normalise: str = "all_pixels") -> None:
        super().__init__()
        self.region = check_region(region)
        self.normalise = check_normalise(normalise, region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean squared error."""
        error = inputs.select("image", self.region) - inputs.select("target", self.region)
        return inputs.average(error.square().mean(dim=(1, 2, 3)), self.normalise)
