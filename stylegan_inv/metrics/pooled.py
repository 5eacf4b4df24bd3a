"""Base classes of distances between sets of images on the pooled features of one network."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.face_network import FaceNetwork
from stylegan_inv.errors import UserError
from stylegan_inv.losses.feature_networks import as_network
from stylegan_inv.metrics.base import RowMetric, SetMetric
from stylegan_inv.metrics.networks import cached, describe_network
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen


class PooledSetMetric(SetMetric):
    """A metric of two sets of images on a network's pooled features.

    Args:
        network: A `PoolingNetwork`, or the name or file of a face network.
        features: Size D of the features; only a face network has a default.
        **kwargs: Arguments of torchmetrics.Metric.

    Raises:
        UserError: The size is missing.
    """

    def __init__(
        self, network: nn.Module | str | Path = "face_eval", features: int | None = None, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.frozen = Frozen(as_network(network))
        self._description = describe_network(network, self.frozen.network)
        self.features = _feature_size(self.frozen.network) if features is None else features

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return domain_of(self.frozen.network)

    @torch.no_grad()
    def pooled(self, images: Tensor) -> Tensor:
        """Returns features (B, D) of images (B, 3, H, W) in [-1, 1]."""
        network = self.frozen.network
        features: Tensor = cached(network, network.pooled, images)
        return features


class PooledRowsMetric(PooledSetMetric, RowMetric):
    """A metric that needs the features of all images, (N, D) each, at the end.

    Args:
        network: See :class:`PooledSetMetric`.
        **kwargs: See :class:`PooledSetMetric`.
    """

    real: list[Tensor]
    fake: list[Tensor]

    def __init__(self, network: nn.Module | str | Path = "face_eval", **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.add_rows("real", self.features)
        self.add_rows("fake", self.features)

    def update(self, images: Tensor, real: bool) -> None:
        """Adds a batch.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            real: Whether they are real or generated.
        """
        (self.real if real else self.fake).append(self.pooled(images))


def _feature_size(network: nn.Module) -> int:
    if not isinstance(network, FaceNetwork):
        raise UserError(f"features: got no size for {type(network).__name__}; give the number of its pooled features")
    return int(network.backbone.channels[-1])
