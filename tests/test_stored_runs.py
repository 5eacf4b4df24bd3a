"""Run folders and checkpoints of version 0.1 load, evaluate and resume with the numbers that version 0.1 computed."""

from __future__ import annotations

import csv
import json
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig

from stylegan_inv import train
from stylegan_inv.config import CONF_DIR
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.loading import load_inverter
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.runtime.run_location import select_location
from stylegan_inv.runtime.same_command import is_same_command
from tests.cli import call

STORED = Path(__file__).parent / "stored_runs"
EXPECTED = json.loads((STORED / "expected.json").read_text())
RUNS = sorted(EXPECTED["runs"])
UNFINISHED, LOOSE = "restyle_unfinished", "loose/interestyle_step_4.ckpt"


def assert_close(found: Any, expected: Any, kind: str) -> None:
    """The measure of tests/stored_runs/README.md: |found - expected| / (1 + |expected|)."""
    found, expected = (torch.as_tensor(value, dtype=torch.float64) for value in (found, expected))
    error = ((found - expected).abs() / (1 + expected.abs())).max().item()
    assert error <= EXPECTED["tolerance"][kind], error


@pytest.fixture(scope="module")
def images() -> torch.Tensor:
    """The first four test images of SynthFaces."""
    items = SynthFaces(64, seed=2, size=4).__getitems__(range(4))
    batch = torch.stack([item["image"] for item in items])
    assert_close(batch.double().sum(), EXPECTED["input_sum"], "inversion")
    return batch


def config(options: list[str], root: Path, *more: str) -> DictConfig:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        return compose("train", overrides=[*options, f"paths.output_root='{root}'", *more])


def run_config(name: str, run_dir: Path, *more: str) -> DictConfig:
    """The config of a command of tests/stored_runs/README.md."""
    options = [o for o in EXPECTED["resumed"][name]["options"] if not re.match("ckpt_path|resume|hydra|paths", o)]
    return config(options, run_dir.parents[1], f"paths.run_dir='{run_dir}'", *more)


@pytest.mark.parametrize("name", RUNS)
def test_inversion(name: str, images: torch.Tensor) -> None:
    expected = EXPECTED["runs"][name]["inversion"]
    method = load_inverter(STORED / name)
    assert type(method).__name__ == expected["class"] and method.input_size == 64
    inversion = method.invert(images)
    assert list(inversion.w.shape) == expected["w_shape"]
    assert_close(inversion.w[:, 0, :5], expected["w_values"], "inversion")
    assert_close(inversion.image[:, :, 32, 32], expected["image_values"], "inversion")
    assert_close((inversion.image - images).square().mean((1, 2, 3)), expected["mse"], "inversion")
    for sums in (
        (inversion.w.double().abs().sum(), expected["w_abs_sum"]),
        (
            inversion.image.double().abs().sum(),
            expected["image_abs_sum"],
        ),
    ):
        assert_close(*sums, "inversion")


@pytest.mark.parametrize("name", RUNS)
def test_evaluation(name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["split=val", "max_images=4", "quantise=false", "device=cpu", "speed.seconds=0"]
    call(monkeypatch, evaluate, f"run={STORED / name}", *arguments, f"output={tmp_path / 'out'}")
    found = json.loads((tmp_path / "out" / "metrics.json").read_text())["metrics"]
    expected = EXPECTED["runs"][name]["evaluation"]
    means = {metric: summary["mean"] for metric, summary in found.items()}
    assert means.keys() == expected.keys() | {"nscd"}  # which joined the evaluation later
    for metric, value in expected.items():
        assert_close(means[metric], value, "evaluation")


def assert_resumed(name: str, run_dir: Path, metrics: dict[str, float]) -> None:
    expected = EXPECTED["resumed"][name]
    checkpoint = torch.load(run_dir / "checkpoints" / "last.ckpt", weights_only=True)
    assert checkpoint["global_step"] == expected["global_step"]
    assert len(checkpoint["state_dict"]) == expected["state_dict_keys"]
    total = sum(t.double().abs().sum() for t in checkpoint["state_dict"].values() if isinstance(t, torch.Tensor))
    assert_close(total, expected["state_dict_abs_sum"], "resumed")
    for metric, value in expected["metrics"].items():
        assert_close(metrics[metric], value, "resumed")
    with open(run_dir / "metrics.csv", newline="") as file:
        losses = {int(row["step"]): row["train/loss/total"] for row in csv.DictReader(file) if row["train/loss/total"]}
    first = expected["from_step"] if name == LOOSE else 0  # a loose checkpoint has no metrics.csv to continue
    assert sorted(losses) == list(range(first, 8))
    for step, loss in losses.items():
        assert_close(float(loss), expected["total_losses"][step], "resumed")


@pytest.mark.slow
@pytest.mark.parametrize("how", ["resume=auto", "same folder"])
def test_resume(how: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "outputs" / "restyle" / "stopped"
    shutil.copytree(STORED / UNFINISHED, run_dir)
    cfg = run_config(UNFINISHED, run_dir, *(["resume=auto"] if how == "resume=auto" else []))
    before = RunFolder(run_dir).record()["command"]
    location = select_location(cfg, tmp_path / "new" if how == "resume=auto" else run_dir, how != "resume=auto")
    assert location.run_dir == run_dir and location.ckpt_path == run_dir / "checkpoints" / "last.ckpt"
    train.train(cfg, train.prepare(cfg))
    assert_resumed(UNFINISHED, run_dir, RunFolder(run_dir).metrics())
    # The record is that of this version now.
    assert RunFolder(run_dir).record()["command"] not in (before, None)
    assert not RunFolder(run_dir).has_old_names() and is_same_command(RunFolder(run_dir), cfg)


@pytest.mark.slow
def test_resume_from_a_loose_checkpoint(tmp_path: Path) -> None:
    run_dir = tmp_path / "outputs" / "interestyle" / "continued"
    cfg = run_config(LOOSE, run_dir, f"ckpt_path='{STORED / LOOSE}'")
    train.train(cfg, train.prepare(cfg))
    assert_resumed(LOOSE, run_dir, RunFolder(run_dir).metrics())


def test_a_loose_checkpoint_is_no_method() -> None:
    with pytest.raises(UserError, match="interestyle_step_4.ckpt"):
        load_inverter(STORED / LOOSE)


def test_a_finished_run_is_recognised(tmp_path: Path) -> None:
    run_dir = tmp_path / "outputs" / "restyle" / "run"
    shutil.copytree(STORED / "restyle", run_dir)
    location = select_location(run_config(UNFINISHED, run_dir), run_dir, named=True)
    assert location.finished
    longer = run_config(UNFINISHED, run_dir, "trainer.max_steps=12")
    assert not select_location(longer, run_dir, named=True).finished


@pytest.mark.parametrize(
    "change",
    [
        "seed=1",
        "dataset.batch_size=3",
        "optimizer.lr=0.002",
        "loss.id.weight=0.2",
        "~loss.id",
        "+loss.more={_target_: stylegan_inv.losses.L2, weight: 1.0}",
        "method.iterations=3",
        "trainer.precision=64-true",
    ],
)
def test_another_command_is_not_continued(change: str, tmp_path: Path) -> None:
    run_dir = tmp_path / "outputs" / "restyle" / "run"
    shutil.copytree(STORED / UNFINISHED, run_dir)
    cfg = run_config(UNFINISHED, run_dir, change)
    assert not is_same_command(RunFolder(run_dir), cfg)
    with pytest.raises(UserError, match="holds another run"):
        select_location(cfg, run_dir, named=True)


def test_what_does_not_change_the_numbers_may_differ(tmp_path: Path) -> None:
    run_dir = tmp_path / "outputs" / "restyle" / "run"
    shutil.copytree(STORED / UNFINISHED, run_dir)
    changes = ("trainer.max_steps=20", "logger=none", "tags=[a]", "dataset.num_workers=1", "+callbacks.more=null")
    assert is_same_command(RunFolder(run_dir), run_config(UNFINISHED, run_dir, *changes))
