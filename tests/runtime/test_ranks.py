"""Rank and world size as torchrun, SLURM and Lightning write them into the environment."""

from __future__ import annotations

import pytest

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.ranks import Ranks

TORCHRUN = ("RANK", "WORLD_SIZE", "LOCAL_RANK")
SLURM = ("SLURM_PROCID", "SLURM_NTASKS", "SLURM_LOCALID")


@pytest.fixture(autouse=True)
def no_variables(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in (*TORCHRUN, *SLURM, "SLURM_JOB_NAME"):
        monkeypatch.delenv(name, raising=False)


def set_variables(monkeypatch: pytest.MonkeyPatch, names: tuple[str, ...], *values: int) -> None:
    for name, value in zip(names, values, strict=True):
        monkeypatch.setenv(name, str(value))


def test_a_single_process() -> None:
    assert Ranks.from_environment() == Ranks.for_devices() == Ranks(0, 1, 0)
    assert str(Ranks()) == "" and Ranks().is_first


def test_devices_are_started_by_the_first_process() -> None:
    assert Ranks.for_devices(3) == Ranks(0, 3, 0, starts_others=True)


@pytest.mark.parametrize("names", [TORCHRUN, SLURM])
def test_processes_that_were_started(names: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, names, 5, 8, 1)
    assert Ranks.from_environment() == Ranks.for_devices(4) == Ranks(5, 8, 1)
    assert str(Ranks(5, 8, 1)) == "rank 5 of 8: " and not Ranks(5, 8, 1).is_first


def test_torchrun_in_a_slurm_job(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, SLURM, 0, 2, 0)
    set_variables(monkeypatch, TORCHRUN, 6, 8, 1)
    assert Ranks.from_environment() == Ranks(6, 8, 1)


@pytest.mark.parametrize("shell", ["bash", "interactive"])
def test_a_shell_in_a_slurm_job_is_no_rank(shell: str, monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, SLURM, 1, 2, 1)
    monkeypatch.setenv("SLURM_JOB_NAME", shell)
    assert Ranks.from_environment() == Ranks()


def test_ranks_that_lightning_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOCAL_RANK", "1")
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert Ranks.from_environment() == Ranks(1, 2, 1)
    monkeypatch.delenv("WORLD_SIZE")  # as after a training
    assert Ranks.from_environment().rank == 1
    monkeypatch.setenv("LOCAL_RANK", "0")
    assert Ranks.from_environment() == Ranks()


def test_shards_partition_the_items() -> None:
    shards = [list(Ranks(rank, 3).shard(range(8))) for rank in range(3)]
    assert shards == [[0, 3, 6], [1, 4, 7], [2, 5]]
    assert list(Ranks(2, 3).shard([0])) == []


def test_variables_that_contradict_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    set_variables(monkeypatch, TORCHRUN, 8, 8, 1)
    with pytest.raises(UserError, match="RANK=8 WORLD_SIZE=8 LOCAL_RANK=1 in the environment"):
        Ranks.from_environment()


@pytest.mark.parametrize("devices", [0, "two", True, 1.5])
def test_invalid_devices(devices: object) -> None:
    with pytest.raises(UserError, match="devices="):
        Ranks.for_devices(devices)  # type: ignore[arg-type]
