"""The distances that a method reached in validation, by which an image of another domain is recognised."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_numbers, whole_number

#: The quantiles that are stored: 0 is the smallest distance, 1 the largest.
LEVELS = (0.0, 0.01, 0.05, 0.25, 0.5, 0.75, 0.95, 0.99, 1.0)
#: An image is far outside if its squared error is this many times the 0.99 quantile q of the validation, ...
FAR = 10.0
#: ... or if the relative one is twice its quantile and larger than that of the image's mean colour. Measured with two
#: ReStyle encoders on SynthFaces: 1 of 6,000 held-out faces is far outside, and none of 2,000 faces with obstacles,
#: which the encoders never saw (at most 7.3 q, and 1.02 relative). Photographs of people, animals and things, text and
#: noise have 10 to 80 q, or a relative error above 1.1; grey areas have one of 9 to 130.
FAR_RELATIVE, LEAST_FAR_RELATIVE = 2.0, 1.1
#: Variance below which an image counts as flat: a standard deviation of 1.3 of 256 levels.
_LEAST_VARIANCE = 1e-4


@dataclass(frozen=True)
class ReachedDistances:
    """Quantiles of the reconstructions' squared errors in a validation.

    The quantiles are exact, over all images of all ranks, without values that are not finite.

    Attributes:
        quantiles: Mean squared error of an image, in squared units of [-1, 1], for each of `LEVELS`.
        relative: The same relative to the variance of the image, see `relative_distances`; empty if not known.
        images: Number of images.
        size: Side length of the images that were compared, in pixels.
    """

    quantiles: tuple[float, ...]
    relative: tuple[float, ...]
    images: int
    size: int

    @classmethod
    def of(cls, distances: Tensor, relative: Tensor, size: int) -> ReachedDistances | None:
        """Returns the quantiles of the distances of some images.

        Args:
            distances: Mean squared error of each image, (N,).
            relative: The same relative to the variance of each image, (N,).
            size: Side length of the images, in pixels.

        Returns:
            None if no distance is finite.
        """
        finite = distances.isfinite() & relative.isfinite()
        if not finite.any():
            return None
        return cls(_quantiles(distances[finite]), _quantiles(relative[finite]), int(finite.sum()), size)

    def quantile(self, level: float) -> float:
        """Returns the quantile of the mean squared error for one of `LEVELS`."""
        return self.quantiles[LEVELS.index(level)]

    def are_far(self, distances: Tensor, relative: Tensor) -> Tensor:
        """Returns for each image whether its distances are far outside of those that were reached, (N,) bool.

        Args:
            distances: Mean squared error of each image, (N,).
            relative: The same relative to the variance of each image, (N,).
        """
        limits = self.limits()
        far = distances > limits.distance
        return (far if limits.relative is None else far | (relative > limits.relative)) & distances.isfinite()

    def limits(self) -> Limits:
        """Returns the distances from which on an image is far outside of what was reached."""
        top = LEVELS.index(0.99)
        relative = max(LEAST_FAR_RELATIVE, FAR_RELATIVE * self.relative[top]) if self.relative else None
        return Limits(FAR * self.quantiles[top], relative)

    def to_plain(self) -> dict[str, Any]:
        """Returns plain containers for JSON, checkpoints and the metadata of files."""
        return {**asdict(self), "quantiles": list(self.quantiles), "relative": list(self.relative)}

    @classmethod
    def from_plain(cls, plain: Mapping[str, Any]) -> ReachedDistances:
        """Returns what `to_plain` has stored; ``relative`` may be absent.

        Raises:
            UserError: Anything else.
        """
        try:
            quantiles = tuple(real_numbers("quantiles", plain["quantiles"]))
            stored = plain.get("relative", ())
            relative = () if stored in ([], ()) else tuple(real_numbers("relative", stored))
            images, size = (whole_number(name, plain[name], 0) for name in ("images", "size"))
        except (AttributeError, KeyError, TypeError, UserError) as error:
            raise UserError(f"validation distances: got {plain!r:.80}, expected quantiles, images, size") from error
        for values in (quantiles, relative) if relative else (quantiles,):
            if len(values) != len(LEVELS) or list(values) != sorted(values):
                raise UserError(f"validation distances: got quantiles {values}, expected {len(LEVELS)}, ascending")
        return cls(quantiles, relative, images, size)


@dataclass(frozen=True)
class Limits:
    """The distances from which on an image is taken for one of another domain.

    Attributes:
        distance: Mean squared error of the reconstruction.
        relative: The same relative to the variance of the image; None if it is not known.
    """

    distance: float
    relative: float | None


def relative_distances(distances: Tensor, images: Tensor) -> Tensor:
    """Returns the mean squared error of each image relative to its variance, (B,).

    It is 1 for a reconstruction that is as far from the image as the image's mean colour. Images with little contrast,
    such as a grey area, have a small error whatever they show, but a large relative one.

    Args:
        distances: Mean squared error of each reconstruction, (B,).
        images: The images (B, 3, H, W).
    """
    variances = images.float().var((2, 3), correction=0).mean(1)
    return distances / variances.clamp_min(_LEAST_VARIANCE)


def _quantiles(values: Tensor) -> tuple[float, ...]:
    # `torch.quantile` takes at most 2^24 values.
    ascending = values.double().sort().values
    positions = torch.tensor(LEVELS, dtype=torch.float64) * (len(ascending) - 1)
    low, high = positions.floor().long(), positions.ceil().long()
    return tuple(torch.lerp(ascending[low], ascending[high], positions - low).tolist())


class DistanceRecord:
    """Collects the distances of all images of a validation, on one rank or on many."""

    def __init__(self) -> None:
        self._distances: list[Tensor] = []
        self._size = 0

    def add(self, distances: Tensor, images: Tensor) -> None:
        """Adds the mean squared errors (B,) of a batch of images (B, 3, S, S)."""
        self._distances.append(torch.stack([distances, relative_distances(distances, images)]).detach())
        self._size = images.shape[-1]

    def compute(self, world_size: int = 1) -> ReachedDistances | None:
        """Returns the quantiles over all images of all ranks; None if there are none. Every rank must call it."""
        own = torch.cat(self._distances, 1).cpu() if self._distances else torch.zeros(2, 0)
        gathered = [(own, self._size)] * world_size
        if world_size > 1:
            # As objects: the ranks may have different numbers of images, and one may have none.
            torch.distributed.all_gather_object(gathered, (own, self._size))
        distances, relative = torch.cat([part for part, _ in gathered], 1)
        return ReachedDistances.of(distances, relative, max(size for _, size in gathered))
