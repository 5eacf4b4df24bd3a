"""What codes of a generator look like: mean, spread and principal axes of W."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator

_CHUNK = 1000


def sample_z(generator: Generator, count: int, seed: int = 0) -> Tensor:
    """Standard normal z (count, Z), the same in every run and on every device."""
    if count < 1:
        raise UserError(f"samples={count}: expected at least 1")
    source = torch.Generator().manual_seed(seed)
    return torch.randn(count, generator.z_dim, generator=source).to(generator.w_avg.device)


@torch.no_grad()
def map_codes(generator: Generator, z: Tensor) -> Tensor:
    """W (N, D) of z (N, Z), not truncated."""
    return torch.cat([generator.mapping.w(part) for part in z.split(_CHUNK)])


@dataclass(frozen=True, eq=False)
class WStatistics:
    """Mean (D,), covariance (D, D) and its eigen-decomposition, largest variance first.

    Attributes:
        mean: (D,).
        covariance: (D, D).
        axes: (D, D), one principal axis a row, of unit length.
        std: (D,) standard deviation along each axis.
    """

    mean: Tensor
    covariance: Tensor
    axes: Tensor
    std: Tensor

    @staticmethod
    def of(w: Tensor) -> WStatistics:
        """Of codes (N, D)."""
        if w.ndim != 2 or len(w) < 2:
            raise UserError(f"statistics of codes {tuple(w.shape)}: expected (N, D) with at least 2 codes")
        double = w.double()
        covariance = torch.cov(double.T)
        values, vectors = torch.linalg.eigh(covariance)
        std, axes = values.clamp_min(0).sqrt().flip(0), vectors.T.flip(0)
        return WStatistics(*(part.to(w.dtype) for part in (double.mean(0), covariance, axes, std)))

    def distance(self, w: Tensor) -> Tensor:
        """Mahalanobis distance of codes (..., D) from the mean, divided by sqrt(D): about 1 for codes of W.

        How far an inversion left the codes that the mapping network gives; PULSE and e4e argue with this distance.
        """
        floor = self.std.amax() * 1e-4  # axes without any variance say nothing
        whitened = (w - self.mean) @ self.axes.T / self.std.clamp_min(floor)
        return whitened.square().mean(-1).sqrt()
