"""The training command: the files it writes, resuming, and errors about bad input."""

from __future__ import annotations

import csv
import json
import shutil
from pathlib import Path

import pytest
import torch
import yaml
from PIL import Image

from stylegan_inv import train
from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from tests.cli import QUICK, assert_user_error, error_of, run_cli, run_python


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, str]:
    """One quick training of the default job with default logging: its run folder and what it printed."""
    cwd = tmp_path_factory.mktemp("default job")  # with a space, as on people's machines
    quick = [argument for argument in QUICK if argument != "logger=csv"]
    result = run_python("train", "method=restyle", *quick, "hydra.run.dir=run", cwd=cwd)
    assert result.returncode == 0, result.stderr
    return cwd / "run", result.stdout


def test_run_folder_holds_everything(run: tuple[Path, str]) -> None:
    folder, printed = run
    metrics = json.loads((folder / "metrics.json").read_text())
    assert {"val/mse", "val/mse_ratio", "val/step_gain", "images_per_second", "seconds"} <= metrics.keys()
    assert 0 < metrics["val/mse_ratio"] and 0 <= metrics["val/step_gain"] <= 1
    assert metrics["val/mse"] == pytest.approx(metrics["val/mse_step5"])
    with (folder / "metrics.csv").open() as file:
        columns = next(csv.reader(file))
    assert {"train/loss/total", "lr/encoder", "val/mse"} <= set(columns)
    config = yaml.safe_load((folder / "config.yaml").read_text())
    assert config["method"]["iterations"] == 5 and "${" not in (folder / "config.yaml").read_text()
    assert "torch" in json.loads((folder / "versions.json").read_text())
    assert list((folder / "wandb").glob("offline-run-*")), "without a key wandb records offline"
    with Image.open(folder / "panels" / "last.png") as panel:
        assert panel.width > panel.height / 2
    for line in ("panel:", "metrics:", "checkpoint:", "run:"):
        assert line in printed
    assert printed.rstrip().splitlines()[-1].split(maxsplit=1) == ["run:", str(folder)] or "run" in printed


def test_checkpoint_leaves_frozen_networks_out(run: tuple[Path, str]) -> None:
    checkpoint = torch.load(run[0] / "checkpoints" / "last.ckpt", weights_only=True)
    assert all(key.startswith("encoder.") for key in checkpoint["state_dict"])
    assert len(checkpoint["generator_hash"]) == 64


def test_loaded_method_gives_the_validated_error(run: tuple[Path, str]) -> None:
    """The method that comes back from disk scores exactly what the training logged, computed here by hand."""
    from stylegan_inv.data.synthfaces.dataset import SynthFaces

    method = load_inverter(run[0])
    faces = SynthFaces(resolution=64, seed=1, size=4)
    images = torch.stack([item["image"] for item in faces.__getitems__([0, 1, 2, 3])])
    error = (method.invert(images).image - images).square().mean().item()
    assert error == pytest.approx(json.loads((run[0] / "metrics.json").read_text())["val/mse"], rel=1e-4)


def test_what_the_encoder_started_from_may_be_gone(run: tuple[Path, str], tmp_path: Path) -> None:
    shutil.copytree(run[0], tmp_path / "run")
    config = yaml.safe_load((run[0] / "config.yaml").read_text())
    assert config["method"]["encoder"]["pretrained"] == "face_train"
    config["method"]["encoder"]["pretrained"] = str(tmp_path / "deleted.safetensors")
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    states = [load_inverter(folder).state_dict() for folder in (run[0], tmp_path / "run")]
    for name, value in states[0].items():
        assert torch.equal(states[1][name], value), name


def test_generator_that_the_encoder_was_not_trained_with(run: tuple[Path, str], tmp_path: Path) -> None:
    from stylegan_inv.generators import Generator, save_generator

    other = tmp_path / "other.safetensors"
    save_generator(Generator(64, z_dim=8, w_dim=16, mapping_layers=1, channel_base=512, channel_max=8), other, {})
    shutil.copytree(run[0], tmp_path / "run")
    config = yaml.safe_load((run[0] / "config.yaml").read_text())
    config["method"]["generator"]["source"] = str(other)
    (tmp_path / "run" / "config.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(UserError, match="was trained with generator .*, got .*; give generator="):
        load_inverter(tmp_path / "run")


def test_continues_from_a_checkpoint(run: tuple[Path, str], tmp_path: Path) -> None:
    quick = [argument for argument in QUICK if "max_steps" not in argument]
    last = run[0] / "checkpoints" / "last.ckpt"
    result = run_cli(
        "train",
        "method=restyle",
        *quick,
        "trainer.max_steps=5",
        "callbacks.codes=null",
        f"ckpt_path='{last}'",
        "hydra.run.dir=run",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert torch.load(tmp_path / "run" / "checkpoints" / "last.ckpt", weights_only=True)["global_step"] == 5


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["method=restile"], ["method=restile", "did you mean method=restyle?"]),
        (["no_such_key=1"], ["no_such_key"]),
        (["method.iteration=3"], ["iteration"]),
        (["method.iterations=0"], ["method.iterations=0", "at least 1"]),
        (["dataset.batch_size=-4"], ["dataset.batch_size=-4", "at least 1"]),
        (["dataset.resolution=50"], ["dataset.resolution=50"]),
        (["loss.l2.weight=heavy"], ["loss.l2", "heavy"]),
        (["generator=file", "generator.source=absent.pt"], ["absent.pt"]),
        (["generator=file"], ["generator.source"]),
        (["dataset=folder", "dataset.root=absent"], ["absent"]),
        (["ckpt_path=absent.ckpt"], ["absent.ckpt", "no such checkpoint"]),
        (["method.start=middle"], ["middle", "average"]),
        (["resume=always"], ["resume=always", "auto"]),
        (
            ["dataset.resolution=128"],
            ["dataset.resolution=128", "larger than the generator's", "dataset.resolution=64"],
        ),
        (["method=psp", "+task=sketch", "method.in_channels=3"], ["1 channels", "method.in_channels=1", "+task"]),
    ],
    ids=lambda value: "+".join(value) if isinstance(value, list) else None,
)
def test_bad_input_is_one_line_and_writes_nothing(
    arguments: list[str],
    expected: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    line = error_of(monkeypatch, capsys, train, *arguments)
    assert all(word in line for word in expected), line
    assert not list(tmp_path.iterdir())


def test_bad_input_to_a_process(tmp_path: Path) -> None:
    assert_user_error(run_cli("train", "dataset.batch_size=-4", cwd=tmp_path), "dataset.batch_size=-4", "at least 1")
    assert not list(tmp_path.iterdir())


def test_offline_is_one_key_for_all_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "torch"))
    for arguments, missing in (
        (["loss/perceptual=lpips"], "loss.lpips"),
        (["generator=stylegan2_ffhq1024"], "stylegan2-ffhq-1024"),
    ):
        result = run_cli("train", *arguments, "weights.offline=true", cwd=tmp_path)
        assert_user_error(result, missing, "downloads are switched off: put the file at", str(tmp_path / "cache"))
    assert not list(tmp_path.iterdir())


def test_empty_folder_of_images(tmp_path: Path) -> None:
    images = tmp_path / "images"
    images.mkdir()
    result = run_cli("train", "dataset=folder", f"dataset.root={images}", "hydra.run.dir=run", cwd=tmp_path)
    assert_user_error(result, str(images), "no images")
    assert not (tmp_path / "run").exists()


def test_truncated_checkpoint(run: tuple[Path, str], tmp_path: Path) -> None:
    broken = tmp_path / "broken.ckpt"
    broken.write_bytes((run[0] / "checkpoints" / "last.ckpt").read_bytes()[:5000])
    result = run_cli("train", f"ckpt_path={broken}", "hydra.run.dir=run", cwd=tmp_path)
    assert_user_error(result, "broken.ckpt", "cannot be read")
    assert not (tmp_path / "run").exists()


def test_what_people_type_without_reading(tmp_path: Path) -> None:
    shown = run_cli("train", "--cfg", "job", "--resolve", "-p", "loss", "~loss.id", "loss.l2.weight=3", cwd=tmp_path)
    assert shown.returncode == 0, shown.stderr
    assert "id" not in yaml.safe_load(shown.stdout) and yaml.safe_load(shown.stdout)["l2"]["weight"] == 3
    assert "method" in run_cli("train", "--help", cwd=tmp_path).stdout
    result = run_cli("train", "debug=fdr", "dataset.num_workers=0", "hydra.run.dir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr


def test_sweep_runs_every_job(tmp_path: Path) -> None:
    small = [*QUICK, "trainer.max_steps=1", "callbacks.panels=null", "callbacks.codes=null"]
    arguments = [*small, "method.iterations=1,2", "hydra.sweep.dir=sweep"]
    result = run_cli("train", "-m", *arguments, cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    for job in ("0", "1"):
        assert (tmp_path / "sweep" / job / "metrics.json").is_file()
