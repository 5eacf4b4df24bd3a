"""A job of a sweep in a process of its own: what every launcher does with it."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def of_job(folder: Path | str) -> list[str]:
    """Overrides that say where a job runs; a config of ``conf/sweep`` asks for a sweep, which a job is not."""
    escaped = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return [f"hydra.run.dir='{escaped}'", "hydra.mode=RUN"]


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
    try:
        value = json.loads((folder / "metrics.json").read_text()).get(metric)
    except (OSError, ValueError):
        return None
    return None if value is None else float(value)
