"""Means of per-image values over a data set, on one rank or on many."""

from __future__ import annotations

import torch
from torch import Tensor


class ImageMeans:
    """Accumulates per-image values by name and returns their means over all images of all ranks."""

    def __init__(self) -> None:
        self._totals: dict[str, Tensor] = {}

    def add(self, name: str, values: Tensor) -> None:
        """Adds the values (B,) of a batch, in double precision."""
        total = torch.stack([values.double().sum(), torch.full_like(values[0], len(values)).double()])
        self._totals[name] = self._totals.get(name, 0) + total

    def compute(self, world_size: int = 1) -> dict[str, Tensor]:
        """Returns the mean of each name; empty if no rank has seen an image."""
        return {name: total[0] / total[1] for name, total in self._reduced(world_size).items()}

    def _reduced(self, world_size: int) -> dict[str, Tensor]:
        if world_size == 1:
            return self._totals
        # As objects: a rank without readable images has no totals, and must not block the others.
        gathered: list[dict[str, Tensor]] = [{}] * world_size
        torch.distributed.all_gather_object(gathered, {name: total.cpu() for name, total in self._totals.items()})
        names = dict.fromkeys(name for totals in gathered for name in totals)
        return {name: torch.stack([totals[name] for totals in gathered if name in totals]).sum(0) for name in names}
