"""Rank and world size of this process, before any process group exists: the same for train, invert and evaluate."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar, runtime_checkable

import torch

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import MOST_PROCESSES, whole_number

Item = TypeVar("Item")
#: Variables of torchrun (which `stylegan_inv.runtime.rank_processes` sets as well) and of SLURM: rank, world size,
#: local rank. torchrun comes first, because it may run inside of a SLURM job.
_VARIABLES = (("RANK", "WORLD_SIZE", "LOCAL_RANK"), ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID"))
#: Job names of ``salloc`` and ``srun --pty bash``: the shell has SLURM's variables, but its commands are no ranks.
_SHELLS = ("bash", "interactive")


@dataclass(frozen=True)
class Ranks:
    """Which of several processes this is.

    Attributes:
        rank: Number of this process, from 0.
        world_size: Number of processes.
        local_rank: Number of this process on its machine, which selects its GPU.
        starts_others: Whether this process has to start the other ranks, see `rank_processes.launched`.
    """

    rank: int = 0
    world_size: int = 1
    local_rank: int = 0
    starts_others: bool = False

    @classmethod
    def from_environment(cls) -> Ranks:
        """Returns what torchrun, SLURM or Lightning has written into the environment; else a single process.

        Raises:
            UserError: The variables contradict each other.
        """
        for names in _VARIABLES:
            rank, world_size, local_rank = (os.environ.get(name) for name in names)
            if rank is None or world_size is None:
                continue
            if names[0].startswith("SLURM") and os.environ.get("SLURM_JOB_NAME") in _SHELLS:
                continue
            local_rank = rank if local_rank is None else local_rank
            if not all(text.isdecimal() for text in (rank, world_size, local_rank)) or int(rank) >= int(world_size):
                got = " ".join(f"{name}={os.environ.get(name)}" for name in names)
                raise UserError(f"got {got} in the environment, expected 0 <= {names[0]} < {names[1]}")
            return cls(int(rank), int(world_size), int(local_rank))
        # Lightning starts the ranks of one machine with these, and removes WORLD_SIZE when the training has ended.
        local_rank = os.environ.get("LOCAL_RANK", "")
        if not local_rank.isdecimal():
            return cls()
        world_size = os.environ.get("WORLD_SIZE", "")
        size = int(world_size) if world_size.isdecimal() else 1
        return cls(int(local_rank), max(size, int(local_rank) + 1), int(local_rank))

    @classmethod
    def for_devices(cls, devices: int | str = 1) -> Ranks:
        """Returns the ranks of a command that starts its own processes unless torchrun or SLURM has started them.

        Args:
            devices: Number of processes to start; ``auto`` for one per GPU.

        Raises:
            UserError: ``devices`` is neither a positive number nor ``auto``, or see `from_environment`.
        """
        if devices != "auto":
            whole_number("devices", devices, most=MOST_PROCESSES, hint="or auto (one for each GPU)")
        found = cls.from_environment()
        if found.world_size > 1:
            return found
        world_size = max(1, torch.cuda.device_count()) if devices == "auto" else int(devices)
        return cls(0, world_size, 0, starts_others=world_size > 1)

    @property
    def is_first(self) -> bool:
        """Whether this is rank 0, which alone writes files that all ranks share."""
        return self.rank == 0

    def shard(self, items: Sequence[Item]) -> Sequence[Item]:
        """Returns every ``world_size``-th item from the ``rank``-th on; the shards of all ranks partition the items."""
        return items[self.rank :: self.world_size]

    def __str__(self) -> str:
        """Prefix of messages; empty for a single process."""
        return f"rank {self.rank} of {self.world_size}: " if self.world_size > 1 else ""


@runtime_checkable
class StatePerRank(Protocol):
    """A module whose extra state differs between ranks, such as a history of latent codes."""

    differs_by_rank: bool

    def get_extra_state(self) -> Any:
        """Returns the state of this rank."""

    def set_extra_state(self, state: Any) -> None:
        """Restores the state of this rank."""
