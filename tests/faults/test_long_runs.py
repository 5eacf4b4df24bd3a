"""Memory, open files and threads do not grow with the number of steps.

STYLEGAN_INV_LONG=1 adds the default job over 1,000 steps (`make test-long`).
"""

from __future__ import annotations

import json
import os
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import pytorch_lightning as pl

from tests.faults.small import run
from tests.forks import join, launch

PAGE = os.sysconf("SC_PAGESIZE")


class ResourceRecorder(pl.Callback):
    """Records memory (bytes), open files and threads at intervals."""

    def __init__(self, every: int) -> None:
        self.every, self.seen = every, []  # type: ignore[var-annotated]

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step % self.every == 0:
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            self.seen.append(
                (trainer.global_step, pages * PAGE, len(os.listdir("/proc/self/fd")), threading.active_count())
            )
            Path(trainer.default_root_dir, "watched.json").write_text(json.dumps(self.seen))


def assert_flat(watched: Path, steps: int, most_bytes_a_step: float) -> None:
    step, memory, files, threads = np.array(json.loads(watched.read_text()), dtype=float).T
    later = step > step[-1] / 4  # until then, allocators and caches fill
    assert step[-1] == steps
    assert set(files[later]) == {files[-1]} and set(threads[later]) == {threads[-1]}
    slope = np.polyfit(step[later], memory[later], 1)[0]
    assert slope < most_bytes_a_step, f"{slope:.0f} bytes a step"


def test_two_hundred_steps(tmp_path: Path) -> None:
    watch = "+callbacks.watch={_target_: tests.faults.test_long_runs.ResourceRecorder, every: 10}"
    more = ("trainer.max_steps=200", "trainer.val_check_interval=50", "callbacks.checkpoint.every_n_train_steps=20")
    process = launch(run, "psp", tmp_path / "run", *more, watch, log=tmp_path / "log")
    assert join([process], 400) == [0], (tmp_path / "log").read_text()
    assert_flat(tmp_path / "run" / "watched.json", 200, most_bytes_a_step=40_000)


def default_job(folder: Path) -> None:
    from hydra import compose, initialize_config_dir

    from stylegan_inv import train
    from stylegan_inv.config import CONF_DIR

    watch = "+callbacks.watch={_target_: tests.faults.test_long_runs.ResourceRecorder, every: 50}"
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides=["method=restyle", "trainer.max_steps=1000", watch, f"paths.run_dir={folder}"])
    train.train(cfg, train.prepare(cfg))


@pytest.mark.long
def test_a_thousand_steps_of_the_default_job(tmp_path: Path) -> None:
    process = launch(default_job, tmp_path / "run", log=tmp_path / "log")
    assert join([process], 7200) == [0], (tmp_path / "log").read_text()
    assert_flat(tmp_path / "run" / "watched.json", 1000, most_bytes_a_step=10_000)
