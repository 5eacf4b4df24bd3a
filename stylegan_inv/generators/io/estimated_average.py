"""The latent average of a generator whose file has none, estimated from random codes."""

from __future__ import annotations

from torch import Tensor

from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.mapping import W_AVG_SAMPLES

__all__ = ["W_AVG_SAMPLES", "estimate_w_avg"]


def estimate_w_avg(generator: Generator, samples: int = W_AVG_SAMPLES, seed: int = 0) -> Tensor:
    """Estimates the latent average.

    Args:
        generator: The generator; a conditional one has codes of all classes.
        samples: Number of random codes z.
        seed: Seed of the codes.

    Returns:
        The mean of w over the codes, ``(w_dim,)``.
    """
    return generator.mapping.mean_w(samples, seed)
