"""Means with confidence intervals, and differences of two methods on the same faces.

Values have one row for each training seed and one column for each face. The hierarchical bootstrap resamples seeds and
faces. Faces are resampled once for all seeds, because a difficult face is difficult for every seed. With one seed the
interval covers the choice of faces only.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

RESAMPLES = 10000
LEVEL = 0.95


@dataclass(frozen=True)
class Estimate:
    """A mean with its confidence interval.

    Attributes:
        mean: Mean over seeds and faces.
        low: Lower end of the 95 % interval of the mean.
        high: Upper end of the interval.
        seed_std: Standard deviation of the means of the seeds; None for one seed.
        seeds: Number of seeds.
        faces: Number of faces.
    """

    mean: float
    low: float
    high: float
    seed_std: float | None = None
    seeds: int = 1
    faces: int = 1

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """First minus second of two methods, on the faces that both have.

    Attributes:
        p: Two-sided probability of a difference at least this large if there were none (bootstrap).
        share: Fraction of the faces on which the first method's mean over seeds is below the second's.
    """

    p: float = 1.0
    share: float = 0.0


def estimate(values: np.ndarray) -> Estimate:
    """Returns the mean of values (seeds, faces); faces with NaN for any seed are omitted."""
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan, None, len(values), 0)
    low, high = _interval(_resampled_means(values, seed=1))
    seed_std = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), low, high, seed_std, *values.shape)


def difference(first: np.ndarray, second: np.ndarray, same_runs: bool = False) -> Difference:
    """Compares the values of two methods.

    Args:
        first: Values (seeds, faces).
        second: Values (seeds, faces). If the numbers of faces differ, the first faces of the longer one are used.
        same_runs: Whether both are measurements of the same trainings, whose seeds are then resampled together.
    """
    faces = min(first.shape[1], second.shape[1])
    first, second = first[:, :faces], second[:, :faces]
    known = ~(np.isnan(first).any(axis=0) | np.isnan(second).any(axis=0))
    first, second = first[:, known], second[:, known]
    means = _resampled_means(first, seed=1) - _resampled_means(second, seed=1 if same_runs else 2)
    low, high = _interval(means)
    tail = min(float((means <= 0).mean()), float((means >= 0).mean()))
    per_face = first.mean(axis=0) - second.mean(axis=0)
    return Difference(
        float(per_face.mean()),
        low,
        high,
        None,
        min(len(first), len(second)),
        int(known.sum()),
        p=min(1.0, 2 * max(tail, 1 / RESAMPLES)),
        share=float((per_face < 0).mean()),
    )


def holm(p: Sequence[float]) -> list[float]:
    """Returns probabilities adjusted for the number of tests (Holm, 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _resampled_means(values: np.ndarray, seed: int) -> np.ndarray:
    """Returns the means (R,) of resampled seeds and faces. ``seed`` affects the seeds only, so that faces pair."""
    seeds, faces = values.shape
    seed_means = _face_weights(faces) @ values.T
    chosen = np.random.default_rng(seed).integers(seeds, size=(RESAMPLES, seeds))
    return np.take_along_axis(seed_means, chosen, axis=1).mean(axis=1)


@lru_cache(maxsize=4)
def _face_weights(faces: int) -> np.ndarray:
    """Returns the frequency of each face in each resample (R, faces), the same for all methods."""
    return np.random.default_rng(0).multinomial(faces, np.full(faces, 1 / faces), size=RESAMPLES) / faces


def _interval(means: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(means, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
