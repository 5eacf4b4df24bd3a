"""Runs a job of a sweep in its own process, with any launcher."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.parent_process import child_environment

_GROUP = "logger.wandb.group"


def job_overrides(folder: Path | str, sweep_dir: Path | str, cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Returns the overrides of a job besides its own ones.

    They set its folder, and that it is a single run although ``conf/sweep`` sets a multirun. If it logs to wandb, they
    also set the group of all jobs of the sweep, unless the user gives a group.

    Args:
        folder: Folder of the job.
        sweep_dir: Folder of the sweep, whose name is the group.
        cfg: Config of the job.
        overrides: Overrides of the job.
    """
    more = [f"hydra.run.dir={_quoted(folder)}", "hydra.mode=RUN"]
    if OmegaConf.select(cfg, _GROUP) and not any(override.startswith(_GROUP) for override in overrides):
        more.append(f"{_GROUP}={_quoted(Path(sweep_dir).name)}")
    return more


def run_job(command: Sequence[str]) -> int:
    """Runs a job and returns its exit code.

    SIGTERM is passed on to the job. It ends the sweep when the job has ended, as Ctrl-C does. If the sweep is killed,
    the job gets SIGTERM: it saves a checkpoint and ends.
    """
    process = subprocess.Popen(command, env=child_environment(signal.SIGTERM))
    received: list[int] = []

    def pass_on(signum: int, frame: Any) -> None:
        received.append(signum)
        if signum != signal.SIGINT:  # Ctrl-C reaches the job by itself
            process.send_signal(signum)

    former = {signum: signal.signal(signum, pass_on) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
    if received:
        print("sweep stopped; the same command with the same hydra.sweep.dir continues it", file=sys.stderr)
        raise SystemExit(128 + received[0])
    return code


def metric_of(folder: Path, metric: str | None) -> float | None:
    """Returns a metric of a finished job; None if its ``metrics.json`` does not have it."""
    value = RunFolder(folder).metrics().get(metric or "")
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _quoted(text: Path | str) -> str:
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
