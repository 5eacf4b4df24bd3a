"""Kernel distance between two sets of features: the unbiased maximum mean discrepancy.

torch-fidelity and torchmetrics average it over random subsets. Here it is computed once over all pairs, so it depends
on no random numbers. The tests compare both for a subset that contains all images.
"""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.pooled import PooledRowsMetric


def kernel_distance(a: Tensor, b: Tensor, chunk: int = 2048) -> Tensor:
    """Returns the unbiased squared MMD of features under the kernel ``(x . y / D + 1)^3``, in float64.

    Estimator and kernel are those of KID (Binkowski et al., ICLR 2018, arXiv 1801.01401, section 4). An unbiased
    estimate can be negative.

    Args:
        a: (N, D).
        b: (M, D).
        chunk: Number of rows per matrix product, which bounds the memory.

    Raises:
        UserError: There are fewer than two features on either side.
    """
    a, b = a.double(), b.double()
    n, m = len(a), len(b)
    if min(n, m) < 2:
        raise UserError(f"the kernel distance got {n} and {m} images, expected at least 2 of each")

    def total(x: Tensor, y: Tensor) -> Tensor:
        return torch.stack([_kernel(part @ y.T, y).sum() for part in x.split(chunk)]).sum()

    def without_diagonal(x: Tensor) -> Tensor:
        return total(x, x) - _kernel(x.square().sum(dim=1), x).sum()

    return without_diagonal(a) / (n * (n - 1)) + without_diagonal(b) / (m * (m - 1)) - 2 * total(a, b) / (n * m)


def _kernel(products: Tensor, features: Tensor) -> Tensor:
    return (products / features.shape[1] + 1) ** 3


class KernelDistance(PooledRowsMetric):
    """`kernel_distance` between two sets of images on a face network's pooled features. It is not KID.

    Args:
        network: See :class:`PooledSetMetric`.
        **kwargs: See :class:`PooledSetMetric`.
    """

    higher_is_better = False

    def compute(self) -> Tensor:
        """Returns the distance.

        Raises:
            UserError: There are fewer than two real or two generated images.
        """
        return kernel_distance(self.rows("real"), self.rows("fake"))

    def describe(self) -> str:
        """Returns the name of the network."""
        return f"squared MMD, cubic kernel, all pairs, of the pooled features of {self._description}; not KID"
