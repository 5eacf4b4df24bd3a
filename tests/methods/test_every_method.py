"""Every method in conf/method trains and continues from the command line, inverts and evaluates; new ones join."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
import torch

from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.common.per_image import PerImageMethod
from stylegan_inv.runtime.run_folder import RunFolder
from tests.cli import QUICK, REPOSITORY, run_cli

METHODS = sorted(path.stem for path in (REPOSITORY / "conf" / "method").glob("*.yaml"))

# What makes a method small that is not trained on inversions of SynthFaces.
SMALL = {
    "face_network": (
        "dataset.people=8",
        "dataset.val_people=8",
        "dataset.batch_size=8",
        "trainer.val_check_interval=2",
    ),
    "stylegan2": (
        "dataset.train_size=16",
        "dataset.val_size=8",
        "dataset.val_batch_size=8",
        "dataset.batch_size=4",
        "trainer.val_check_interval=2",
    ),
}


# Methods that have nothing to train are measured instead, here with next to no steps.
UNTRAINED = {
    "projector": ("method.steps=3",),
    "image2stylegan": ("method.steps=3",),
    "image2stylegan_pp": ("method.stages.w.steps=3", "method.stages.noise.steps=3"),
    "pti": ("method.start.steps=3", "method.start.lr=0.1", "method.steps=3"),
    "dhr": (
        *("method.coarse.steps=3", "method.steps=3", "method.weight_steps=2"),
        *("method.feature_lr=0.01", "method.weight_lr=1e-4"),
    ),
    "sam": ("method.measure_steps=3", "method.steps=8", "method.lr=0.005", "method.start=average"),
}


@pytest.mark.slow
@pytest.mark.parametrize("method", UNTRAINED)
def test_measures_and_inverts(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = [a for a in QUICK if "panels" not in a]
    result = run_cli("train", f"method={method}", *UNTRAINED[method], *small, "hydra.run.dir=run", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert "trains nothing" in result.stdout
    metrics = json.loads((tmp_path / "run" / "metrics.json").read_text())
    assert metrics["val/mse"] < metrics["val/mse_step1"] and "images_per_second" not in metrics
    assert (tmp_path / "run" / "panels" / "last.png").is_file()
    check_inverts(tmp_path / "run")
    check_evaluates(tmp_path / "run", monkeypatch)


#: Variants of IntereStyle, which repeat it but for a few lines.
_LONG = ("interestyle_dual", "interestyle_released")


@pytest.mark.slow
@pytest.mark.parametrize(
    "method",
    [
        pytest.param(name, marks=pytest.mark.long) if name in _LONG else name
        for name in METHODS
        if name not in UNTRAINED
    ],
)
def test_trains_and_continues(method: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    small = SMALL.get(method) or [a for a in QUICK if "max_steps" not in a and "logger" not in a]
    common = [f"method={method}", "logger=csv", *small]
    start = ("trainer.max_steps=2", "callbacks.codes=null", "hydra.run.dir=first")  # its figure is drawn below
    first = run_cli("train", *common, *start, cwd=tmp_path)
    assert first.returncode == 0, first.stderr
    metrics = json.loads((tmp_path / "first" / "metrics.json").read_text())
    assert any(name.startswith("val/") for name in metrics)
    checkpoint = tmp_path / "first" / "checkpoints" / "last.ckpt"
    second = run_cli(
        "train", *common, "trainer.max_steps=4", f"ckpt_path={checkpoint}", "hydra.run.dir=second", cwd=tmp_path
    )
    assert second.returncode == 0, second.stderr
    state = torch.load(tmp_path / "second" / "checkpoints" / "last.ckpt", weights_only=True)
    assert state["global_step"] == 4
    tensors = [value for value in state["state_dict"].values() if isinstance(value, torch.Tensor)]
    assert all(torch.isfinite(value).all() for value in tensors if value.is_floating_point())
    if method in SMALL:  # no inversion method
        return
    check_inverts(tmp_path / "second")
    check_evaluates(tmp_path / "second", monkeypatch)


def check_inverts(run: Path) -> None:
    faces = torch.stack([item["image"] for item in SynthFaces(resolution=64, seed=7, size=2).__getitems__([0, 1])])
    method = load_inverter(run)
    result = method.invert(faces)
    assert result.w.shape == (2, 10, 192) and result.image.shape == faces.shape
    # What the last validation reached is known with the weights.
    images = 2 if isinstance(method, PerImageMethod) else 4  # those validate one batch
    assert method.reached is not None and (method.reached.images, method.reached.size) == (images, 64)
    smallest, largest = method.reached.quantile(0.0), method.reached.quantile(1.0)
    assert smallest < RunFolder(run).metrics()["val/mse"] < largest
    assert RunFolder(run).record()["distances"] == method.reached.to_plain()


def check_evaluates(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """On its own test images, under obstacles, without the seconds of another process."""
    small = ("max_images=3", "batch_size=2", "speed.seconds=0", "+dataset.obstacles=1.0")
    monkeypatch.setattr(sys, "argv", ["evaluate", f"run={run}", *small])
    evaluate.main()
    result = json.loads((run / "evaluation" / "synthfaces" / "metrics.json").read_text())
    assert result["counts"]["images"] == 3 and result["counts"]["not_finite"] == 0
    for name in ("mse", "mse_interest", "id", "perceptual_interest", "w_distance", "w_spread"):
        summary = result["metrics"][name]
        assert (summary["count"], summary["skipped"]) == (3, 0) and summary["low"] <= summary["mean"] <= summary["high"]
    rows = (run / "evaluation" / "synthfaces" / "per_image.csv").read_text().splitlines()
    assert len(rows) == 4
