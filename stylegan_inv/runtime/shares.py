"""Ranks that take their share of the work by number and need not hear from one another: `invert` and `evaluate`.

``torchrun`` and ``srun`` start them and say in the environment which one a process is; ``devices=4`` starts them here.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from stylegan_inv.errors import UserError

Item = TypeVar("Item")
#: torchrun's (and ours), then SLURM's: number, count, number on this machine.
_VARIABLES = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
#: Job names of ``salloc`` and ``srun --pty bash``: the shell has SLURM's variables, but its commands are no ranks.
_SHELLS = ("bash", "interactive")


@dataclass(frozen=True)
class Ranks:
    """Which process of how many this is.

    Attributes:
        rank: Its number from 0.
        count: Of all processes.
        local: Its number on this machine, which chooses its GPU.
        starts: Whether this one, the first, starts the others.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    starts: bool = False

    @classmethod
    def of(cls, devices: int | str = 1) -> Ranks:
        """What the environment says, or the first of so many processes.

        Args:
            devices: Processes to start where nothing else has started several; ``auto``: one for each GPU.

        Raises:
            UserError: Neither a number nor ``auto``, or an environment that makes no sense.
        """
        if devices != "auto" and (isinstance(devices, bool) or not isinstance(devices, int) or devices < 1):
            raise UserError(f"devices={devices}: expected a whole number of at least 1, or auto (one for each GPU)")
        found = _of_environment()
        if found is not None and found.count > 1:
            return found
        count = max(1, torch.cuda.device_count()) if devices == "auto" else int(devices)
        return cls(0, count, 0, starts=count > 1)

    def share(self, items: Sequence[Item]) -> Sequence[Item]:
        """Every ``count``-th, from the ``rank``-th on: the ranks' shares are disjoint and together all of them."""
        return items[self.rank :: self.count]

    @contextmanager
    def named(self) -> Iterator[None]:
        """Name this rank of several in what goes wrong."""
        try:
            yield
        except UserError as error:
            raise UserError(f"{self}{error}") from error
        except Exception as error:
            if self.count > 1:
                print(f"{self}{type(error).__name__}: {error}", file=sys.stderr, flush=True)
            raise

    def __str__(self) -> str:
        return f"rank {self.rank} of {self.count}: " if self.count > 1 else ""

    @contextmanager
    def with_others(self, command: Sequence[str]) -> Iterator[None]:
        """Start the other ranks if that is left to this one, and wait for them at the end.

        They do not depend on one another: where one fails the others still do their share.

        Args:
            command: What each of them runs.

        Raises:
            UserError: At the end, naming those that failed.
        """
        processes = self._start(command) if self.starts else []
        try:
            yield
        except Exception:
            _failed(processes)
            raise
        except BaseException:  # Ctrl-C, or asked to stop
            for process in processes:
                process.terminate()
            _failed(processes)
            raise
        if failed := _failed(processes):
            said = "; ".join(f"rank {rank} of {self.count} {how}" for rank, how in failed.items())
            raise UserError(f"{said}; what is done is kept, and the same command goes on")

    def _start(self, command: Sequence[str]) -> list[subprocess.Popen[Any]]:
        environment = {**os.environ, "WORLD_SIZE": str(self.count), "STYLEGAN_INV_PARENT": str(os.getpid())}
        if "OMP_NUM_THREADS" not in os.environ:
            threads = max(1, (os.cpu_count() or 1) // self.count)
            torch.set_num_threads(threads)
            environment["OMP_NUM_THREADS"] = str(threads)
        ranks = ({"RANK": str(rank), "LOCAL_RANK": str(rank)} for rank in range(1, self.count))
        return [subprocess.Popen(command, env={**environment, **own}) for own in ranks]


def _of_environment() -> Ranks | None:
    for names in _VARIABLES:
        rank, count, local = (os.environ.get(name) for name in names)
        if rank is None or count is None:
            continue
        if names[0].startswith("SLURM") and os.environ.get("SLURM_JOB_NAME") in _SHELLS:
            continue
        local = rank if local is None else local
        if not (rank.isdigit() and count.isdigit() and local.isdigit()) or int(rank) >= int(count):
            said = " ".join(f"{name}={os.environ.get(name)}" for name in names)
            raise UserError(f"got {said} in the environment, expected 0 <= {names[0]} < {names[1]}")
        return Ranks(int(rank), int(count), int(local))
    return None


def _failed(processes: Sequence[subprocess.Popen[Any]]) -> dict[int, str]:
    """Wait for ranks 1, 2, ...; those that failed, and how."""
    codes = {rank: process.wait() for rank, process in enumerate(processes, start=1)}
    return {rank: _how(code) for rank, code in codes.items() if code}


def _how(code: int) -> str:
    if code >= 0:
        return f"failed with exit code {code}, see its message above"
    return f"was killed by {signal.Signals(-code).name}{' (out of memory?)' if code == -signal.SIGKILL else ''}"
