"""Improved precision and recall of generative models (Kynkaanniemi et al., NeurIPS 2019, arXiv 1904.06991)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.base import RowMetric
from stylegan_inv.metrics.pooled import PooledSetMetric


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # The matrix-product form of cdist loses the small distances that decide here.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def manifold_radii(features: Tensor, k: int = 3, chunk: int = 1024) -> Tensor:
    """Distance (N,) of each feature to its k-th nearest other one."""
    if len(features) <= k:
        raise UserError(f"precision and recall with k={k} got {len(features)} images, expected at least {k + 1}")
    radii = []
    for start in range(0, len(features), chunk):
        rows = _distances(features[start : start + chunk], features)
        own = torch.arange(len(rows), device=rows.device)
        rows[own, start + own] = torch.inf  # itself is not a neighbour; a copy of it is
        radii.append(rows.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def coverage(points: Tensor, manifold: Tensor, k: int = 3, chunk: int = 1024) -> Tensor:
    """Share of ``points`` (M, D) inside the manifold: within the radius of some feature (equation 1)."""
    radii = manifold_radii(manifold, k, chunk)
    inside = [
        (_distances(points[start : start + chunk], manifold) <= radii).any(dim=1)
        for start in range(0, len(points), chunk)
    ]
    return torch.cat(inside).double().mean()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Precision (generated images that look real) and recall (real images that could be generated), equation 2."""
    real, fake = real.double(), fake.double()
    return coverage(fake, real, k), coverage(real, fake, k)


class PrecisionRecall(PooledSetMetric, RowMetric):
    """Precision and recall of generated images on a face network's pooled features.

    Args:
        network: see :class:`PooledSetMetric`.
        k: neighbours; the paper uses 3.
        **kwargs: see :class:`PooledSetMetric`.
    """

    higher_is_better = True

    def __init__(self, network: Any = "face_eval", k: int = 3, **kwargs: Any) -> None:
        if k < 1:
            raise UserError(f"precision and recall: got k={k}, expected at least 1")
        super().__init__(network, **kwargs)
        self.k = k
        self.add_rows("real", self.features)
        self.add_rows("fake", self.features)

    def update(self, images: Tensor, real: bool) -> None:
        """Adds images (B, 3, H, W) in [-1, 1], real or generated."""
        getattr(self, "real" if real else "fake").append(self.pooled(images))

    def compute(self) -> dict[str, Tensor]:
        """``precision`` and ``recall``."""
        precision, recall = precision_recall(self.rows("real"), self.rows("fake"), self.k)
        return {"precision": precision, "recall": recall}

    def describe(self) -> str:
        """The features."""
        return f"{self.k} nearest neighbours of the pooled features of {self._description}"
