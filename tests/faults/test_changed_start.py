"""A run whose ``method.start``, another run, has changed since it was trained."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from shutil import copytree

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.loading import load_inverter
from tests.faults.small import build, run, warm_up


def other_weights(first: Path) -> None:
    checkpoint = torch.load(first / "checkpoints" / "last.ckpt", weights_only=True)
    name = next(name for name in checkpoint["state_dict"] if name.startswith("encoder.") and name.endswith("weight"))
    checkpoint["state_dict"][name] += 1
    torch.save(checkpoint, first / "checkpoints" / "last.ckpt")


def other_steps(first: Path) -> None:
    text = (first / "config.yaml").read_text()
    assert text.count("iterations: 5") == 1
    (first / "config.yaml").write_text(text.replace("iterations: 5", "iterations: 1"))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs")
    warm_up()
    run("restyle", folder / "first", "trainer.max_steps=1", "trainer.val_check_interval=1")
    for method in ("restyle", "image2stylegan"):
        more = ["trainer.max_steps=1"] if method == "restyle" else ["trainer.limit_val_batches=1"]
        run(method, folder / method, f"method.start='{folder / 'first'}'", "trainer.val_check_interval=1", *more)
    return folder


@pytest.mark.parametrize("change", [None, other_weights, other_steps])
@pytest.mark.parametrize("method", ["restyle", "image2stylegan"])
def test_a_start_that_has_changed(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, method: str, change: Callable[[Path], None] | None
) -> None:
    before = tmp_path / "before"
    trained.rename(before)
    copytree(before, trained)
    try:
        run_dir, first = trained / method, trained / "first"
        resumed = [method, run_dir, f"method.start='{first}'", "trainer.max_steps=2", "trainer.val_check_interval=1"]
        resumed += ["trainer.limit_val_batches=1"] if method != "restyle" else []
        if change is None:
            load_inverter(run_dir)
            assert build(*resumed)[1].location.ckpt_path is not None  # type: ignore[arg-type]
            return
        change(first)
        for command in (lambda: load_inverter(run_dir), lambda: build(*resumed)):  # type: ignore[arg-type]
            with pytest.raises(UserError, match="method.start") as error:
                command()
            assert "last.ckpt" in str(error.value) and "\n" not in str(error.value)
    finally:
        trained.rename(tmp_path / "after")
        before.rename(trained)
