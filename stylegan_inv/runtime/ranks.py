"""The processes of a training: what the one that started the others owes them, and they it."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
from typing import Any

#: Who starts ranks tells them its process number by this variable.
_PARENT = "STYLEGAN_INV_PARENT"


def die_with_parent() -> None:
    """Let a rank that another process started end with it, also when that one is killed (Linux; elsewhere nothing).

    Otherwise it would wait for the dead one until the process group's timeout.
    """
    if not os.environ.get("LOCAL_RANK"):
        os.environ[_PARENT] = str(os.getpid())  # for those that this process is going to start
        return
    if not sys.platform.startswith("linux"):
        return
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # 1: PR_SET_PDEATHSIG
    # In a container the parent itself may be process 1.
    if os.getppid() == 1 and os.environ.get(_PARENT, "1") != "1":
        os.kill(os.getpid(), signal.SIGKILL)  # it had died before


def say_rank(error: BaseException, trainer: Any) -> None:
    """Name the rank of many that an error happened on, on standard error."""
    if trainer.world_size > 1 and not isinstance(error, SystemExit):
        first = str(error).splitlines()[0] if str(error) else ""
        what = f"rank {trainer.global_rank} of {trainer.world_size}: {type(error).__name__}: {first}"
        print(what, file=sys.stderr, flush=True)


def end_children(trainer: Any, seconds: float) -> int:
    """Wait for the ranks that this process started, and kill those that do not end by themselves.

    Args:
        trainer: Whose launcher started them.
        seconds: To wait.

    Returns:
        How many failed.
    """
    failed = 0
    for process in getattr(trainer.strategy.launcher, "procs", None) or []:
        try:
            failed += process.wait(timeout=seconds) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            failed += 1
    return failed
