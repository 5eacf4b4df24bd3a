"""Improved precision and recall of generative models (Kynkaanniemi et al., NeurIPS 2019, arXiv 1904.06991).

torch-fidelity computes distances by matrix products, which are imprecise for the small distances that matter here. The
tests compare both.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.pooled import PooledRowsMetric
from stylegan_inv.utils.checks import whole_number


def _distances(a: Tensor, b: Tensor) -> Tensor:
    # The matrix product form of cdist loses precision for small distances.
    return torch.cdist(a, b, compute_mode="donot_use_mm_for_euclid_dist")


def manifold_radii(features: Tensor, k: int = 3, chunk: int = 1024) -> Tensor:
    """Returns the distance (N,) of each feature to its k-th nearest neighbour.

    Args:
        features: (N, D).
        k: Index of the neighbour. A feature is not its own neighbour, but an equal one at another index is.
        chunk: Number of features per distance matrix, which bounds the memory.

    Raises:
        UserError: There are at most ``k`` features.
    """
    if len(features) <= k:
        raise UserError(f"precision and recall with k={k} got {len(features)} images, expected at least {k + 1}")
    radii = []
    for start in range(0, len(features), chunk):
        rows = _distances(features[start : start + chunk], features)
        own = torch.arange(len(rows), device=rows.device)
        rows[own, start + own] = torch.inf
        radii.append(rows.kthvalue(k, dim=1).values)
    return torch.cat(radii)


def coverage(points: Tensor, manifold: Tensor, k: int = 3, chunk: int = 1024) -> Tensor:
    """Returns the fraction of points that are inside a manifold: within the radius of any feature (equation 1).

    Args:
        points: (M, D).
        manifold: Features (N, D) that span the manifold.
        k: See `manifold_radii`.
        chunk: See `manifold_radii`.
    """
    radii = manifold_radii(manifold, k, chunk)
    inside = [
        (_distances(points[start : start + chunk], manifold) <= radii).any(dim=1)
        for start in range(0, len(points), chunk)
    ]
    return torch.cat(inside).double().mean()


def precision_recall(real: Tensor, fake: Tensor, k: int = 3) -> tuple[Tensor, Tensor]:
    """Returns precision (coverage of generated images) and recall (coverage of real images), equation 2.

    Args:
        real: Features (N, D) of real images.
        fake: Features (M, D) of generated images.
        k: Number of neighbours.
    """
    real, fake = real.double(), fake.double()
    return coverage(fake, real, k), coverage(real, fake, k)


class PrecisionRecall(PooledRowsMetric):
    """Precision and recall of generated images on a face network's pooled features.

    Args:
        network: See :class:`PooledSetMetric`.
        k: Number of neighbours; the paper uses 3.
        **kwargs: See :class:`PooledSetMetric`.

    Raises:
        UserError: ``k`` is less than 1.
    """

    higher_is_better = True

    def __init__(self, network: Any = "face_eval", k: int = 3, **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.k = whole_number("precision and recall: k", k)

    def compute(self) -> dict[str, Tensor]:
        """Returns ``precision`` and ``recall``.

        Raises:
            UserError: There are at most ``k`` real or generated images.
        """
        precision, recall = precision_recall(self.rows("real"), self.rows("fake"), self.k)
        return {"precision": precision, "recall": recall}

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"{self.k} nearest neighbours of the pooled features of {self._description}"
