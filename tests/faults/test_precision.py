"""Lower precision: numbers stay finite, and a loss scale that is too large only costs steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.plugins import MixedPrecision

from tests.faults.small import differences, run, state
from tests.faults.test_non_finite import finite


class Half(pl.Callback):
    """Sets up what trainer.precision=16-mixed is on a GPU. The first two loss scales are too large."""

    def setup(self, trainer: pl.Trainer, *args: Any, **kwargs: Any) -> None:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**58, backoff_factor=2.0**-24)
        trainer.strategy.precision_plugin = MixedPrecision("16-mixed", "cpu", scaler)

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        weights = {name: value.clone() for name, value in module.state_dict().items()}
        torch.save(weights, Path(trainer.default_root_dir, f"weights{trainer.global_step}"))


def test_steps_under_a_loss_scale_that_is_too_large_are_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    folder = tmp_path / "run"
    run("psp", folder, "+callbacks.half={_target_: tests.faults.test_precision.Half}", "trainer.max_steps=4")
    weights = [torch.load(folder / f"weights{step}") for step in (1, 2, 3, 4)]
    assert not differences(weights[0], weights[1]), "skipped, and so was the one before"
    assert differences(weights[1], weights[2]) and differences(weights[2], weights[3])
    checkpoint = state(folder)
    assert checkpoint["MixedPrecision"]["scale"] == 2.0**10, "a resumed run continues with it"
    assert finite(checkpoint["state_dict"]) and finite(checkpoint["optimizer_states"])
    assert "not finite" not in caplog.text, "this is normal"


def test_bfloat16_is_finite(tmp_path: Path) -> None:
    run("psp", tmp_path / "run", "trainer.precision=bf16-mixed", "trainer.max_steps=3")
    checkpoint = state(tmp_path / "run")
    assert finite(checkpoint["state_dict"]) and finite(checkpoint["optimizer_states"])
    assert all(value.dtype == torch.float32 for value in checkpoint["state_dict"].values())
