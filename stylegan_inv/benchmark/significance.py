"""Means and intervals over seeds and faces, and differences between entrants on the same faces.

Values are one row for each training seed, all on the same faces. What is drawn again (hierarchical bootstrap): seeds
from the seeds, and faces from the faces, once for all seeds, as a hard face is hard for every seed. With one seed the
interval speaks about the faces alone; with three the draw of seeds is coarse, but it is not left out.
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
    """A mean with its interval.

    Attributes:
        mean: Over seeds and faces.
        low: Lower end of the 95 % interval of the mean.
        high: Its upper end.
        seed_std: Standard deviation of the seeds' means; None for one seed.
        seeds: How many.
        faces: How many.
    """

    mean: float
    low: float
    high: float
    seed_std: float | None
    seeds: int
    faces: int

    @property
    def half(self) -> float:
        """Half the width of the interval."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """Of two entrants, the first minus the second, on the faces that both have.

    Attributes:
        p: Probability, two-sided, of a difference this far from zero if there were none (bootstrap).
        share: Of the faces on which the first's mean over seeds is below the second's.
    """

    p: float = 1.0
    share: float = 0.0


def estimate(values: np.ndarray) -> Estimate:
    """Mean of values (seeds, faces); faces without a value (NaN in any seed) are left out."""
    values = values[:, ~np.isnan(values).any(axis=0)]
    if not values.size:
        return Estimate(np.nan, np.nan, np.nan, None, len(values), 0)
    low, high = _interval(_means(values, seed=1))
    seed_std = float(values.mean(axis=1).std(ddof=1)) if len(values) > 1 else None
    return Estimate(float(values.mean()), low, high, seed_std, *values.shape)


def difference(first: np.ndarray, second: np.ndarray, same_runs: bool = False) -> Difference:
    """Compare two entrants' values (seeds, faces); the first faces of the longer one count.

    ``same_runs`` says that both are of the same trainings, whose seeds then go together.
    """
    faces = min(first.shape[1], second.shape[1])
    first, second = first[:, :faces], second[:, :faces]
    known = ~(np.isnan(first).any(axis=0) | np.isnan(second).any(axis=0))
    first, second = first[:, known], second[:, known]
    drawn = _means(first, seed=1) - _means(second, seed=1 if same_runs else 2)
    low, high = _interval(drawn)
    tail = min(float((drawn <= 0).mean()), float((drawn >= 0).mean()))
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
    """Probabilities adjusted for so many tests (Holm 1979)."""
    adjusted, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(sorted(range(len(p)), key=lambda i: p[i])):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        adjusted[index] = largest
    return adjusted


def _means(values: np.ndarray, seed: int) -> np.ndarray:
    """Means (R,) of drawn seeds and faces; ``seed`` draws the seeds, the faces are the same for all."""
    seeds, faces = values.shape
    of_seeds = _face_weights(faces) @ values.T
    chosen = np.random.default_rng(seed).integers(seeds, size=(RESAMPLES, seeds))
    return np.take_along_axis(of_seeds, chosen, axis=1).mean(axis=1)


@lru_cache(maxsize=4)
def _face_weights(faces: int) -> np.ndarray:
    """How often each face is drawn (R, faces), over their number; the same for all entrants, so that faces pair."""
    return np.random.default_rng(0).multinomial(faces, np.full(faces, 1 / faces), size=RESAMPLES) / faces


def _interval(drawn: np.ndarray) -> tuple[float, float]:
    low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
    return float(low), float(high)
