"""The distances that a method reached in validation: exact quantiles, on any number of ranks, kept by checkpoints."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.common.reached_distances import (
    LEVELS,
    DistanceRecord,
    ReachedDistances,
    relative_distances,
)
from tests.fake_run import RESOLUTION, make_run

REACHED = ReachedDistances.of(torch.linspace(0.01, 0.02, 101), torch.linspace(0.1, 0.2, 101), RESOLUTION)


def images(count: int) -> torch.Tensor:
    return torch.rand(count, 3, 8, 8, generator=torch.Generator().manual_seed(count)) * 2 - 1


def test_quantiles_are_those_of_numpy_over_all_batches() -> None:
    record, distances, targets = DistanceRecord(), torch.rand(37), images(37)
    for first in range(0, 37, 8):
        record.add(distances[first : first + 8], targets[first : first + 8])
    reached = record.compute()
    np.testing.assert_allclose(reached.quantiles, np.quantile(distances.double(), LEVELS), rtol=1e-12)
    relative = distances.numpy() / targets.numpy().var((2, 3)).mean(1)
    np.testing.assert_allclose(reached.relative, np.quantile(relative, LEVELS), rtol=1e-5)
    assert (reached.images, reached.size) == (37, 8)


def test_distances_that_are_not_finite_are_left_out() -> None:
    record = DistanceRecord()
    record.add(torch.tensor([0.1, torch.nan, 0.3, torch.inf]), images(4))
    assert record.compute().images == 2 and record.compute().quantile(1.0) == pytest.approx(0.3)
    empty = DistanceRecord()
    assert empty.compute() is None
    empty.add(torch.tensor([torch.nan]), images(1))
    assert empty.compute() is None


def test_an_image_as_far_as_its_mean_colour_has_the_relative_distance_of_one() -> None:
    targets = images(5)
    means = targets.mean((2, 3), keepdim=True)
    distances = (targets - means).square().mean((1, 2, 3))
    torch.testing.assert_close(relative_distances(distances, targets), torch.ones(5))
    flat = torch.full((1, 3, 8, 8), 0.25)
    assert relative_distances(torch.tensor([0.001]), flat) == pytest.approx(10)


def test_checkpoints_hold_them(tmp_path: Path) -> None:
    assert load_inverter(make_run(tmp_path / "before")).reached is None, "checkpoints of earlier versions have none"
    method = load_inverter(make_run(tmp_path / "run", reached=REACHED))
    assert method.reached == REACHED
    written: dict[str, object] = {}
    method.on_save_checkpoint(written)
    assert ReachedDistances.from_plain(written["reached"]) == REACHED


def test_plain_form() -> None:
    assert ReachedDistances.from_plain(REACHED.to_plain()) == REACHED
    plain = {key: value for key, value in REACHED.to_plain().items() if key != "relative"}
    assert ReachedDistances.from_plain(plain) == dataclasses.replace(REACHED, relative=())
    for wrong in ({}, None, {**plain, "quantiles": [1.0]}, {**plain, "quantiles": list(REACHED.quantiles[::-1])}):
        with pytest.raises(UserError, match="validation distances: got"):
            ReachedDistances.from_plain(wrong)


def test_far_is_far_outside_of_what_was_reached() -> None:
    def far(distance: float, relative: float, reached: ReachedDistances = REACHED) -> bool:
        return bool(reached.are_far(torch.tensor([distance]), torch.tensor([relative])))

    assert not far(0.02, 0.2), "the largest of the validation"
    assert far(0.5, 0.2) and far(0.001, 1.5) and not far(0.001, 0.9)
    assert not far(torch.nan, torch.nan) and not far(torch.inf, torch.inf)
    assert not far(0.001, 1.5, dataclasses.replace(REACHED, relative=()))
    barely_trained = dataclasses.replace(REACHED, relative=tuple(10 * value for value in REACHED.relative))
    assert not far(0.02, 1.9, barely_trained), "worse than the mean colour is what it reached"
