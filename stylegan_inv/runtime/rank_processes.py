"""Processes of several ranks: starting them, ending them together, and naming the rank in errors."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.utils.parent_process import child_environment


@contextmanager
def rank_in_errors(ranks: Ranks) -> Iterator[None]:
    """Adds the rank to errors that leave the block, if there are several ranks."""
    try:
        yield
    except UserError as error:
        raise UserError(f"{ranks}{error}") from error
    except Exception as error:
        if ranks.world_size > 1:
            print(f"{ranks}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
        raise


@contextmanager
def launched(ranks: Ranks, command: Sequence[str]) -> Iterator[None]:
    """Starts the other ranks if this process has to, and waits for them at the end of the block.

    The ranks do not depend on one another: if one fails, the others finish their shards.

    Args:
        ranks: Of this process.
        command: Command line of the other ranks.

    Raises:
        UserError: At the end of the block, naming the ranks that failed.
    """
    processes = _start(ranks, command) if ranks.starts_others else []
    try:
        yield
    except Exception:
        _wait(processes)
        raise
    except BaseException:  # Ctrl-C, or a signal to stop
        for process in processes:
            process.terminate()
        _wait(processes)
        raise
    if failed := _wait(processes):
        reasons = "; ".join(f"rank {rank} of {ranks.world_size} {reason}" for rank, reason in failed.items())
        raise UserError(f"{reasons}; finished parts are kept, and the same command continues")


def report_rank(error: BaseException, trainer: Any) -> None:
    """Prints the rank and the first line of an error of a training with several ranks to standard error."""
    if trainer.world_size > 1 and not isinstance(error, SystemExit):
        first = str(error).splitlines()[0] if str(error) else ""
        ranks = Ranks(trainer.global_rank, trainer.world_size)
        print(f"{ranks}{type(error).__name__}: {first}", file=sys.stderr, flush=True)


def end_processes(processes: Sequence[subprocess.Popen[Any]], seconds: float) -> int:
    """Waits for processes, and kills those that do not end in time.

    Args:
        processes: Processes that this one has started.
        seconds: Time limit for each.

    Returns:
        Number of processes that failed.
    """
    failed = 0
    for process in processes:
        try:
            failed += process.wait(timeout=seconds) != 0
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            failed += 1
    return failed


def _start(ranks: Ranks, command: Sequence[str]) -> list[subprocess.Popen[Any]]:
    environment = {**child_environment(), "WORLD_SIZE": str(ranks.world_size)}
    if "OMP_NUM_THREADS" not in os.environ:
        threads = max(1, (os.cpu_count() or 1) // ranks.world_size)
        torch.set_num_threads(threads)
        environment["OMP_NUM_THREADS"] = str(threads)
    own = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(1, ranks.world_size))
    return [subprocess.Popen(command, env={**environment, **variables}) for variables in own]


def _wait(processes: Sequence[subprocess.Popen[Any]]) -> dict[int, str]:
    """Waits for ranks 1, 2, ...; returns the reason for each one that failed."""
    codes = {rank: process.wait() for rank, process in enumerate(processes, start=1)}
    return {rank: _reason(code) for rank, code in codes.items() if code}


def _reason(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}, see its message above"
    return f"was killed by {signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
