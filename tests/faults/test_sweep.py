"""Sweeps and ranks that the command line starts: a crash is recorded, and no process waits for ever."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl

from tests.cli import REPOSITORY, run_cli
from tests.faults.small import overrides, slowdown, state, steps_logged, wait_for

#: Hydra chooses the folder.
TWO_RANKS = [o for o in overrides("psp", Path("x")) if not o.startswith("paths.")] + [
    "trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu",
]  # fmt: skip


class Crash(pl.Callback):
    """The second rank of the job with seed 1 breaks in its second step, the first one waits for it."""

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if self.seed == 1 and trainer.global_rank == 1 and trainer.global_step == 1:
            raise RuntimeError("this job is broken")


@pytest.mark.slow
def test_a_crashing_job_of_two_ranks_does_not_stop_the_sweep(tmp_path: Path) -> None:
    crash = "+callbacks.crash={_target_: tests.faults.test_sweep.Crash, seed: '${seed}'}"
    arguments = ["-m", *TWO_RANKS, crash, "trainer.max_steps=3", "seed=1,2", "hydra.sweep.dir='the sweep'"]
    result = run_cli("train", *arguments, cwd=tmp_path, timeout=600)
    assert result.returncode == 2, result.stderr
    assert "rank 1 of 2: RuntimeError: this job is broken" in result.stderr
    assert result.stderr.rstrip().splitlines()[-1] == "error: 1 of 2 jobs failed: 0"
    table = json.loads((tmp_path / "the sweep" / "sweep.json").read_text())
    assert [bool(row["exit_code"]) for row in table] == [True, False]
    assert table[1]["value"] == json.loads((tmp_path / "the sweep" / "1" / "metrics.json").read_text())["val/mse"]
    lines = (tmp_path / "the sweep" / "sweep.md").read_text().splitlines()
    assert "seed" in lines[0] and "failed" in lines[2] and "best" in lines[3] and "sweep.md" in result.stdout
    assert state(tmp_path / "the sweep" / "1")["global_step"] == 3


@pytest.mark.slow
def test_sigterm_to_all_ranks_of_a_command(tmp_path: Path) -> None:
    """SLURM, Kubernetes and torchrun signal every process; stock Lightning hangs then."""
    command = [sys.executable, "-m", "stylegan_inv.train", *TWO_RANKS, "trainer.max_steps=100000", "hydra.run.dir=run"]
    command += ["trainer.val_check_interval=100000"]
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(
            command, cwd=tmp_path, stdout=log, stderr=log, start_new_session=True,
            env={**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"},
        )  # fmt: skip
    try:
        wait_for(lambda: steps_logged(tmp_path / "run") >= 2 or process.poll() is not None, 300)
        os.killpg(process.pid, signal.SIGTERM)
        started = time.monotonic()
        assert process.wait(60) == 143, (tmp_path / "log").read_text()
        assert time.monotonic() - started < 10 * slowdown()
        with pytest.raises(ProcessLookupError):
            os.killpg(process.pid, 0)
    finally:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
    assert state(tmp_path / "run")["global_step"] >= 2
