"""Runs a command as a user would, and measures its time and its peak memory."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
import threading
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from tests.cli import REPOSITORY

#: Seconds after which a command is killed.
TIMEOUT = 3600


@dataclass(frozen=True)
class Measured:
    """A command that has ended with success.

    Attributes:
        output: What it printed.
        started: When it started, in seconds since the epoch.
        seconds: Wall-clock seconds.
        peak: Largest resident memory, in bytes, libraries included; on Linux not less than that of the tests
            themselves, half a gigabyte, which the process is a copy of at its start.
    """

    output: str
    started: float
    seconds: float
    peak: int


def run_measured(module: str, *arguments: str, cwd: Path, cache: Path) -> Measured:
    """Runs ``python -m stylegan_inv.<module> arguments`` in ``cwd`` with the stand-ins, without a network."""
    environment = dict(
        os.environ,
        PYTHONPATH=str(REPOSITORY),
        COLUMNS="120",
        STYLEGAN_INV_CACHE=str(cache),
        STYLEGAN_INV_OFFLINE="1",
        TORCH_HOME=str(cache / "torch"),
        CUDA_VISIBLE_DEVICES="",
    )
    log = cwd / "log"
    started = time.time()
    with open(log, "w") as file:
        process = subprocess.Popen(
            [sys.executable, "-m", "tests.rehearsal.with_stand_ins", module, *arguments],
            cwd=cwd,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=subprocess.STDOUT,
        )
        limit = threading.Timer(TIMEOUT, process.kill)
        limit.start()
        _, status, usage = os.wait4(process.pid, 0)  # as `Popen.wait`, which does not tell the memory
        limit.cancel()
    process.returncode = os.waitstatus_to_exitcode(status)
    output = log.read_text()
    assert process.returncode == 0, f"{module} {' '.join(arguments)}\n{output[-4000:]}"
    unit = 1 if sys.platform == "darwin" else 1024
    return Measured(output, started, time.time() - started, usage.ru_maxrss * unit)


def machine() -> dict[str, Any]:
    """Returns what the times depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "cores": cores,
        "threads": int(os.environ.get("OMP_NUM_THREADS", cores or 1)),
        "memory": os.sysconf("SC_PAGESIZE") * os.sysconf("SC_PHYS_PAGES"),
        "system": platform.system(),
        "architecture": platform.machine(),
        "torch": torch.__version__,
    }


def write_row(folder: Path, recipe: str, row: dict[str, Any]) -> None:
    """Adds or replaces the row of a recipe in ``results.json``."""
    path = folder / "results.json"
    results = json.loads(path.read_text()) if path.is_file() else {}
    folder.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(dict(sorted({**results, recipe: row}.items())), indent=2) + "\n")
