"""Random numbers for augmentation, one for each image of a batch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


class PerImageRandom:
    """Draws a random number for each image from PyTorch's global generator; all results have shape (B,).

    Args:
        images: Batch (B, ...), which determines the device and the type of the numbers.
    """

    def __init__(self, images: Tensor) -> None:
        self._zeros = torch.zeros(len(images), device=images.device, dtype=images.dtype)

    def uniform(self, low: float, high: float) -> Tensor:
        """Returns uniform numbers in [low, high)."""
        return low + (high - low) * torch.rand_like(self._zeros)

    def normal(self, std: float) -> Tensor:
        """Returns normal numbers with mean 0."""
        return std * torch.randn_like(self._zeros)

    def integer(self, count: int) -> Tensor:
        """Returns whole numbers from 0 to ``count - 1``."""
        return self.uniform(0, count).floor().clamp_max(count - 1)

    def gates(self, p: float, values: Sequence[Tensor], neutral: float) -> list[Tensor]:
        """Returns each image's values with probability p, and ``neutral`` for all of them otherwise."""
        on = torch.rand_like(self._zeros) < p
        return [torch.where(on, value, torch.full_like(value, neutral)) for value in values]

    def gate(self, p: float, value: Tensor, neutral: float) -> Tensor:
        """Returns each image's value with probability p, and ``neutral`` otherwise."""
        return self.gates(p, [value], neutral)[0]
