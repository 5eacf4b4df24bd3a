"""Processes that end with the process that started them, even if that one is killed.

A process whose parent dies gets another parent: process 1, or any process that adopts orphans, such as systemd's user
instance or the init of a container. It therefore compares its parent with the one that it was told.
"""

from __future__ import annotations

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

#: Holds the id of the parent and the number of the signal.
_VARIABLE = "STYLEGAN_INV_PARENT"
_PR_SET_PDEATHSIG = 1  # <sys/prctl.h>


def child_environment(signum: int = signal.SIGKILL) -> dict[str, str]:
    """Returns the environment for a command of this package that is to end when this process dies.

    Args:
        signum: Signal that it gets then. SIGTERM lets a training save a checkpoint.
    """
    return {**os.environ, _VARIABLE: f"{os.getpid()} {int(signum)}"}


@contextmanager
def known_to_children() -> Iterator[None]:
    """Puts this process into its environment while others start commands of this package, as Lightning starts ranks."""
    before = os.environ.get(_VARIABLE)
    os.environ[_VARIABLE] = child_environment()[_VARIABLE]
    try:
        yield
    finally:
        os.environ.pop(_VARIABLE)
        if before is not None:
            os.environ[_VARIABLE] = before


def die_with_parent() -> None:
    """Ends this process when its parent dies, if the parent has asked for that or this is a rank of torchrun.

    Commands call it first, so that a process whose parent died while it started ends, too.
    """
    # Removed, as processes that this one starts have another parent.
    words = os.environ.pop(_VARIABLE, "").split()
    if len(words) == 2 and all(word.isdecimal() for word in words):
        end_with(int(words[0]), int(words[1]))
    elif os.environ.get("LOCAL_RANK"):
        _ask_for_signal(signal.SIGKILL)


def end_with(parent: int, signum: int = signal.SIGKILL) -> None:
    """Ends this process by a signal when its parent dies, or has died.

    Args:
        parent: Process id of the parent.
        signum: The signal.
    """
    _ask_for_signal(signum)
    if os.getppid() != parent:  # it died before
        os.kill(os.getpid(), signum)


def worker_ending_with(parent: int, then: Callable[[], None] | None = None) -> Callable[[int], None]:
    """Returns a ``worker_init_fn`` for a DataLoader whose processes end with the process that made it.

    Args:
        parent: Process id of that process.
        then: Called afterwards.
    """
    return functools.partial(_start_worker, parent, then)


def end_worker_with(parent: int) -> None:
    """Ends a process that multiprocessing has started for another one when that one dies.

    Args:
        parent: Process id of the process that it works for.
    """
    if multiprocessing.get_start_method(allow_none=True) == "forkserver":
        _ask_for_signal(signal.SIGKILL)  # the parent is the server, which ends with its own parent
    else:
        end_with(parent)


def _start_worker(parent: int, then: Callable[[], None] | None, worker: int) -> None:
    end_worker_with(parent)
    if then is not None:
        then()


def _ask_for_signal(signum: int) -> None:
    if sys.platform.startswith("linux"):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signum)
