"""Folders of strangers with links, checkpoints with paths, records of sweeps: nothing outside is written or removed."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from omegaconf import OmegaConf
from PIL import Image

from stylegan_inv.callbacks.checkpoints import Checkpoints
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.runtime.atomic_checkpoints import AtomicCheckpointIO
from stylegan_inv.runtime.resumable_job import ResumableJob
from stylegan_inv.runtime.run_folder import RunFolder, results_folder
from stylegan_inv.runtime.run_location import RunLocation
from stylegan_inv.runtime.sweep_process import metric_of
from stylegan_inv.sweeps.hydra_plugins.stylegan_inv_process_launcher import ProcessLauncher
from stylegan_inv.sweeps.jobs import RECORD, read_jobs
from stylegan_inv.sweeps.summary import summarise
from stylegan_inv.utils.files import check_links, check_output
from tests.cli import call, error_of
from tests.fake_run import make_run
from tests.faults.small import run, state

ROW = {"job": 0, "overrides": ["seed=1"], "exit_code": 0, "value": 0.5, "folder": "0", "seconds": 1.0}


def content(folder: Path) -> dict[str, str]:
    return {str(path.relative_to(folder)): path.read_text() for path in sorted(folder.rglob("*")) if path.is_file()}


@pytest.fixture(autouse=True)
def precious(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A folder of the user with the names that commands write and remove; nothing in it changes in any test."""
    folder = tmp_path / "precious"
    for name in (
        "a.png",
        "0.png",
        "last.ckpt",
        ".last.partial.ckpt",
        "latents.safetensors",
        "sub/0/a.png",
        "train.log",
    ):
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text("mine")
    before = content(folder)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # commands set it
    yield folder
    assert content(folder) == before


def refused(function: Callable[..., Any], *arguments: Any) -> str:
    with pytest.raises(UserError) as error:
        function(*arguments)
    assert "\n" not in str(error.value)
    return str(error.value)


COMMANDS = {"inversions": invert, "edits": edit, "evaluation": evaluate}


@pytest.mark.parametrize("name", COMMANDS)
def test_results_are_not_written_through_a_link(
    name: str, precious: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = make_run(tmp_path / "run")
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.png")
    options = ["run=run", "device=cpu", "dataset=synthfaces" if name == "evaluation" else "input=photo.png"]
    options += ["edit=truncate"] if name == "edits" else []
    result = {"inversions": "photo", "edits": "truncate_photo", "evaluation": "synthfaces"}[name]
    links = {folder / name: precious, folder / name / result: Path("../../precious/sub")}
    for link, target in links.items():
        link.parent.mkdir(exist_ok=True)
        link.symlink_to(target, target_is_directory=True)
        for more in ((), ("overwrite=true",)):
            line = error_of(monkeypatch, capsys, COMMANDS[name], *options, *more)
            assert f"{name}/{result}: leads out of the run folder by a link; give output=" in line
        link.unlink()
    for inside in ("unfinished", "variants", "reconstructions"):
        output = folder / name / result
        (output / "x").mkdir(parents=True, exist_ok=True)
        (output / "x" / inside).symlink_to(precious)
        line = error_of(monkeypatch, capsys, COMMANDS[name], *options, "overwrite=true")
        assert f"{result}/x/{inside}: is a link that leads out of" in line
        (output / "x" / inside).unlink()


def test_links_within_a_folder_are_followed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = make_run(tmp_path / "run")
    (folder / "results").mkdir()
    (folder / "inversions").symlink_to("results")
    Image.new("RGB", (16, 16)).save(tmp_path / "photo.png")
    call(monkeypatch, invert, "run=run", "input=photo.png", "device=cpu")
    assert (folder / "results" / "photo" / "latents.safetensors").is_file()
    os.symlink(folder, tmp_path / "elsewhere")  # the run folder itself may be a link
    assert results_folder("elsewhere", "inversions", "x") == Path("elsewhere/inversions/x")


@pytest.mark.parametrize(
    "check",
    [check_links, lambda folder: check_output(folder, True), lambda folder: ResumableJob(folder, {}).check(True)],
)
def test_every_link_is_seen(check: Callable[[Path], Any], precious: Path, tmp_path: Path) -> None:
    folder = tmp_path / "folder"
    (folder / "deep" / "deeper").mkdir(parents=True)
    for place in ("x", "deep/x", "deep/deeper/x"):
        for target in (precious, precious / "a.png", Path("/"), Path("../" * 9 + "etc"), Path("../" * 9 + "missing")):
            (folder / place).symlink_to(target)
            assert f"{place}: is a link that leads out of" in refused(check, folder)
            (folder / place).unlink()
    (folder / "x").symlink_to("x")  # a loop
    assert "x: is a link" in refused(check, folder)
    (folder / "x").unlink()
    (folder / "x").symlink_to("deep")
    check(folder)


@pytest.mark.parametrize(
    "name", ["checkpoints", "panels", "worst", "codes", ".hydra", "wandb", "stylegan_inv.train.log"]
)
def test_a_training_does_not_write_through_a_link(name: str, precious: Path, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    folder.mkdir()
    (folder / name).symlink_to(precious / ("train.log" if name.endswith("log") else ""))
    assert f"{name}: is a link that leads out of" in refused(RunLocation(folder, None, "").create)
    (folder / name).unlink()
    (folder / "data").symlink_to(precious)  # nothing that a training writes
    RunLocation(folder, None, "").create()


def test_files_of_a_run_are_replaced_and_not_followed(precious: Path, tmp_path: Path) -> None:
    folder = RunFolder(tmp_path / "run")
    folder.path.mkdir()
    for file in (folder.config_file, folder.versions_file, folder.record_file, folder.logged_metrics_file):
        file.symlink_to(precious / "a.png")
    folder.write_origin({"seed": 0}, "hash")
    assert OmegaConf.load(folder.config_file) == {"seed": 0} and not folder.config_file.is_symlink()


def test_a_checkpoint_does_not_name_what_is_removed(precious: Path, tmp_path: Path) -> None:
    """Lightning removes the checkpoint before the last one by the path in the state of its callback, folders too."""
    folder = tmp_path / "run"
    options = ("callbacks.checkpoint.every_n_train_steps=1", "trainer.val_check_interval=1000")
    run("psp", folder, *options, "trainer.max_steps=1")
    checkpoint = state(folder)
    (name,) = (key for key in checkpoint["callbacks"] if key.startswith("Checkpoints"))
    hostile = f"{folder}/checkpoints/../../precious"
    assert checkpoint["callbacks"][name]["dirpath"] == f"{folder}/checkpoints"
    checkpoint["callbacks"][name] |= {
        "last_model_path": hostile,
        "best_model_path": hostile,
        "kth_best_model_path": hostile,
        "best_k_models": {hostile: torch.zeros(()), "http://127.0.0.1:9/x": torch.zeros(())},
    }
    torch.save(checkpoint, folder / "checkpoints" / "last.ckpt")
    run("psp", folder, *options, "trainer.max_steps=2")
    assert state(folder)["global_step"] == 2 and precious.is_dir()


def test_paths_in_the_state_of_the_callback(precious: Path, tmp_path: Path) -> None:
    callback = Checkpoints(dirpath=tmp_path / "checkpoints")
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "link").symlink_to(precious)
    own = f"{tmp_path}/checkpoints/last.ckpt"
    linked = f"{tmp_path}/checkpoints/link/a.png"
    for path in (f"{precious}/a.png", "http://127.0.0.1/x", "memory://x", linked):
        saved = {"dirpath": callback.dirpath, "best_model_score": None, "best_model_path": path}
        callback.load_state_dict({**saved, "last_model_path": path, "best_k_models": {path: 1, own: 2}})
        assert (callback.best_model_path, callback.last_model_path) == ("", "") and callback.best_k_models == {own: 2}
    callback.load_state_dict({**saved, "best_model_path": own, "last_model_path": own, "best_k_models": {7: 1}})
    assert callback.last_model_path == own and callback.best_k_models == {}
    AtomicCheckpointIO().remove_checkpoint(precious)
    AtomicCheckpointIO().remove_checkpoint("memory://x")


# -- sweeps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "change",
    [
        {"job": "a"}, {"job": -1}, {"job": None}, {"job": True}, {"exit_code": "x"}, {"exit_code": 0.5}, {"value": "x"},
        {"value": [1]}, {"value": True}, {"seconds": "x"}, {"seconds": None}, {"seconds": -1}, {"overrides": "x"},
        {"overrides": [1]}, {"overrides": None}, {"overrides": {"a": 1}}, {"folder": 7}, {"folder": "a\0b"},
        {"folder": None}, {"more": 1},
    ],
)  # fmt: skip
def test_records_of_a_sweep_are_checked(change: dict[str, Any], tmp_path: Path) -> None:
    (tmp_path / RECORD).write_text(json.dumps([{**ROW, **change}]))
    assert "sweep.json: cannot be read" in refused(read_jobs, tmp_path, "val/mse")


def test_damaged_records_of_a_sweep(tmp_path: Path) -> None:
    for text in (
        "",
        "{",
        "7",
        "null",
        "[1]",
        "[[]]",
        '{"a": 1}',
        "[" * 10_000,
        "\xff\xfe",
        "NaN",
        "[" + "1," * 200_000 + "1]",
    ):
        (tmp_path / RECORD).write_bytes(text.encode("latin-1"))
        assert "sweep.json: cannot be read" in refused(read_jobs, tmp_path, "val/mse")


def test_jobs_are_inside_of_their_sweep(precious: Path, tmp_path: Path) -> None:
    sweep = tmp_path / "sweep"
    (sweep / "0").mkdir(parents=True)
    (precious.parent / "secret").mkdir()
    (precious.parent / "secret" / "metrics.json").write_text('{"val/mse": 42.0}')
    for folder in ("../secret", str(tmp_path / "secret"), "/", "0/../../secret"):
        (sweep / RECORD).write_text(json.dumps([{**ROW, "folder": folder}]))
        (job,) = read_jobs(sweep, "val/mse")
        assert job.metrics() == {}
    (sweep / "0" / "metrics.json").write_text('{"val/mse": 1.0}')
    (sweep / RECORD).write_text(json.dumps([{**ROW, "folder": "/before/it/was/moved/0"}]))
    assert read_jobs(sweep, "val/mse")[0].metrics() == {"val/mse": 1.0}


def test_results_of_jobs_may_hold_anything(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    odd = ['"x"', "[1]", "{}", "NaN", "Infinity", "true", "null", "1e400", "0.5", "[" * 3000]
    overrides = [
        "a: 1",
        "- {a: 1}",
        "7",
        "- [x]",
        "- 'x=$\\\\frac$'",
        "- 'x=|[bold]'",
        "",
        '- "x=\\e[31m"',
        "- x=1",
        "- x=2",
    ]
    for number, (value, text) in enumerate(zip(odd, overrides, strict=True)):
        (tmp_path / str(number) / ".hydra").mkdir(parents=True)
        (tmp_path / str(number) / ".hydra" / "overrides.yaml").write_text(text)
        (tmp_path / str(number) / "metrics.json").write_text(f'{{"val/mse": {value}, "seconds": {value}}}')
    summarise(tmp_path, OmegaConf.create({"optimized_metric": "val/mse", "optimized_goal": "minimize"}))
    assert (tmp_path / "sweep.md").is_file() and "best" in (tmp_path / "sweep.md").read_text()
    assert [metric_of(tmp_path / str(number), "val/mse") for number in (0, 1, 5, 8)] == [None, None, None, 0.5]


def test_a_sweep_does_not_write_through_a_link(precious: Path, tmp_path: Path) -> None:
    (tmp_path / "sweep").mkdir()
    (tmp_path / "sweep" / "0").symlink_to(precious)
    launcher = ProcessLauncher()
    launcher.config = OmegaConf.create({"hydra": {"sweep": {"dir": str(tmp_path / "sweep")}}})
    assert "0: is a link that leads out of" in refused(launcher.launch, [["seed=1"]], 0)
