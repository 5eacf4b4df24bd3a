"""Perceptual distances between reconstruction and target."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stylegan_inv.encoders.face_network import perceptual_distance
from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.losses.lpips import load_lpips
from stylegan_inv.metrics.base import PerImageMetric
from stylegan_inv.metrics.networks import cached, describe_network
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen


class EmbeddedPerceptualDistance(PerImageMetric):
    """Distance between a face network's feature maps (see `perceptual_distance`). It is not LPIPS.

    Args:
        network: A `FeatureNetwork`, or the name or file of a face network. It should not be the network of the loss.
        **kwargs: Arguments of `PerImageMetric`.
    """

    higher_is_better = False

    def __init__(self, network: nn.Module | str | Path = "face_eval", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.frozen = Frozen(as_network(network))
        self._description = describe_network(network, self.frozen.network)

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return domain_of(self.frozen.network)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns the distances."""
        network = self.frozen.network
        return perceptual_distance(*(cached(network, network.features, x) for x in (image, target)))

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"distance of the features of {self._description}; not LPIPS"


class LPIPSDistance(PerImageMetric):
    """LPIPS (Zhang et al. 2018); it needs ImageNet weights, see `stylegan_inv.losses.lpips.load_lpips`.

    Args:
        net: Backbone: ``alex`` (the papers' tables), ``vgg`` or ``squeeze``.
        trunk: File with torchvision's weights of the backbone; None uses torch's cache or downloads them.
        **kwargs: Arguments of `PerImageMetric`.
    """

    domain: str | None = None
    higher_is_better = False

    def __init__(self, net: str = "alex", trunk: str | Path | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.net, self.frozen = net, Frozen(load_lpips(net, trunk))
        self._description = describe_network(None, self.frozen.network)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns the distances."""
        distances: Tensor = self.frozen(image, target)
        return distances.flatten()

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"LPIPS 0.1 with {self.net}, {self._description}"
