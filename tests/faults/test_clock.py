"""Clocks that jump, and commands that start in the same second."""

from __future__ import annotations

import json
import os
import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import hydra.core.utils
import pytest
import pytorch_lightning as pl

from stylegan_inv import train
from tests.faults.small import overrides, run, state
from tests.forks import join, launch


class Fixed(datetime):
    @classmethod
    def now(cls, *args: Any) -> datetime:
        return datetime(2026, 1, 2, 3, 4, 5)


def command_at_a_fixed_time(folder: Path) -> None:
    """Runs the command line with a clock that stands still."""
    os.chdir(folder)
    hydra.core.utils.datetime = Fixed
    # Hydra chooses the folder.
    sys.argv = ["train", *(o for o in overrides("psp", folder) if not o.startswith("paths.")), "trainer.max_steps=1"]
    train.main()


def test_two_commands_of_the_same_second(tmp_path: Path) -> None:
    processes = [launch(command_at_a_fixed_time, tmp_path, log=tmp_path / f"log{i}") for i in range(2)]
    assert join(processes, 240) == [0, 0], (tmp_path / "log0").read_text() + (tmp_path / "log1").read_text()
    folders = sorted((tmp_path / "outputs" / "psp").iterdir())
    assert [folder.name for folder in folders] == ["2026-01-02_03-04-05", "2026-01-02_03-04-05_2"]
    for folder in folders:
        assert state(folder)["global_step"] == 1 and (folder / "metrics.json").is_file()


class Jump(pl.Callback):
    """The clock goes back a day, then forward a year, as when a machine finds a time server."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        real = time.clock_gettime
        days = {2: -1, 4: 365}.get(trainer.global_step)
        if days is not None:
            time.time = lambda: real(time.CLOCK_REALTIME) + 86_400 * days


def test_durations_do_not_follow_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(time, "time", time.time)  # given back afterwards
    run("psp", tmp_path / "run", "+callbacks.jump={_target_: tests.faults.test_clock.Jump}")
    assert state(tmp_path / "run")["global_step"] == 6
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert 0 < metrics["seconds"] < 3600 and metrics["images_per_second"] > 0 and 0 <= metrics["waiting_share"] < 1
