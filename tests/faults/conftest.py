"""No test here leaves anything behind in the process that runs them."""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch.distributed

#: Set once and for all by Lightning's seeding, its deterministic mode, and for wandb.
EXPECTED = {"PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG", "WANDB_SILENT"}
#: Processes that multiprocessing keeps until the end.
KEPT = ("multiprocessing.forkserver", "multiprocessing.resource_tracker")


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    handlers, environment, threads = [signal.getsignal(s) for s in signals], dict(os.environ), threading.active_count()
    folder, processes = os.getcwd(), children()
    yield
    assert [signal.getsignal(s) for s in signals] == handlers
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    assert changed - EXPECTED - {"PYTEST_CURRENT_TEST"} == set()
    assert threading.active_count() <= threads + 1, threading.enumerate()  # the progress display may have one
    assert os.getcwd() == folder
    assert not torch.distributed.is_initialized()
    deadline = time.monotonic() + 20
    while left := children() - processes:  # loader processes look for their parent every five seconds
        assert time.monotonic() < deadline, [Path(f"/proc/{child}/cmdline").read_text() for child in left]
        time.sleep(0.05)


def children() -> set[int]:
    """The processes that this one started and that still run."""
    found = set()
    for task in Path("/proc/self/task").iterdir():
        with contextlib.suppress(OSError):  # threads and processes end while this looks at them
            for child in (task / "children").read_text().split():
                with contextlib.suppress(OSError):
                    if not any(name in Path(f"/proc/{child}/cmdline").read_text() for name in KEPT):
                        found.add(int(child))
    return found
