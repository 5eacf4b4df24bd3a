"""Perceptual loss on the features of a face network."""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.encoders.face_network import perceptual_distance
from stylegan_inv.losses.compose import LossInputs, check_normalise, check_region
from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen


class EmbeddedPerceptual(nn.Module):
    """Batch mean of the distance between a face network's feature maps (see `perceptual_distance`). It is not LPIPS.

    Args:
        network: A `FeatureNetwork`, or the name or file of a face network.
        region: ``whole``, ``interest`` (both images are multiplied by the mask) or ``crop`` (frontalisation).
        normalise: With a mask, average over ``all_pixels`` or over the ``mask_area``.
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

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return domain_of(self.frozen.network)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean distance."""
        network = self.frozen.network
        image = inputs.compute_once("image", self.region, network, network.features)
        target = inputs.compute_once("target", self.region, network, network.features)
        return inputs.average(perceptual_distance(image, target), self.normalise)
