"""torchrun, SLURM and Lightning start the ranks of a training; the weights are the same bit for bit."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from hydra import compose, initialize_config_dir
from pytorch_lightning.plugins.layer_sync import TorchSyncBatchNorm
from torch import nn

from stylegan_inv import config
from stylegan_inv.errors import UserError
from tests.cli import REPOSITORY
from tests.faults.small import assert_same_training, overrides, run, state
from tests.forks import join, launch, launch_ranks

DDP = ("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.max_steps=4")


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return free.getsockname()[1]


@pytest.fixture(scope="module")
def by_devices(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of two ranks with the variables that Lightning's own launcher gives them."""
    folder = tmp_path_factory.mktemp("devices") / "run"
    processes = launch_ranks(run, "psp", folder, *DDP, log=folder.parent / "log")
    assert join(processes, 120) == [0, 0], (folder.parent / "log.0").read_text()
    assert state(folder)["global_step"] == 4
    return folder


@pytest.mark.slow
def test_torchrun_trains_as_devices_does(by_devices: Path, tmp_path: Path) -> None:
    arguments = [o for o in overrides("psp", tmp_path / "run", *DDP) if not o.startswith("paths.")]
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node=2", f"--master-port={free_port()}"]
    command += ["-m", "stylegan_inv.train", *arguments, "hydra.run.dir=run"]
    environment = {**os.environ, "PYTHONPATH": str(REPOSITORY), "OMP_NUM_THREADS": "1"}
    result = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True, timeout=300)
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"], "one folder, whichever clock each rank saw"
    assert_same_training(by_devices, tmp_path / "run")
    metrics = [json.loads((folder / "metrics.json").read_text()) for folder in (by_devices, tmp_path / "run")]
    assert metrics[0]["val/mse"] == metrics[1]["val/mse"] and result.stdout.count("checkpoint:") == 1


def test_slurm_trains_as_devices_does(by_devices: Path, tmp_path: Path) -> None:
    """``srun --ntasks=2``: only SLURM tells each process its rank."""
    job = {
        "SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "2", "SLURM_NTASKS_PER_NODE": "2",
        "SLURM_NNODES": "1", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost", "SLURM_STEP_NODELIST": "localhost",
        "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(free_port()),
    }  # fmt: skip
    ranks = [
        launch(
            run, "psp", tmp_path / "run", *DDP, log=tmp_path / f"log.{rank}", **job,
            SLURM_PROCID=str(rank), SLURM_LOCALID=str(rank),
        )
        for rank in range(2)
    ]  # fmt: skip
    assert join(ranks, 120) == [0, 0], (tmp_path / "log.0").read_text() + (tmp_path / "log.1").read_text()
    assert_same_training(by_devices, tmp_path / "run")
    assert "checkpoint:" in (tmp_path / "log.0").read_text() and "checkpoint:" not in (tmp_path / "log.1").read_text()


def test_slurm_with_other_counts_is_refused(tmp_path: Path) -> None:
    job = {"SLURM_JOB_ID": "4242", "SLURM_JOB_NAME": "train", "SLURM_NTASKS": "3", "SLURM_NTASKS_PER_NODE": "3"}
    rank = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_NODELIST": "localhost"}
    process = launch(run, "psp", tmp_path / "run", *DDP, log=tmp_path / "log", **job, **rank)
    assert join([process], 60) == [1]
    assert "SLURM" in (tmp_path / "log").read_text()


def composed(*more: str):
    with initialize_config_dir(version_base="1.3", config_dir=str(config.CONF_DIR)):
        return compose("train", overrides=[*more])


def test_sync_batchnorm_reaches_lightning() -> None:
    cfg = composed("trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "trainer.sync_batchnorm=true")
    cfg.trainer.default_root_dir = "."
    trainer = config.instantiate(cfg.trainer, logger=False, enable_checkpointing=False)
    synchronised = trainer.strategy._layer_sync
    assert isinstance(synchronised, TorchSyncBatchNorm)
    network = synchronised.apply(nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)))
    assert isinstance(network[1], nn.SyncBatchNorm)
    assert composed("trainer=ddp").trainer.sync_batchnorm is False


def test_sync_batchnorm_where_it_cannot_be(monkeypatch: pytest.MonkeyPatch) -> None:
    for accelerator in ("cpu", "auto"):
        cfg = composed("trainer=ddp", f"trainer.accelerator={accelerator}", "trainer.sync_batchnorm=true")
        if accelerator == "cpu" or not torch.cuda.is_available():
            with pytest.raises(UserError, match="sync_batchnorm=true: needs CUDA GPUs"):
                config.check_fields(cfg)
    with pytest.raises(UserError, match="a single process; expected trainer=ddp"):
        config.check_fields(composed("trainer.sync_batchnorm=true"))
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    config.check_fields(composed("trainer=ddp", "trainer.sync_batchnorm=true"))
