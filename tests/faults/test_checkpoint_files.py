"""Checkpoints that are damaged, foreign or malicious, folders that cannot be used, and the errors about them."""

from __future__ import annotations

import os
import pickle
import shutil
import threading
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from hydra import compose, initialize_config_dir

from stylegan_inv import train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime import atomic_checkpoints
from stylegan_inv.runtime.atomic_checkpoints import AtomicCheckpointIO
from stylegan_inv.runtime.run_location import RunLocation, select_location
from tests.faults.small import assert_same_training, build, overrides, rows, run, state, stop_after


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run of six steps with checkpoints after 2, 4 and 6, in a folder with a space and letters of elsewhere."""
    folder = tmp_path_factory.mktemp("base") / "größe ünd raum"
    run("psp", folder, "callbacks.checkpoint.every_n_train_steps=2")
    return folder


def copy(base: Path, folder: Path) -> Path:
    shutil.copytree(base, folder)
    return folder


def prepare(folder: Path, *more: str, method: str = "psp") -> train.Job:
    return build(method, folder, *more)[1]


def refused(folder: Path, *more: str, method: str = "psp") -> str:
    with pytest.raises(UserError) as error:
        prepare(folder, *more, method=method)
    assert not folder.exists() and "\n" not in str(error.value)
    return str(error.value)


def truncated(whole: bytes) -> bytes:
    return whole[: len(whole) // 2]


def evil(touched: Path) -> bytes:
    class Evil:
        def __reduce__(self) -> Any:
            return os.system, (f"touch {touched}",)

    return pickle.dumps({"state_dict": Evil()})


BROKEN = {
    "truncated": truncated,
    "empty": lambda whole: b"",
    "text": lambda whole: b"not a checkpoint\n" * 50,
    "quota page": lambda whole: b"<!DOCTYPE html><html><title>Quota exceeded</title></html>",
}


@pytest.mark.parametrize("kind", list(BROKEN))
def test_broken_ckpt_path_is_named(kind: str, base: Path, tmp_path: Path) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes(BROKEN[kind]((base / "checkpoints" / "last.ckpt").read_bytes()))
    assert "broken.ckpt: cannot be read as a checkpoint" in refused(tmp_path / "run", f"ckpt_path={broken}")


@pytest.mark.parametrize("as_zip", [False, True])
def test_code_in_a_checkpoint_is_not_run(as_zip: bool, tmp_path: Path) -> None:
    hostile, touched = tmp_path / "hostile.ckpt", tmp_path / "touched"
    hostile.write_bytes(evil(touched))
    if as_zip:
        torch.save({"state_dict": pickle.loads}, hostile)
    assert "cannot be read" in refused(tmp_path / "run", f"ckpt_path={hostile}")
    assert not touched.exists()


@pytest.mark.parametrize("kind", list(BROKEN))
def test_resume_falls_back_to_the_previous_one(kind: str, base: Path, tmp_path: Path) -> None:
    folder = copy(base, tmp_path / "run")
    (
        (folder / "metrics.json").unlink(),
        (folder / "run.json").write_text(
            (folder / "run.json").read_text().replace('"finished_steps": 6', '"finished_steps": 0')
        ),
    )
    last = folder / "checkpoints" / "last.ckpt"
    last.write_bytes(BROKEN[kind](last.read_bytes()))
    job = prepare(folder)
    assert job.location.ckpt_path is not None and job.location.ckpt_path.name == "previous.ckpt"
    assert torch.load(job.location.ckpt_path, weights_only=True)["global_step"] == 6, "written with the validation due"
    assert load_inverter(folder) is not None
    (folder / "checkpoints" / "previous.ckpt").write_bytes(b"")
    with pytest.raises(UserError, match=r"last.ckpt: cannot be read"):
        prepare(folder)


def test_another_runs_folder_is_not_taken(base: Path, tmp_path: Path) -> None:
    folder = copy(base, tmp_path / "run")
    with pytest.raises(UserError, match="holds another run; give another hydra.run.dir, or resume=auto"):
        prepare(folder, "loss.l2.weight=2")
    job = prepare(folder, "loss.l2.weight=2", "resume=auto")
    assert job.location.ckpt_path == folder / "checkpoints" / "last.ckpt" and not job.location.finished


def test_finished_runs_are_not_run_again_but_can_be_made_longer(
    base: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = copy(base, tmp_path / "run")
    before = (folder / "metrics.csv").read_bytes()
    assert run("psp", folder) is not None
    assert "finished before; nothing to do" in capsys.readouterr().out
    assert (folder / "metrics.csv").read_bytes() == before
    run("psp", folder, "trainer.max_steps=8")
    assert state(folder)["global_step"] == 8 and len(rows(folder)) == 10


def test_resume_auto_takes_the_newest_unfinished_run_of_the_command(base: Path, tmp_path: Path) -> None:
    root = tmp_path / "outputs" / "psp"
    for name, finished in (("old", False), ("new", False), ("finished", True)):
        folder = copy(base, root / name)
        if not finished:
            (folder / "run.json").write_text(
                (folder / "run.json").read_text().replace('"finished_steps": 6', '"finished_steps": 0')
            )
        age = {"old": 300, "new": 200, "finished": 100}[name]
        last = folder / "checkpoints" / "last.ckpt"
        os.utime(last, (last.stat().st_mtime - age,) * 2)
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        same = compose("train", overrides=[*overrides("psp", root / "x"), f"paths.output_root={root.parent}"])
        other = compose(
            "train", overrides=[*overrides("psp", root / "x", "seed=5"), f"paths.output_root={root.parent}"]
        )
    same.resume = other.resume = "auto"
    assert select_location(same, root / "x", named=False).run_dir == root / "new"
    assert select_location(other, root / "x", named=False).ckpt_path is None


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        (("encoder.width=6",), ["shape", "encoder.backbone", "instead of"]),
        (("generator.w_dim=12",), ["shape", "(8", "(12"]),
        (("generator.resolution=64",), ["shape", "(64", "(80"]),  # 8 and 10 codes of 8
    ],
    ids=["width", "w_dim", "number of codes"],
)
def test_checkpoint_of_other_shapes_lists_them(
    more: tuple[str, ...], expected: list[str], base: Path, tmp_path: Path
) -> None:
    last = base / "checkpoints" / "last.ckpt"
    message = refused(tmp_path / "run", f"ckpt_path='{last}'", *more)
    for text in expected:
        assert text in message, message


def test_checkpoint_of_another_method_and_with_a_renamed_key(base: Path, tmp_path: Path) -> None:
    last = base / "checkpoints" / "last.ckpt"
    assert "checkpoint of method PSP, expected ReStyle" in refused(
        tmp_path / "run", f"ckpt_path='{last}'", method="restyle"
    )
    checkpoint = state(base)
    weights = checkpoint["state_dict"]
    name = next(iter(weights))
    weights["encoder.renamed"] = weights.pop(name)
    torch.save(checkpoint, tmp_path / "renamed.ckpt")
    message = refused(tmp_path / "run", f"ckpt_path={tmp_path / 'renamed.ckpt'}")
    assert f"missing: {name} (1)" in message and "surplus: encoder.renamed (1)" in message


# -- folders -----------------------------------------------------------------------------------------------------------


def test_moved_run_goes_on_and_loads(tmp_path: Path) -> None:
    there, here, whole = tmp_path / "there", tmp_path / "höhe und weite" / "here", tmp_path / "whole"
    with pytest.raises(SystemExit):
        run("psp", there, stop_after(3))
    here.parent.mkdir()
    there.rename(here)
    run("psp", here)
    run("psp", whole)
    assert_same_training(whole, here)
    assert not there.exists()
    load_inverter(here)


def test_folder_deleted_while_running_is_made_again(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    run("psp", folder, "+callbacks.delete={_target_: tests.faults.test_checkpoint_files.Delete}")
    assert state(folder)["global_step"] == 6
    assert {"config.yaml", "versions.json", "run.json", "metrics.csv", "metrics.json"} <= set(os.listdir(folder))
    load_inverter(folder)


class Delete(pl.Callback):
    def on_train_batch_end(self, trainer: pl.Trainer, *args: Any) -> None:
        if trainer.global_step == 2:
            shutil.rmtree(trainer.default_root_dir)


def test_folder_that_cannot_be_written(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(UserError, match="cannot be written to .*; give another hydra.run.dir"):
        prepare(tmp_path / "file" / "run")
    if os.getuid():  # to root everything is open
        (tmp_path / "closed").mkdir(mode=0o500)
        with pytest.raises(UserError, match="cannot be written to"):
            prepare(tmp_path / "closed" / "run")
    else:
        with pytest.raises(UserError, match="cannot be written to"):
            prepare(Path("/proc/run"))


def test_runs_that_start_in_the_same_second_have_folders_of_their_own(tmp_path: Path) -> None:
    wanted = tmp_path / "2026-01-01_00-00-00"
    locations = [RunLocation(wanted, None, "", fixed=False) for _ in range(8)]
    threads = [threading.Thread(target=location.create) for location in locations]
    [thread.start() for thread in threads], [thread.join() for thread in threads]
    folders = {location.run_dir for location in locations}
    assert len(folders) == 8 and all(folder.is_dir() for folder in folders)


# -- the writer --------------------------------------------------------------------------------------------------------


def test_no_room_is_noticed_before_writing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    saver, path = AtomicCheckpointIO(), tmp_path / "last.ckpt"
    saver.save_checkpoint({"state_dict": {"a": torch.zeros(1000)}}, path)
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(atomic_checkpoints.shutil, "disk_usage", lambda folder: usage._replace(free=1 << 20))
    saver.save_checkpoint({"state_dict": {"a": torch.ones(1000)}}, path)
    assert "No space left on device: 1 MB needed" in (saver.failure or "") and "training continues" in caplog.text
    assert float(torch.load(path, weights_only=True)["state_dict"]["a"].sum()) == 0 and os.listdir(tmp_path) == [
        "last.ckpt"
    ]
    monkeypatch.undo()
    saver.save_checkpoint({"state_dict": {"a": torch.ones(1000)}}, path)
    assert saver.failure is None and sorted(os.listdir(tmp_path)) == ["last.ckpt", "previous.ckpt"]
    assert float(torch.load(tmp_path / "previous.ckpt", weights_only=True)["state_dict"]["a"].sum()) == 0


def test_a_file_that_does_not_read_back_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(atomic_checkpoints.torch, "save", lambda checkpoint, path: Path(path).write_bytes(b"PK half"))
    saver = AtomicCheckpointIO()
    saver.save_checkpoint({"state_dict": {}}, tmp_path / "last.ckpt")
    assert "cannot be read back" in (saver.failure or "") and not os.listdir(tmp_path)
