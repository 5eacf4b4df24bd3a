"""From one value per image to mean, standard deviation and an interval for the mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

_CHUNK = 1 << 22  # drawn indices at a time


@dataclass(frozen=True)
class Summary:
    """What is known about a metric.

    Attributes:
        mean: Over the images with a value.
        std: Standard deviation of the values (N - 1), NaN for a single one.
        low: Lower end of the interval for the mean.
        high: Its upper end.
        count: Images with a value.
        skipped: Images without: no face found, or no region of interest.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int
    skipped: int


def summarise(values: Tensor, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Summary:
    """Summary of values (N,), where NaN means that there is none.

    The interval is the bootstrap's percentile interval (Efron 1979): the mean of N values drawn with replacement,
    ``resamples`` times; images are the units.
    """
    known = values[~values.isnan()].double().cpu().numpy()
    skipped = len(values) - len(known)
    if not len(known):
        return Summary(np.nan, np.nan, np.nan, np.nan, 0, skipped)
    rng = np.random.default_rng(seed)
    rows = max(1, min(resamples, _CHUNK // len(known)))
    means = [
        known[rng.integers(0, len(known), (min(rows, resamples - done), len(known)))].mean(axis=1)
        for done in range(0, resamples, rows)
    ]
    low, high = np.quantile(np.concatenate(means), [(1 - level) / 2, (1 + level) / 2])
    std = float(known.std(ddof=1)) if len(known) > 1 else float("nan")
    return Summary(float(known.mean()), std, float(low), float(high), len(known), skipped)
