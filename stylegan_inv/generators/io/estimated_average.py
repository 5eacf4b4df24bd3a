"""The latent average of a generator whose file has none, estimated from random codes."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.generators.generator import Generator

#: Random codes from which a latent average is estimated.
W_AVG_SAMPLES = 10_000


def estimate_w_avg(generator: Generator, samples: int = W_AVG_SAMPLES, seed: int = 0) -> Tensor:
    """Estimates the latent average.

    Args:
        generator: An unconditional generator.
        samples: Number of random codes z.
        seed: Seed of the codes.

    Returns:
        The mean of w over the codes, ``(w_dim,)``.
    """
    rng = torch.Generator().manual_seed(seed)
    total = torch.zeros(generator.w_dim, dtype=torch.float64)
    for start in range(0, samples, 1000):
        z = torch.randn(min(1000, samples - start), generator.z_dim, generator=rng)
        total += generator.mapping.w(z.to(generator.w_avg)).double().sum(dim=0).cpu()
    return (total / samples).to(generator.w_avg)
