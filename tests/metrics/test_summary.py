"""Mean, standard deviation and confidence interval against NumPy and SciPy."""

from __future__ import annotations

import math

import numpy as np
import pytest
import scipy.stats
import torch

from stylegan_inv.metrics import confidence as summary
from stylegan_inv.metrics.confidence import summarise


def test_against_scipy() -> None:
    values = np.random.default_rng(0).gamma(2.0, size=200)
    got = summarise(torch.from_numpy(values), resamples=5000)
    assert (got.mean, got.std) == (pytest.approx(values.mean()), pytest.approx(values.std(ddof=1)))
    want = scipy.stats.bootstrap(
        (values,), np.mean, n_resamples=5000, method="percentile", confidence_level=0.95, random_state=1
    ).confidence_interval
    width = want.high - want.low
    assert got.low == pytest.approx(want.low, abs=0.05 * width) and got.high == pytest.approx(
        want.high, abs=0.05 * width
    )
    narrow = summarise(torch.from_numpy(values), resamples=5000, level=0.5)
    assert got.low < narrow.low < got.mean < narrow.high < got.high


def test_intervals_contain_the_true_mean_at_the_stated_level() -> None:
    rng = np.random.default_rng(0)
    hits = 0
    for seed in range(200):
        got = summarise(torch.from_numpy(rng.normal(1.0, 2.0, 40)), resamples=300, level=0.9, seed=seed)
        hits += got.low <= 1.0 <= got.high
    assert 0.82 <= hits / 200 <= 0.96


def test_images_without_a_value_are_skipped_and_counted() -> None:
    got = summarise(torch.tensor([1.0, math.nan, 3.0, math.nan]))
    assert (got.mean, got.count, got.skipped) == (2.0, 2, 2)
    one = summarise(torch.tensor([4.0]))
    assert (one.mean, one.low, one.high, one.count) == (4.0, 4.0, 4.0, 1) and math.isnan(one.std)
    none = summarise(torch.tensor([math.nan]))
    assert math.isnan(none.mean) and (none.count, none.skipped) == (0, 1)


def test_result_depends_on_the_seed_and_not_on_the_chunk_size(monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.randn(50, generator=torch.Generator().manual_seed(0))
    first = summarise(values)
    assert first == summarise(values) and first != summarise(values, seed=1)
    monkeypatch.setattr(summary, "_CHUNK", 170)  # three resamples per step
    assert summarise(values, resamples=1000) == first
