"""Intervals, differences and verdicts of the benchmark, against formulas and loops."""

from __future__ import annotations

import numpy as np
import pytest

from stylegan_inv.benchmark.quality.claims import CLAIMS, E4E, MSE, PSP, W, judge
from stylegan_inv.benchmark.quality.compared_methods import BY_NAME
from stylegan_inv.benchmark.quality.result_tables import cell
from stylegan_inv.benchmark.quality.significance import Estimate, difference, estimate, holm

RNG = np.random.default_rng(5)


def test_interval_of_one_seed_is_that_of_the_normal_distribution():
    values = RNG.normal(3.0, 2.0, (1, 400))
    found = estimate(values)
    assert found.mean == pytest.approx(values.mean()) and (found.seeds, found.faces) == (1, 400)
    assert found.half == pytest.approx(1.96 * values.std() / 20, rel=0.04) and found.seed_std is None


def test_seeds_and_faces_are_resampled():
    values = RNG.normal(0, 1, (1, 60)) + np.array([[0.0], [1.0], [2.5]]) + RNG.normal(0, 0.1, (3, 60))
    drawn = []
    for _ in range(4000):  # the same bootstrap as a loop
        seeds, faces = RNG.integers(3, size=3), RNG.integers(60, size=60)
        drawn.append(values[seeds][:, faces].mean())
    found = estimate(values)
    assert (found.low, found.high) == pytest.approx(tuple(np.quantile(drawn, [0.025, 0.975])), abs=0.08)
    assert found.seed_std == pytest.approx(values.mean(axis=1).std(ddof=1))


def test_faces_without_a_value_are_omitted():
    values = np.array([[1.0, np.nan, 3.0], [1.0, 2.0, 3.0]])
    assert (estimate(values).mean, estimate(values).faces) == (2.0, 2)
    assert np.isnan(estimate(np.full((1, 3), np.nan)).mean)


def test_differences_are_paired_by_face():
    """Faces that are difficult for both do not widen the interval, and surplus faces are ignored."""
    difficulty = RNG.normal(0, 5, 100)
    first, second = difficulty[None] + RNG.normal(0, 0.1, (2, 100)), difficulty[None, :80] + 0.2
    found = difference(first, second)
    assert found.faces == 80 and found.mean == pytest.approx(-0.2, abs=0.03)
    assert found.half < 0.05 and found.p <= 2e-4 and found.share > 0.9
    assert difference(second, first).mean == pytest.approx(-found.mean)


def test_seeds_of_the_same_runs_are_paired():
    """The seeds differ, and the second measurement is always 1 above the first."""
    values = np.array([[0.0], [10.0], [20.0]]) + RNG.normal(0, 0.1, (3, 50))
    together, apart = (difference(values, values + 1, same_runs=same) for same in (True, False))
    assert together.half < 1e-9 < 5 < apart.half and together.p < 0.001 < apart.p


def test_false_positive_rate():
    ps = [difference(RNG.normal(0, 1, (1, 60)), RNG.normal(0, 1, (1, 60))).p for _ in range(60)]
    assert sum(p < 0.05 for p in ps) <= 9 and np.mean(ps) == pytest.approx(0.5, abs=0.15)


def test_holm():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.9, 0.6]) == [1.0, 1.0] and holm([]) == []


def test_verdicts():
    low, high = RNG.normal(1, 0.1, (3, 50)), RNG.normal(2, 0.1, (3, 50))
    values = {
        PSP: {MSE: low, W: low, "edits/target": low},
        E4E: {MSE: low + RNG.normal(0, 0.1, (3, 50)), W: high, "edits/target": high},
    }
    found = {v.claim.column: v for v in judge(values)}
    assert set(found) == {MSE, W, "edits/target"}  # the other claims have no columns
    assert found[W].word == "contradicted" and found[W].share == 0
    assert found["edits/target"].word == "reproduced" and found["edits/target"].share == 1
    assert found[MSE].word == "not reproduced"


def test_claims_are_about_compared_methods():
    assert {claim.better for claim in CLAIMS} | {claim.worse for claim in CLAIMS} <= set(BY_NAME)
    assert len({(claim.column, claim.better, claim.worse) for claim in CLAIMS}) == len(CLAIMS)


def test_cells():
    assert cell(Estimate(0.007503, 0.00720, 0.00782, None, 1, 500)) == "0.00750 ± 0.00031"
    assert cell(Estimate(1.1384, 1.134, 1.143, 0.021, 3, 500)) == "1.14 ± 0.00 (0.02)"
    assert cell(Estimate(31.07, 30.8, 31.4, None, 1, 500)) == "31.1 ± 0.3"
    assert cell(None) == "–" and cell(Estimate(1e-7, 0, 2e-7, None, 1, 5)) == "0"
