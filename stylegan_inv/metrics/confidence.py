"""Mean, standard deviation and confidence interval of a metric over images."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from torch import Tensor

_CHUNK = 1 << 22  # random indices per step, which bounds the memory


@dataclass(frozen=True)
class Summary:
    """Statistics of a metric.

    Attributes:
        mean: Mean over the images with a value.
        std: Standard deviation of the values (N - 1); NaN for a single one.
        low: Lower end of the confidence interval of the mean.
        high: Upper end of the confidence interval of the mean.
        count: Number of images with a value.
        skipped: Number of images without a value, because no face was found or the mask is empty.
    """

    mean: float
    std: float
    low: float
    high: float
    count: int
    skipped: int


def summarise(values: Tensor, *, resamples: int = 1000, level: float = 0.95, seed: int = 0) -> Summary:
    """Returns the statistics of values (N,), in which NaN marks images without a value.

    The interval is the percentile interval of the bootstrap (Efron 1979): means of N values that are drawn with
    replacement.

    Args:
        values: (N,).
        resamples: Number of bootstrap samples.
        level: Confidence level.
        seed: Seed of the bootstrap.
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
