"""Samples and statistics of W: mean, covariance and principal axes."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.utils.checks import whole_number

_CHUNK = 1000


def sample_z(generator: Generator, count: int, seed: int = 0) -> Tensor:
    """Returns standard normal z (count, Z); a seed gives the same values on every device."""
    whole_number("samples", count)
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator.z_dim, generator=source).to(generator.w_avg.device)


@torch.no_grad()
def map_codes(generator: Generator, z: Tensor) -> Tensor:
    """Returns w (N, D) of z (N, Z) without truncation."""
    return torch.cat([generator.mapping.w(part) for part in z.split(_CHUNK)])


@dataclass(frozen=True, eq=False)
class WStatistics:
    """Mean and covariance of W with the eigendecomposition of the covariance, largest variance first.

    Attributes:
        mean: (D,).
        covariance: (D, D).
        axes: Principal axes (D, D), unit vectors in rows.
        std: Standard deviation (D,) along each axis.
    """

    mean: Tensor
    covariance: Tensor
    axes: Tensor
    std: Tensor

    @staticmethod
    def of(w: Tensor) -> WStatistics:
        """Returns the statistics of codes (N, D).

        Raises:
            UserError: There are fewer than two codes, or they have another shape.
        """
        if w.ndim != 2 or len(w) < 2:
            raise UserError(f"statistics of codes {tuple(w.shape)}: expected (N, D) with at least 2 codes")
        double = w.double()
        covariance = torch.cov(double.T)
        values, vectors = torch.linalg.eigh(covariance)
        std, axes = values.clamp_min(0).sqrt().flip(0), vectors.T.flip(0)
        return WStatistics(*(part.to(w.dtype) for part in (double.mean(0), covariance, axes, std)))

    def distance(self, w: Tensor) -> Tensor:
        """Returns the Mahalanobis distance of codes (..., D) to the mean, divided by sqrt(D): about 1 for codes of W.

        It measures how far an inversion is from the codes of the mapping network (PULSE, e4e).
        """
        floor = self.std.amax() * 1e-4  # excludes axes without variance
        whitened = (w - self.mean) @ self.axes.T / self.std.clamp_min(floor)
        return whitened.square().mean(-1).sqrt()
