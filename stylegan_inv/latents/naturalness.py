"""How natural codes are: their distance from W in units of its covariance, after a leaky ReLU makes W nearly normal.

Wulff and Torralba, "Improving Inversion and Generation Diversity in StyleGAN using a Gaussianized Latent Space",
arXiv 2009.06529; as SAM uses it (adobe-research/sam_inversion, commit 93d3bd6).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

#: Slope of the negative side; the inverse of that of the mapping network's last layer.
_SLOPE = 5.0
#: Added to the diagonal of the covariance.
_RIDGE = 1e-8


class GaussianizedW:
    """Mean and inverse covariance of ``v = leaky_relu(w, 5)``.

    Args:
        w: Samples of W, (N, D).

    Attributes:
        mean: The transformed mean of w, which is not the mean of v, (D,), in double precision.
        precision: Inverse covariance of v, (D, D), in double precision.
    """

    def __init__(self, w: Tensor) -> None:
        samples = w.double()
        v = F.leaky_relu(samples, _SLOPE)
        covariance = torch.cov(v.T) + _RIDGE * torch.eye(v.shape[1], dtype=v.dtype, device=v.device)
        self.mean = F.leaky_relu(samples.mean(0), _SLOPE)
        self.precision: Tensor = torch.linalg.inv(covariance)

    def distance(self, w: Tensor) -> Tensor:
        """Returns the squared Mahalanobis distances of codes (B, L, D), summed over the layers, (B,)."""
        difference = F.leaky_relu(w.double(), _SLOPE) - self.mean
        return ((difference @ self.precision) * difference).sum((1, 2)).to(w.dtype)
