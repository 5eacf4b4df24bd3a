"""No test here leaves anything behind in the process that runs them."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator

import pytest
import torch.distributed

#: Set once and for all by Lightning's seeding, its deterministic mode, and for wandb.
EXPECTED = {"PL_GLOBAL_SEED", "PL_SEED_WORKERS", "CUBLAS_WORKSPACE_CONFIG", "WANDB_SILENT"}


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    signals = (signal.SIGTERM, signal.SIGINT, signal.SIGUSR1)
    handlers, environment, threads = [signal.getsignal(s) for s in signals], dict(os.environ), threading.active_count()
    folder = os.getcwd()
    yield
    assert [signal.getsignal(s) for s in signals] == handlers
    changed = {k for k in environment.keys() | os.environ.keys() if environment.get(k) != os.environ.get(k)}
    assert changed - EXPECTED - {"PYTEST_CURRENT_TEST"} == set()
    assert threading.active_count() <= threads + 1, threading.enumerate()  # the progress display may have one
    assert os.getcwd() == folder
    assert not torch.distributed.is_initialized()
