"""Options of an encoder's training: accumulation, clipping, schedules, moving average, precision, compilation."""

from __future__ import annotations

import copy
import functools
import math
import shutil
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import EMAWeightAveraging
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor
from torch.utils.data import DataLoader

from stylegan_inv.methods.e4e import E4E
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.optim.schedules import ProgressiveStages, warmup_cosine
from tests.methods.test_encoder_methods import adversary, loader, make

SGD = torch.optim.SGD


def fit(method: Any, folder: Path, steps: int, data: DataLoader[Any] | None = None, **kwargs: Any) -> pl.Trainer:
    trainer = pl.Trainer(
        max_steps=steps, max_epochs=-1, accelerator="cpu", logger=False, enable_checkpointing=False,
        enable_progress_bar=False, enable_model_summary=False, default_root_dir=folder, **kwargs,
    )  # fmt: skip
    trainer.fit(method, data or loader())
    return trainer


def weights(method: Any) -> dict[str, Tensor]:
    return {name: value.detach().clone() for name, value in method.encoder.named_parameters()}


def test_accumulated_batches_are_one_batch(tmp_path: Path) -> None:
    whole, halves = make(PSP, optimizer=sgd), make(PSP, optimizer=sgd, accumulate_batches=2)
    fit(whole, tmp_path, 2)
    assert fit(halves, tmp_path, 2, loader(batch_size=2)).global_step == 2
    for name, value in weights(whole).items():
        torch.testing.assert_close(weights(halves)[name], value, rtol=1e-5, atol=1e-7, msg=name)


def sgd(groups: Any) -> torch.optim.Optimizer:
    return SGD(groups, lr=1.0)


@pytest.mark.parametrize("limit", [1e-3, 1e3])
def test_clipping_limits_the_norm_of_the_step(limit: float, tmp_path: Path) -> None:
    method = make(ReStyle, iterations=2, optimizer=sgd, gradient_clip_norm=limit)
    before, free = weights(method), copy.deepcopy(method)
    free._gradient_clip_norm = None
    fit(method, tmp_path, 1)
    fit(free, tmp_path, 1)
    step = {name: value - before[name] for name, value in weights(method).items()}
    norm = torch.stack([s.square().sum() for s in step.values()]).sum().sqrt()
    unclipped = {name: value - before[name] for name, value in weights(free).items()}
    full = torch.stack([s.square().sum() for s in unclipped.values()]).sum().sqrt()
    assert float(norm) == pytest.approx(min(limit, float(full)), rel=1e-3)
    for name, value in step.items():
        torch.testing.assert_close(value, unclipped[name] * (norm / full), rtol=1e-3, atol=1e-8)


class Record(pl.Callback):
    def __init__(self) -> None:
        self.seen: list[dict[str, Tensor]] = []

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:
        self.seen.append(weights(pl_module))


def test_checkpoints_contain_the_moving_average(tmp_path: Path) -> None:
    method, record = make(PSP), Record()
    start = weights(method)
    trainer = pl.Trainer(
        max_steps=5, max_epochs=-1, accelerator="cpu", logger=False, enable_progress_bar=False,
        enable_model_summary=False, default_root_dir=tmp_path,
        callbacks=[
            record, EMAWeightAveraging(decay=0.5), pl.callbacks.ModelCheckpoint(tmp_path, "five", every_n_train_steps=5)
        ],
    )  # fmt: skip
    trainer.fit(method, loader())
    saved = torch.load(tmp_path / "five.ckpt", weights_only=True)
    raw = saved["current_model_state"]
    # The average starts as a copy of the weights after the first step.
    expected = record.seen[0]
    for now in record.seen[1:]:
        expected = {name: 0.5 * value + 0.5 * now[name] for name, value in expected.items()}
    for name, value in expected.items():
        torch.testing.assert_close(saved["state_dict"][f"encoder.{name}"], value, msg=name)
        assert torch.equal(raw[f"encoder.{name}"], record.seen[-1][name])
        assert not torch.equal(value, start[name])


@pytest.mark.parametrize("kind", [PSP, ReStyle, E4E])
def test_bfloat16_keeps_float32_weights_near_those_of_full_precision(kind: type, tmp_path: Path) -> None:
    extra = {"adversary": adversary, "stages": ProgressiveStages(0, 1)} if kind is E4E else {}
    full, mixed = make(kind, **extra), make(kind, **extra)
    start = weights(full)
    fit(full, tmp_path, 4)
    fit(mixed, tmp_path, 4, precision="bf16-mixed")
    moved = torch.stack([(value - start[name]).norm() for name, value in weights(full).items()]).norm()
    apart = torch.stack([(value - weights(full)[name]).norm() for name, value in weights(mixed).items()]).norm()
    assert 0 < apart < 0.5 * moved
    assert all(value.dtype == torch.float32 for value in weights(mixed).values())


@pytest.mark.slow
@pytest.mark.skipif(shutil.which("g++") is None, reason="torch.compile needs a C++ compiler on the CPU")
def test_compiled_training_is_the_same_training(tmp_path: Path) -> None:
    plain, compiled = make(PSP), make(PSP, compile_trained=True)
    fit(plain, tmp_path, 2)
    fit(compiled, tmp_path, 2)
    assert plain.state_dict().keys() == compiled.state_dict().keys()
    for name, value in weights(plain).items():
        torch.testing.assert_close(weights(compiled)[name], value, rtol=1e-3, atol=1e-5, msg=name)


def test_schedule_follows_the_steps_and_is_resumed(tmp_path: Path) -> None:
    """The schedule takes a step per optimiser step, not per batch."""
    schedule = functools.partial(warmup_cosine, total_steps=6, warmup_steps=2, end_factor=0.1)
    method = make(PSP, optimizer=functools.partial(SGD, lr=0.5), scheduler=schedule, accumulate_batches=2)
    rates = []
    step = method.on_step
    method.on_step = lambda number: (rates.append(method.optimizers().param_groups[0]["lr"]), step(number))[1]
    trainer = fit(method, tmp_path, 6)
    cosine = [0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * k / 4)) for k in range(4)]
    expected = [0.5 * share for share in (0.5, 1.0, *cosine)]
    assert rates == pytest.approx([rate for rate in expected for _ in range(2)])
    trainer.save_checkpoint(tmp_path / "six.ckpt")
    state = torch.load(tmp_path / "six.ckpt", weights_only=True)
    assert state["lr_schedulers"][0]["last_epoch"] == 6


def half(scale: float) -> MixedPrecision:
    """float16 with loss scaling, as on a GPU."""
    return MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu", init_scale=scale, growth_interval=1000))


@pytest.mark.parametrize("kind", [PSP, ReStyle, E4E])
def test_float16_clips_the_unscaled_gradient(kind: type, tmp_path: Path) -> None:
    extra: dict[str, Any] = {"adversary": adversary, "stages": ProgressiveStages(0, 1)} if kind is E4E else {}
    extra |= {"optimizer": sgd, "gradient_clip_norm": 1e-2}
    full, mixed = make(kind, **extra), make(kind, **extra)
    before = weights(full)
    fit(full, tmp_path, 1)
    fit(mixed, tmp_path, 1, plugins=[half(1024.0)])
    steps = [{name: value - before[name] for name, value in weights(m).items()} for m in (full, mixed)]
    for step in steps:
        norm = torch.stack([s.square().sum() for s in step.values()]).sum().sqrt()
        assert float(norm) == pytest.approx(1e-2, rel=1e-2)
    apart = torch.stack([(steps[0][name] - value).norm() for name, value in steps[1].items()]).norm()
    assert 0 < apart < 0.1 * 1e-2
    assert all(value.dtype == torch.float32 for value in weights(mixed).values())


def test_float16_skips_a_step_whose_gradients_overflow(tmp_path: Path) -> None:
    method = make(PSP, optimizer=sgd)
    before, precision = weights(method), half(2.0**120)
    fit(method, tmp_path, 1, plugins=[precision])
    assert all(torch.equal(before[name], value) for name, value in weights(method).items())
    assert precision.scaler is not None and precision.scaler.get_scale() == 2.0**119
