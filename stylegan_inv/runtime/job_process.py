"""A job of a sweep in a process of its own: what every launcher does with it."""

from __future__ import annotations

import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from omegaconf import DictConfig, OmegaConf

from stylegan_inv.runtime.run_folder import RunFolder

_GROUP = "logger.wandb.group"


def of_job(folder: Path | str, sweep_dir: Path | str, cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """What a job is told besides its own overrides.

    Where it runs; that it is one run, which a config of ``conf/sweep`` asks not to be; and, if it logs to wandb, to
    appear there in a group with the other jobs, unless the user gives a group.
    """
    told = [f"hydra.run.dir={_quoted(folder)}", "hydra.mode=RUN"]
    if OmegaConf.select(cfg, _GROUP) and not any(override.startswith(_GROUP) for override in overrides):
        told.append(f"{_GROUP}={_quoted(Path(sweep_dir).name)}")
    return told


def run_job(command: Sequence[str]) -> int:
    """Run a job; its exit code. A signal to stop is handed on, and ends the sweep when the job has ended."""
    process = subprocess.Popen(command)
    asked: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        asked.append(signum)
        if signum != signal.SIGINT:  # Ctrl-C reaches the job by itself
            process.send_signal(signum)

    former = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
    if asked:
        print("sweep stopped; the same command with the same hydra.sweep.dir goes on", file=sys.stderr)
        raise SystemExit(128 + asked[0])
    return code


def value_of(folder: Path, metric: str | None) -> float | None:
    """The metric that a sweep is after, from a finished job's ``metrics.json``; None if it has none."""
    value = RunFolder(folder).metrics().get(metric or "")
    return None if value is None else float(value)


def _quoted(text: Path | str) -> str:
    escaped = str(text).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
