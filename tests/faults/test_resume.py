"""A run that is stopped and resumed equals an uninterrupted one bit for bit."""

from __future__ import annotations

import random
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.faults.small import METHODS, assert_same_training, metrics, rows, run, state, stop_after, warm_up
from tests.forks import join, launch


@pytest.fixture(scope="module", autouse=True)
def as_in_a_fresh_process() -> None:
    warm_up()


@pytest.mark.parametrize(("number", "method"), list(enumerate(METHODS)), ids=METHODS)
def test_stopped_at_any_step_and_continued_by_the_same_command(number: int, method: str, tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    stop = (3, 2, 4, 5, 1)[number % 5]  # after step 3 a validation is due
    try:
        with pytest.raises(SystemExit) as stopped:
            run(method, parts, stop_after(stop))
    except pytest.fail.Exception:
        assert state(parts)["global_step"] == 0, "only methods that train nothing get this far"
        pytest.skip("trains nothing")
    assert stopped.value.code == 143
    assert state(parts)["global_step"] == stop
    torch.manual_seed(99), np.random.seed(99), random.seed(99)  # another process has other random states
    run(method, parts)
    run(method, whole)
    assert len(rows(whole)) == 8, "six steps and two validations"
    assert_same_training(whole, parts)
    assert metrics(whole) == metrics(parts)


#: Intervals of 2, 3 and 4 steps: a stop after step 1 to 7 hits every phase of R1, of the path length and of ADA.
PHASES = (
    "method.path_length_every=2", "method.r1_every=3", "augment.initial_p=0.2", "augment.ada_images=40",
    "trainer.max_steps=8", "trainer.val_check_interval=8",
)  # fmt: skip


@pytest.mark.long
def test_a_gan_stopped_in_any_phase(tmp_path: Path) -> None:
    """Both optimisers, the moving average, the mean path length and the statistics of ADA continue bit for bit."""
    whole = tmp_path / "whole"
    run("stylegan2", whole, *PHASES)
    after = state(whole)
    assert len(after["optimizer_states"]) == 2 and all(one["state"] for one in after["optimizer_states"])
    counters, changed = set(), set()
    for stop in range(1, 8):
        parts = tmp_path / str(stop)
        with pytest.raises(SystemExit):
            run("stylegan2", parts, *PHASES, stop_after(stop))
        held = state(parts)["state_dict"]
        counters.add(int(held["augment._images"])), changed.add(float(held["augment.p"]))
        assert held["pl_mean"] > 0
        torch.manual_seed(99), np.random.seed(99), random.seed(99)
        run("stylegan2", parts, *PHASES)
        assert_same_training(whole, parts)
    assert counters == {0, 2, 4, 6}, "stopped between two updates of p as well"
    assert len(changed) > 1, "p has changed before some stops"


def test_continued_in_a_new_process(tmp_path: Path) -> None:
    whole, parts = tmp_path / "whole", tmp_path / "parts"
    for folder, more, code in ((parts, (stop_after(5),), 143), (parts, (), 0), (whole, (), 0)):
        process = launch(run, "psp", folder, "trainer.max_steps=12", *more, log=tmp_path / "log")
        assert join([process], 240) == [code], (tmp_path / "log").read_text()
    assert state(whole)["global_step"] == 12
    assert_same_training(whole, parts)


def test_loader_processes_change_nothing(tmp_path: Path) -> None:
    for workers in (0, 2):
        run("psp", tmp_path / str(workers), f"dataset.num_workers={workers}", "trainer.max_steps=4")
    assert_same_training(tmp_path / "0", tmp_path / "2")
