"""What distances between sets of images share: they look at pooled features of one network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.metrics.base import SetMetric
from stylegan_inv.metrics.networks import describe_network, recent
from stylegan_inv.utils.frozen_module import Frozen


class PooledSetMetric(SetMetric):
    """A metric of two sets of images on a face network's pooled features.

    Args:
        network: anything with ``pooled(image) -> (B, D)``, or the name or file of a face network.
        features: D; taken from the network by default.
        **kwargs: of torchmetrics.Metric.
    """

    def __init__(
        self, network: nn.Module | str | Path = "face_eval", features: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.frozen = Frozen(as_network(network))
        self._description = describe_network(network, self.frozen.network)
        self.features = features or self.frozen.network.backbone.channels[-1]

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """Features (B, D) of images (B, 3, H, W) in [-1, 1]."""
        network = self.frozen.network
        return recent(network, network.pooled, images)
