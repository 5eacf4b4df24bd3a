"""Frechet distance of two sets of features, as Gaussians."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.pooled import PooledSetMetric


def gaussian_frechet(mean_a: Tensor, cov_a: Tensor, mean_b: Tensor, cov_b: Tensor) -> Tensor:
    """Squared Frechet (2-Wasserstein) distance of two Gaussians, in float64.

    ``|m_a - m_b|^2 + tr(C_a + C_b - 2 (C_a C_b)^(1/2))`` (Dowson and Landau 1982). The trace of the root is the sum of
    the roots of the eigenvalues of ``C_a^(1/2) C_b C_a^(1/2)``, which is symmetric: no general matrix root is needed
    and singular covariances are fine.
    """
    mean_a, cov_a, mean_b, cov_b = (t.double() for t in (mean_a, cov_a, mean_b, cov_b))
    values, vectors = torch.linalg.eigh(cov_a)
    root_a = (vectors * values.clamp_min(0).sqrt()) @ vectors.T
    inner = root_a @ cov_b @ root_a
    trace_root = torch.linalg.eigvalsh((inner + inner.T) / 2).clamp_min(0).sqrt().sum()
    distance = (mean_a - mean_b).square().sum() + cov_a.trace() + cov_b.trace() - 2 * trace_root
    return distance.clamp_min(0)


def frechet_distance(a: Tensor, b: Tensor) -> Tensor:
    """`gaussian_frechet` of two sets of features (N, D) and (M, D)."""
    a, b = a.double(), b.double()
    return gaussian_frechet(a.mean(0), torch.cov(a.T), b.mean(0), torch.cov(b.T))


class FrechetDistance(PooledSetMetric):
    """Frechet distance of generated and real images on a face network's pooled features; not FID.

    Only sums are kept (float64), so the result depends neither on batch sizes nor on ranks.

    Args:
        network: see :class:`PooledSetMetric`.
        **kwargs: see :class:`PooledSetMetric`.
    """

    higher_is_better = False
    full_state_update = False

    def __init__(self, network: Any = "face_eval", **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        dim = self.features
        for kind in ("real", "fake"):
            self.add_state(f"{kind}_count", torch.zeros((), dtype=torch.int64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_sum", torch.zeros(dim, dtype=torch.float64), dist_reduce_fx="sum")
            self.add_state(f"{kind}_outer", torch.zeros(dim, dim, dtype=torch.float64), dist_reduce_fx="sum")

    def update(self, images: Tensor, real: bool) -> None:
        """Adds images (B, 3, H, W) in [-1, 1], real or generated."""
        features = self.pooled(images).double()
        kind = "real" if real else "fake"
        for name, value in (("count", len(images)), ("sum", features.sum(0)), ("outer", features.T @ features)):
            setattr(self, f"{kind}_{name}", getattr(self, f"{kind}_{name}") + value)

    def compute(self) -> Tensor:
        """The squared distance.

        Raises:
            UserError: fewer than two images on either side.
        """
        return gaussian_frechet(*self._moments("real"), *self._moments("fake"))

    def describe(self) -> str:
        """The features."""
        return f"Frechet distance of the pooled features of {self._description}; not FID"

    def _moments(self, kind: str) -> tuple[Tensor, Tensor]:
        count, total, outer = (getattr(self, f"{kind}_{name}") for name in ("count", "sum", "outer"))
        if count < 2:
            raise UserError(f"FrechetDistance got {int(count)} {kind} images, expected at least 2")
        mean = total / count
        return mean, (outer - count * torch.outer(mean, mean)) / (count - 1)
