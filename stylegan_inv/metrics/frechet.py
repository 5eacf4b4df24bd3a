"""Frechet distance between two sets of features, modelled as Gaussians.

torch-fidelity and torchmetrics compute it from the eigenvalues of ``C_a C_b``, a non-symmetric matrix, which loses
digits if a covariance is singular: fewer images than features are usual here. The tests compare both with this module.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.pooled import PooledSetMetric


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """Returns the squared Frechet (2-Wasserstein) distance between two Gaussians, in float64.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Dowson and Landau 1982). The trace of the root is the sum of
    the square roots of the eigenvalues of ``C_a^(1/2) C_b C_a^(1/2)``. This matrix is symmetric, so no general matrix
    root is needed and singular covariances are allowed.

    Args:
        mean_a: (D,).
        cov_a: (D, D).
        mean_b: (D,).
        cov_b: (D, D).
    """
    mean_a, cov_a, mean_b, cov_b = (t.double() for t in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    inner = root_a @ cov_b @ root_a
    trace_root = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    distance: Tensor = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_root
    return distance.clamp_min(0)


def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns `gaussian_frechet` of two sets of features (N, D) and (M, D)."""
    a, b = a.double(), b.double()
    return gaussian_frechet(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


class FrechetDistance(PooledSetMetric):
    """Frechet distance between generated and real images on a face network's pooled features. It is not FID.

    The states are sums in float64, so the result depends neither on the batch size nor on the number of ranks.

    Args:
        network: See :class:`PooledSetMetric`.
        **kwargs: See :class:`PooledSetMetric`.
    """

    higher_is_better = False
    full_state_update = False

    real_count: Tensor
    real_sum: Tensor
    real_outer: Tensor
    fake_count: Tensor
    fake_sum: Tensor
    fake_outer: Tensor

    def __init__(self, network: Any = "face_eval", **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        dim = self.features
        for kind in ("real", "fake"):
            self.add_state(f"{kind}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_sum", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor, real: bool) -> None:
        """Adds a batch.

        Args:
            images: (B, 3, H, W) in [-1, 1].
            real: Whether they are real or generated.
        """
        features = self.pooled(images).double()
        total, outer = features.sum(0), features.T @ features
        if real:
            self.real_count = self.real_count + len(images)
            self.real_sum, self.real_outer = self.real_sum + total, self.real_outer + outer
        else:
            self.fake_count = self.fake_count + len(images)
            self.fake_sum, self.fake_outer = self.fake_sum + total, self.fake_outer + outer

    def compute(self) -> Tensor:
        """Returns the squared distance.

        Raises:
            UserError: There are fewer than two real or two generated images.
        """
        real = _moments("real", self.real_count, self.real_sum, self.real_outer)
        fake = _moments("fake", self.fake_count, self.fake_sum, self.fake_outer)
        return gaussian_frechet(*real, *fake)

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"Frechet distance of the pooled features of {self._description}; not FID"


def _moments(kind: str, count: Tensor, total: Tensor, outer: Tensor) -> tuple[Tensor, Tensor]:
    """Returns mean and covariance, from the number, the sum and the sum of outer products of features."""
    if count < 2:
        raise UserError(f"FrechetDistance got {int(count)} {kind} images, expected at least 2")
    mean = total / count
    return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)
