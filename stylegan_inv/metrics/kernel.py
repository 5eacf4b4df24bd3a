"""Kernel distance of two sets of features: the unbiased maximum mean discrepancy."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.base import RowMetric
from stylegan_inv.metrics.pooled import PooledSetMetric


def kernel_distance(a: Tensor, b: Tensor, chunk: int = 2048) -> Tensor:
    """Unbiased squared MMD of features (N, D) and (M, D) under the kernel ``(x . y / D + 1)^3``, in float64.

    The estimator and kernel of KID (Binkowski et al., ICLR 2018, arXiv 1801.01401, section 4), over all pairs at once
    instead of random subsets: no draw, and less variance. Being unbiased, it can come out below zero.

    Raises:
        UserError: Fewer than two features on either side.
    """
    a, b = a.double(), b.double()
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise UserError(f"the kernel distance got {n} and {m} images, expected at least 2 of each")

    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([_kernel(part @ y.T, y).sum() for part in x.split(chunk)]).sum()

    def without_self(x: Tensor) -> Tensor:
        return total(x, x) - _kernel(x.square().sum(dim=1), x).sum()

    return without_self(a) / (n * (n - 1)) + without_self(b) / (m * (m - 1)) - 2 * total(a, b) / (n * m)


def _kernel(products: Tensor, features: Tensor) -> Tensor:
    return (products / features.shape[1] + 1) ** 3


class KernelDistance(PooledSetMetric, RowMetric):
    """`kernel_distance` of two sets of images on a face network's pooled features; not KID.

    Args:
        network: see :class:`PooledSetMetric`.
        **kwargs: see :class:`PooledSetMetric`.
    """

    higher_is_better = False

    def __init__(self, network: Any = "face_eval", **kwargs: Any) -> None:
        super().__init__(network, **kwargs)
        self.add_rows("real", self.features)
        self.add_rows("fake", self.features)

    def update(self, images: Tensor, real: bool) -> None:
        """Adds images (B, 3, H, W) in [-1, 1], real or not."""
        getattr(self, "real" if real else "fake").append(self.pooled(images))

    def compute(self) -> Tensor:
        """The distance; see `kernel_distance` for errors."""
        return kernel_distance(self.rows("real"), self.rows("fake"))

    def describe(self) -> str:
        """The features."""
        return f"squared MMD, cubic kernel, all pairs, of the pooled features of {self._description}; not KID"
