"""The distances that a method reached in validation, by which an image of another domain is recognised."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError

#: The quantiles that are stored: 0 is the smallest distance, 1 the largest.
LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)


@dataclass(frozen=True)
class ReachedDistances:
    """Quantiles of the reconstructions' squared errors in a validation.

    Attributes:
        quantiles: Quantile of the mean squared error of an image, in squared units of [-1, 1], for each of `LEVELS`.
        images: Number of images.
        size: Side length of the images that were compared, in pixels.
    """

    quantiles: tuple[float, ...]
    images: int
    size: int

    @classmethod
    def of(cls, distances: Tensor, size: int) -> ReachedDistances | None:
        """Returns the exact quantiles of the distances (N,); those that are not finite are left out.

        Args:
            distances: Mean squared error of each image.
            size: Side length of the images, in pixels.

        Returns:
            None if no distance is finite.
        """
        finite = distances[distances.isfinite()].double().sort().values
        if not len(finite):
            return None
        # `torch.quantile` takes at most 2^24 values.
        positions = torch.tensor(LEVELS, dtype=torch.float64) * (len(finite) - 1)
        low, high = positions.floor().long(), positions.ceil().long()
        quantiles = torch.lerp(finite[low], finite[high], positions - low)
        return cls(tuple(quantiles.tolist()), len(finite), size)

    def quantile(self, level: float) -> float:
        """Returns the quantile of one of `LEVELS`."""
        return self.quantiles[LEVELS.index(level)]

    def to_plain(self) -> dict[str, Any]:
        """Returns plain containers for JSON, checkpoints and the metadata of files."""
        return {**asdict(self), "quantiles": list(self.quantiles)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ReachedDistances:
        """Returns what `to_plain` has stored.

        Raises:
            UserError: Anything else.
        """
        try:
            quantiles = tuple(float(value) for value in plain["quantiles"])
            images, size = int(plain["images"]), int(plain["size"])
        except (KeyError, TypeError, ValueError) as error:
            raise UserError(f"validation distances: got {plain!r:.80}, expected quantiles, images, size") from error
        ascending = list(quantiles) == sorted(quantiles) and all(map(math.isfinite, quantiles))
        if len(quantiles) != len(LEVELS) or not ascending:
            raise UserError(f"validation distances: got quantiles {quantiles}, expected {len(LEVELS)}, ascending")
        return cls(quantiles, images, size)


class DistanceRecord:
    """Collects the distances of all images of a validation, on one rank or on many."""

    def __init__(self) -> None:
        self._distances: list[Tensor] = []
        self._size = 0

    def add(self, distances: Tensor, size: int) -> None:
        """Adds the distances (B,) of a batch, and the side length of its images in pixels."""
        self._distances.append(distances.detach())
        self._size = size

    def compute(self, world_size: int = 1) -> ReachedDistances | None:
        """Returns the quantiles over all images of all ranks; None if there are none. Every rank must call it."""
        own = torch.cat(self._distances).double().cpu() if self._distances else torch.zeros(0, dtype=torch.float64)
        gathered = [(own, self._size)] * world_size
        if world_size > 1:
            # As objects: the ranks may have different numbers of images, and one may have none.
            torch.distributed.all_gather_object(gathered, (own, self._size))
        return ReachedDistances.of(torch.cat([part for part, _ in gathered]), max(size for _, size in gathered))
