"""Perceptual distances of reconstruction and original."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stylegan_inv.encoders.face_network import perceptual_distance
from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.metrics.base import PerImageMetric
from stylegan_inv.metrics.networks import describe_network, recent
from stylegan_inv.utils.frozen_module import Frozen


class EmbeddedPerceptualDistance(PerImageMetric):
    """Distance of a face network's feature maps; not LPIPS (see `perceptual_distance`).

    Args:
        network: anything with ``features(image) -> list of maps``, or the name or file of a face network. Not the one
            that the loss used.
        **kwargs: of `PerImageMetric`.
    """

    higher_is_better = False

    def __init__(self, network: nn.Module | str | Path = "face_eval", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = Frozen(as_network(network))
        self._description = describe_network(network, self.frozen.network)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """The distances."""
        network = self.frozen.network
        return perceptual_distance(*(recent(network, network.features, x) for x in (image, target)))

    def describe(self) -> str:
        """The network."""
        return f"distance of the features of {self._description}; not LPIPS"


class LPIPSDistance(PerImageMetric):
    """LPIPS (Zhang et al. 2018); needs the trunk's ImageNet weights, see `stylegan_inv.losses.lpips.load_lpips`.

    Args:
        net: ``alex`` (the papers' tables), ``vgg`` or ``squeeze``.
        trunk: file with the trunk's torchvision weights; None uses torch's cache or downloads.
        **kwargs: of `PerImageMetric`.
    """

    higher_is_better = False

    def __init__(self, net: str = "alex", trunk: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        from stylegan_inv.losses.lpips import load_lpips

        self.net, self.frozen = net, Frozen(load_lpips(net, trunk))
        self._description = describe_network(None, self.frozen.network)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """The distances."""
        return self.frozen(image, target).flatten()

    def describe(self) -> str:
        """The network."""
        return f"LPIPS 0.1 with {self.net}, {self._description}"
