"""Runs that are stopped by signals or killed, and their files; each run is a process of its own."""

from __future__ import annotations

import os
import re
import resource
import shutil
import signal
import stat
import threading
import time
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from PIL import Image

from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.errors import UserError
from stylegan_inv.runtime import atomic_checkpoints
from tests.faults.small import rows, run, slowdown, state, steps_logged, wait_for
from tests.forks import join, launch

ENDLESS = ("trainer.max_steps=100000", "trainer.val_check_interval=100000", "method.scheduler=null")


class Slow(pl.Callback):
    """A step that takes a minute."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 2:
            Path(trainer.default_root_dir, "slow").touch()
            time.sleep(60)


def alone(group: int) -> bool:
    """No process of a group is left."""
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return True
    return False


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize(("signum", "code"), [(signal.SIGTERM, 143), (signal.SIGINT, 130)], ids=["TERM", "INT"])
def test_signal_saves_and_ends(signum: int, code: int, workers: int, tmp_path: Path) -> None:
    if (workers > 0) != (signum == signal.SIGINT):
        pytest.skip("each once")
    folder = tmp_path / "run"
    more = (*ENDLESS, f"dataset.num_workers={workers}")
    process = launch(run, "psp", folder, *more, log=tmp_path / "log")
    wait_for(lambda: steps_logged(folder) >= 2)
    os.killpg(process.pid, signum)  # the loader's processes get it too, as from a terminal or SLURM
    asked = time.monotonic()
    assert join([process], 60) == [code], (tmp_path / "log").read_text()
    assert time.monotonic() - asked < 10 * slowdown()
    assert state(folder)["global_step"] == len(rows(folder)) >= 2
    assert f"stopped by {signal.Signals(signum).name}" in (tmp_path / "log").read_text()
    wait_for(lambda: alone(process.pid), 10 * slowdown())


def test_sigusr1_requeues_once_on_slurm(tmp_path: Path) -> None:
    tools, folder = tmp_path / "bin", tmp_path / "run"
    tools.mkdir()
    (tools / "scontrol").write_text(f"#!/bin/sh\necho \"$@\" >> '{tmp_path}/requeued'\n")
    (tools / "scontrol").chmod(0o755)
    slurm = {
        "PATH": f"{tools}:{os.environ['PATH']}", "SLURM_JOB_ID": "77", "SLURM_NTASKS": "1", "SLURM_PROCID": "0",
        "SLURM_LOCALID": "0", "SLURM_NODEID": "0", "SLURM_JOB_NAME": "train", "SLURM_NTASKS_PER_NODE": "1",
    }  # fmt: skip
    process = launch(run, "psp", folder, *ENDLESS, log=tmp_path / "log", **slurm)
    wait_for(lambda: steps_logged(folder) >= 2)
    os.kill(process.pid, signal.SIGUSR1)
    assert join([process], 60) == [143], (tmp_path / "log").read_text()
    assert (tmp_path / "requeued").read_text() == "requeue 77\n"
    done = state(folder)["global_step"]
    # SLURM starts the same command again, with a restart count: it continues without an option.
    again = launch(
        run, "psp", folder, *ENDLESS, "seed=0", log=tmp_path / "again", **slurm, SLURM_RESTART_COUNT="1"
    )  # fmt: skip
    wait_for(lambda: steps_logged(folder) >= done + 2)
    os.kill(again.pid, signal.SIGTERM)
    assert join([again], 60) == [143]
    assert [int(row["step"]) for row in rows(folder)] == list(range(state(folder)["global_step"]))


def test_second_ctrl_c_ends_at_once(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    slow = "+callbacks.slow={_target_: tests.faults.test_stops.Slow}"
    every = "callbacks.checkpoint.every_n_train_steps=1"
    process = launch(run, "psp", folder, *ENDLESS, slow, every, log=tmp_path / "log")
    wait_for(lambda: (folder / "slow").exists())
    os.kill(process.pid, signal.SIGINT)
    wait_for(lambda: "again to end at once" in (tmp_path / "log").read_text())
    os.kill(process.pid, signal.SIGINT)
    assert join([process], 20) == [-signal.SIGINT]
    assert state(folder)["global_step"] == 2


def killed_while_writing(folder: Path) -> None:
    real = torch.save

    def half(checkpoint: Any, path: Path) -> None:
        real(checkpoint, path)
        if checkpoint["global_step"] == 4:
            os.truncate(path, path.stat().st_size // 2)
            time.sleep(60)

    atomic_checkpoints.torch.save = half
    run("psp", folder, "callbacks.checkpoint.every_n_train_steps=2")


def test_kill_9_while_a_checkpoint_is_written(tmp_path: Path) -> None:
    folder, elsewhere = tmp_path / "run", Path("/dev/shm") / tmp_path.parent.name
    elsewhere.mkdir(parents=True, exist_ok=True)
    process = launch(killed_while_writing, folder, log=tmp_path / "log", TMPDIR=str(elsewhere))
    checkpoints = folder / "checkpoints"
    wait_for(lambda: (checkpoints / "last.ckpt").exists() and list(checkpoints.glob(".last*partial*")))
    time.sleep(0.2)
    process.kill()
    assert join([process], 10) == [-signal.SIGKILL]
    assert state(folder)["global_step"] == 2, "the old one, whole"
    assert list(checkpoints.glob(".*partial*")) and not list(elsewhere.iterdir())
    run("psp", folder)
    assert not list(checkpoints.glob(".*partial*")), "cleaned at the next start"
    assert state(folder)["global_step"] == 6 and len(rows(folder)) == 8
    shutil.rmtree(elsewhere)


class Limit(pl.Callback):
    """From step 3 to step 5 no file may grow beyond 20 kB, as on a disk that is full."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if trainer.global_step == 3:
            resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
        if trainer.global_step == 5:
            last = torch.load(Path(trainer.default_root_dir, "checkpoints", "last.ckpt"), weights_only=True)
            print("while full, the last checkpoint is of step", last["global_step"], flush=True)
            resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))


def test_full_disk_is_a_warning_and_tried_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    limit = "+callbacks.limit={_target_: tests.faults.test_stops.Limit}"
    process = launch(run, "psp", folder, limit, "callbacks.checkpoint.every_n_train_steps=1", log=tmp_path / "log")
    assert join([process], 120) == [0]
    log = (tmp_path / "log").read_text()
    assert "cannot be written" in log and "training continues" in log
    assert "while full, the last checkpoint is of step 3" in log
    assert state(folder)["global_step"] == 6
    assert not list((folder / "checkpoints").glob(".*"))


class Full(pl.Callback):
    """From step 2 to step 4 nothing can be written, as on a disk that is full; then the disk has room again."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
        if trainer.global_step in (2, 5):
            resource.setrlimit(resource.RLIMIT_FSIZE, (1 if trainer.global_step == 2 else hard, hard))


class Replaced(pl.Callback):
    """From step 2 to step 4 a file has the name of the run folder."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        folder = Path(trainer.default_root_dir)
        if trainer.global_step == 2:
            shutil.rmtree(folder)
            folder.write_text("mine")
        if trainer.global_step == 5:
            folder.unlink()


def writing_everything(folder: Path) -> tuple[str, ...]:
    """Overrides by which a run writes all kinds of files after every step."""
    common = f"run_dir: '{folder}', images: 1"
    return (
        "callbacks.checkpoint.every_n_train_steps=1",
        "trainer.val_check_interval=1",
        f"+callbacks.pictures={{_target_: stylegan_inv.callbacks.Panels, {common}, every_n_steps: 1}}",
        f"+callbacks.farthest={{_target_: stylegan_inv.callbacks.WorstReconstructions, {common}}}",
        f"+callbacks.statistics={{_target_: stylegan_inv.callbacks.LatentCodes, {common}}}",
    )


@pytest.mark.parametrize("fault", ["Full", "Replaced"])
def test_a_training_outlives_a_disk_that_is_full_for_a_while(fault: str, tmp_path: Path) -> None:
    folder, printed = tmp_path / "run", list[str]()
    os.mkfifo(tmp_path / "log")  # a pipe has no limit of its size
    reader = threading.Thread(target=lambda: printed.append((tmp_path / "log").read_text()))
    reader.start()
    fault = f"+callbacks.fault={{_target_: tests.faults.test_stops.{fault}}}"
    process = launch(run, "psp", folder, *writing_everything(folder), fault, log=tmp_path / "log")
    assert join([process], 120) == [0], printed
    reader.join()
    (log,) = printed
    assert "Traceback" not in log and "Logging error" not in log, log
    for what in ("last.ckpt", "metrics.csv", "panels", "worst", "codes"):
        warnings = len(re.findall(rf"{what}: cannot be written", log))
        assert warnings == 1 or (warnings and what == "last.ckpt"), log  # each save is tried
    assert state(folder)["global_step"] == 6
    steps = [int(row["step"]) for row in rows(folder) if row.get("train/loss/total") or row.get("train/loss/l2")]
    assert steps == list(range(2 if "Replaced" in fault else 0, 6)), "rows are written later"
    names = {path.name for path in folder.rglob("*") if path.is_file()}
    assert {"config.yaml", "metrics.json", "run.json", "last.csv", "last.json", "step_0000006.png"} <= names
    for image in (folder / "panels" / "last.png", folder / "worst" / "last.png"):
        Image.open(image).load()
    assert not [path for path in folder.rglob(".*") if "partial" in path.name]


class Gone(pl.Callback):
    """The run folder becomes a file, and stays one."""

    def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 5:
            shutil.rmtree(trainer.default_root_dir)
            Path(trainer.default_root_dir).write_text("mine")


def test_a_run_folder_that_became_a_file_is_one_line_at_the_end(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="trained to the end, but .*cannot be written") as error:
        run("psp", tmp_path / "run", "+callbacks.gone={_target_: tests.faults.test_stops.Gone}")
    assert "\n" not in str(error.value) and (tmp_path / "run").read_text() == "mine"


class Killer(pl.Callback):
    """What the kernel does when memory runs out: a loader process dies."""

    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        import multiprocessing

        if trainer.global_step == 2:
            os.kill(multiprocessing.active_children()[0].pid or 0, signal.SIGKILL)


def test_killed_loader_process_ends_the_run(tmp_path: Path) -> None:
    killer = "+callbacks.killer={_target_: tests.faults.test_stops.Killer}"
    process = launch(run, "psp", tmp_path / "run", *ENDLESS, killer, "dataset.num_workers=2", log=tmp_path / "log")
    assert join([process], 120) == [1]
    # The message depends on whether torch or the loader's queue notices first.
    assert re.search("DataLoader worker .*(killed by signal|exited unexpectedly)", (tmp_path / "log").read_text())
    wait_for(lambda: alone(process.pid), 20)


def loader_that_is_held(folder: Path) -> None:
    global kept
    data = SynthFacesDataModule(resolution=32, train_size=8, val_size=2, batch_size=2, num_workers=1)
    kept = iter(data.train_dataloader())
    next(kept)
    (folder / "read").touch()


def test_a_loader_that_is_still_held_does_not_keep_the_process(tmp_path: Path) -> None:
    """multiprocessing ends what is left by SIGTERM, which loader processes ignore, and waits for it."""
    process = launch(loader_that_is_held, tmp_path, log=tmp_path / "log")
    assert join([process], 60) == [0] and (tmp_path / "read").exists()


def test_checkpoints_are_private_to_nobody(tmp_path: Path) -> None:
    """A temporary file must not leave its narrower rights to the checkpoint."""
    saver = atomic_checkpoints.AtomicCheckpointIO()
    saver.save_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    mask = os.umask(0)
    os.umask(mask)
    assert stat.S_IMODE((tmp_path / "last.ckpt").stat().st_mode) == 0o666 & ~mask
