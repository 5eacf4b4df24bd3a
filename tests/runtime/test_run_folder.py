"""Which run a path belongs to, and what the run folder says."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.run_folder import RunFolder, results_folder


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    folder = tmp_path / "run"
    (folder / "checkpoints").mkdir(parents=True)
    (folder / "checkpoints" / "step_4.ckpt").touch()
    (folder / "config.yaml").write_text(
        "dataset:\n  _target_: stylegan_inv.data.faces.FacesDataModule\n  resolution: 64\nmethod_name: psp\n"
    )
    return RunFolder(folder)


def test_a_folder_and_a_checkpoint_in_it(run: RunFolder) -> None:
    assert RunFolder.of(run.path) == run and RunFolder.of(str(run.path)) == run
    named = RunFolder.of(run.checkpoints / "step_4.ckpt")
    assert named is not None and named.path == run.path
    assert named.checkpoint() == named.checkpoint_file == run.checkpoints / "step_4.ckpt"
    assert run.checkpoint() is None and run.checkpoint_file == run.checkpoints / "last.ckpt"


def test_paths_that_belong_to_no_run(run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "psp_ffhq_encode.pt").touch()
    assert RunFolder.of(tmp_path / "psp_ffhq_encode.pt") is None
    assert RunFolder.of(run.checkpoints / "absent.ckpt") is None
    monkeypatch.chdir(run.path)  # a name of published weights must not be taken for a file two levels below "."
    assert RunFolder.of("psp-ffhq") is None


@pytest.mark.parametrize("folder", ["run/checkpoints", "run", "run/checkpoints/more", "."])
def test_a_checkpoint_from_within_any_folder(
    folder: str, run: RunFolder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (run.checkpoints / "more").mkdir()
    monkeypatch.chdir(tmp_path / folder)
    path = os.path.relpath(run.checkpoints / "step_4.ckpt")
    named = RunFolder.of(path)
    assert named is not None and named.path.resolve() == run.path and named.checkpoint_file.resolve().is_file()
    assert results_folder(path).resolve() == run.path


def test_official_files_beside_a_config_belong_to_no_run(run: RunFolder, tmp_path: Path) -> None:
    (run.path / "models").mkdir()
    (run.path / "models" / "e4e.ckpt").touch()
    assert RunFolder.of(run.path / "models" / "e4e.ckpt") is None
    torch.save({"state_dict": {}, "opts": {"a": 1}}, run.checkpoints / "e4e_ffhq_encode.pt")
    assert RunFolder.of(run.checkpoints / "e4e_ffhq_encode.pt") is None
    torch.save({"epoch": 0, "global_step": 4, "pytorch-lightning_version": "2.6.0"}, run.checkpoints / "best.pt")
    assert RunFolder.of(run.checkpoints / "best.pt") == RunFolder(run.path, run.checkpoints / "best.pt")


def test_a_checkpoint_that_was_taken_out_of_its_run(tmp_path: Path) -> None:
    torch.save({"state_dict": {"encoder.a": torch.zeros(1)}, "generator_hash": "1"}, tmp_path / "last.ckpt")
    with pytest.raises(UserError, match="last.ckpt: is a checkpoint of a training run.*give the run folder"):
        load_inverter(tmp_path / "last.ckpt")


def test_where_results_are_written(run: RunFolder, tmp_path: Path) -> None:
    assert results_folder(run.path) == results_folder(run.checkpoints / "step_4.ckpt") == run.path
    (tmp_path / "psp_ffhq_encode.pt").touch()
    assert results_folder(tmp_path / "psp_ffhq_encode.pt") == Path("outputs/psp_ffhq_encode")
    assert results_folder("psp-ffhq") == Path("outputs/psp-ffhq")


def test_old_names_in_the_config_are_replaced(run: RunFolder) -> None:
    dataset = run.dataset_config()
    assert dataset is not None and dataset._target_ == "stylegan_inv.data.SynthFacesDataModule"
    assert run.config().method_name == "psp" and run.has_old_names()
    run.write_origin({"dataset": {"_target_": "stylegan_inv.data.SynthFacesDataModule"}}, "hash")
    assert not run.has_old_names() and run.record() == {"command": "hash"}


def test_a_config_that_is_missing_or_broken(run: RunFolder, tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    assert RunFolder(tmp_path / "empty").dataset_config() is None
    with pytest.raises(UserError, match="no config.yaml in it"):
        RunFolder(tmp_path / "empty").config()
    for text in ("a: [", "- a\n- b\n", "a: ${"):
        run.config_file.write_text(text)
        with pytest.raises(UserError, match="config.yaml: cannot be read"):
            run.config()


def test_the_record_keeps_its_other_entries(tmp_path: Path) -> None:
    run = RunFolder(tmp_path / "new")
    assert run.record() == {} and run.metrics() == {}
    run.update_record(command="a", wandb_id="b")
    run.update_record(command="c")
    assert run.record() == {"command": "c", "wandb_id": "b"}
    run.metrics_file.write_text('{"val/mse": 0.5}')
    assert run.metrics() == {"val/mse": 0.5}
    run.metrics_file.write_text("{")
    assert run.metrics() == {}
