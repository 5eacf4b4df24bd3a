"""Perceptual loss of the embedded world."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.encoders.face_network import perceptual_distance
from stylegan_inv.losses.compose import LossInputs, as_network, check_normalise, check_region
from stylegan_inv.utils.frozen_module import Frozen


class EmbeddedPerceptual(nn.Module):
    """Batch mean of the distance of a face network's feature maps; not LPIPS (see `perceptual_distance`).

    Args:
        network: anything with ``features(image) -> list of maps``, or the name or file of a face network.
        region: ``whole``, ``interest`` (both images multiplied by the mask) or ``crop`` (frontalisation).
        normalise: with a mask, average over ``all_pixels`` or over the ``mask_area``.
    """

    def __init__(
        self,
        network: nn.Module | str | Path = "face_train",
        region: str = "whole",
        normalise: str = "all_pixels",
    ) -> None:
        super().__init__()
        self.frozen = Frozen(as_network(network))
        self.region = check_region(region)
        self.normalise = check_normalise(normalise, region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean distance."""
        network = self.frozen.network
        maps = [inputs.once(which, self.region, network, network.features) for which in ("image", "target")]
        return inputs.average(perceptual_distance(*maps), self.normalise)
