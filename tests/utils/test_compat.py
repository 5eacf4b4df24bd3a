"""Each private hook in `utils.compat` against the installed versions; a test is named after the hook that it checks."""

from __future__ import annotations

import tarfile
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import pytest
import pytorch_lightning as pl
import torch
import wandb
from packaging.requirements import Requirement
from pytorch_lightning.callbacks import ModelCheckpoint
from torch import nn
from torch.utils.data import DataLoader
from torchmetrics import MeanMetric, Metric
from torchmetrics.utilities import dim_zero_cat, dim_zero_sum

from stylegan_inv.utils import compat
from tests.callbacks import wandb_file
from tests.cli import REPOSITORY

BATCHES = 4


class Module(pl.LightningModule):
    """A regression that logs ``rare`` in its first step only."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Linear(2, 1)
        self.validations = 0

    def training_step(self, batch: torch.Tensor, batch_idx: int) -> torch.Tensor:
        if self.global_step == 0:
            self.log("rare", 1.0)
        self.log("loss", loss := self.layer(batch).square().mean())
        return loss

    def validation_step(self, batch: torch.Tensor, batch_idx: int) -> None:
        self.validations += 1

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), lr=0.1)

    def train_dataloader(self) -> DataLoader:
        return DataLoader(torch.ones(BATCHES * 2, 2), batch_size=2)

    def val_dataloader(self) -> DataLoader:
        return DataLoader(torch.ones(2, 2), batch_size=2)


class After(pl.Callback):
    """Calls a function after each training batch and keeps what it returns."""

    def __init__(self, function: Callable[[pl.Trainer], Any]) -> None:
        self.function, self.found = function, []

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:
        self.found.append(self.function(trainer))


def trainer(*callbacks: pl.Callback, **options: Any) -> pl.Trainer:
    common = {"accelerator": "cpu", "logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    checkpointing = any(isinstance(callback, ModelCheckpoint) for callback in callbacks)
    defaults = {"max_epochs": 1, "num_sanity_val_steps": 0, "enable_checkpointing": checkpointing}
    return pl.Trainer(callbacks=list(callbacks), **{**common, **defaults, **options})


def fit(function: Callable[[pl.Trainer], Any], *callbacks: pl.Callback, **options: Any) -> list[Any]:
    """What a function returns after each batch of a training."""
    after = After(function)
    trainer(after, *callbacks, **options).fit(Module())
    return after.found


# -- PyTorch -----------------------------------------------------------------------------------------------------------


def test_bounded_tar_info(tmp_path: Path) -> None:
    with tarfile.open(tmp_path / "a.tar", "w", format=tarfile.PAX_FORMAT) as archive:
        archive.addfile(tarfile.TarInfo("\u00e9" * 99))
    with tarfile.open(tmp_path / "a.tar", tarinfo=compat.BoundedTarInfo) as archive:
        assert archive.getnames() == ["\u00e9" * 99]


def test_norms() -> None:
    tensors = [torch.randn(3, 4), torch.randn(5)]
    torch.testing.assert_close(compat.norms(tensors), torch.tensor([float(t.norm()) for t in tensors]))


def test_batch_norm_buffers() -> None:
    network = nn.Sequential(
        nn.BatchNorm1d(2), nn.Linear(2, 2), nn.BatchNorm3d(4), nn.SyncBatchNorm(3), nn.GroupNorm(1, 2)
    )
    assert sorted(b.numel() for b in compat.batch_norm_buffers(network)) == [1, 1, 1, 2, 2, 3, 3, 4, 4]


def test_inside_functorch() -> None:
    found = []
    torch.func.vmap(lambda x: (found.append(compat.inside_functorch()), x)[1])(torch.ones(2))
    assert found == [True] and not compat.inside_functorch()


def test_inside_forward_ad() -> None:
    with torch.autograd.forward_ad.dual_level():
        assert compat.inside_forward_ad()
    assert not compat.inside_forward_ad()


def test_is_plain_cpu_tensor() -> None:
    found = []

    class Double(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            return 2 * x

        @staticmethod
        def backward(ctx: Any, grad: torch.Tensor) -> torch.Tensor:
            found.append(compat.is_plain_cpu_tensor(grad))
            return 2 * grad

    x = torch.ones(3, requires_grad=True)
    torch.autograd.grad(Double.apply(x), x, torch.eye(3), is_grads_batched=True)
    torch.autograd.grad(Double.apply(x), x, torch.ones(3))
    assert found == [False, True]
    assert not compat.is_plain_cpu_tensor(torch.ones(1, device="meta"))


@pytest.mark.parametrize(
    "register",
    ["register_forward_hook", "register_forward_pre_hook", "register_full_backward_hook",
     "register_full_backward_pre_hook"],
)  # fmt: skip
def test_has_hooks(register: str) -> None:
    layer = nn.Linear(1, 1)
    assert not compat.has_hooks([layer])
    handle = getattr(layer, register)(lambda *args: None)
    assert compat.has_hooks([nn.Linear(1, 1), layer])
    handle.remove()
    assert not compat.has_hooks([layer])


def test_has_hooks_of_all_modules() -> None:
    with nn.modules.module.register_module_forward_hook(lambda *args: None):
        assert compat.has_hooks([nn.Linear(1, 1)])
    assert not compat.has_hooks([nn.Linear(1, 1)])


@pytest.mark.parametrize("keep", [True, False])
def test_backward_keeps_graph(keep: bool) -> None:
    found = []
    x = torch.ones(1, requires_grad=True)
    x.register_hook(lambda grad: found.append(compat.backward_keeps_graph()))
    (2 * x).sum().backward(retain_graph=keep)
    assert found == [keep]


# -- Lightning ---------------------------------------------------------------------------------------------------------


def test_finished_batches() -> None:
    counts = fit(lambda t: (compat.finished_batches(t), t.global_step), accumulate_grad_batches=2)
    assert counts == [(1, 0), (2, 1), (3, 1), (4, 2)]


def test_finished_steps() -> None:
    class Manual(Module):
        def __init__(self) -> None:
            super().__init__()
            self.automatic_optimization = False

        def training_step(self, batch: torch.Tensor, batch_idx: int) -> None:
            for _ in range(3):
                self.optimizers().step()

    for module, steps in ((Module(), [1, 2, 3, 4]), (Manual(), [3, 6, 9, 12])):
        after = After(lambda t, module=module: (compat.finished_steps(t, module), t.global_step))
        trainer(after).fit(module)
        assert after.found == [(step, step) for step in steps]


def test_validation_interval() -> None:
    by_batches = {"val_check_interval": 2, "check_val_every_n_epoch": None}
    assert fit(compat.validation_interval, **by_batches) == [2] * BATCHES
    assert fit(compat.validation_interval, limit_val_batches=0, **by_batches) == [None] * BATCHES
    assert fit(compat.validation_interval) == [None] * BATCHES, "by epochs"


@pytest.mark.parametrize("reset", [True, False])
def test_reset_step_metrics(reset: bool) -> None:
    class Reset(pl.Callback):
        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            if reset:
                compat.reset_step_metrics(trainer)

    class Logged(pl.loggers.logger.DummyLogger):
        rows: list[dict[str, float]] = []

        def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
            self.rows.append(metrics)

    logged = Logged()
    logged.rows = []
    trainer(Reset(), logger=logged, log_every_n_steps=1).fit(Module())
    rows = [row for row in logged.rows if "loss" in row]
    # Without the hook Lightning repeats the value of the first step in each step.
    assert [bool(row.get("rare")) for row in rows] == [True, *[not reset] * (BATCHES - 1)]


def test_run_validation() -> None:
    class AtStart(pl.Callback):
        def on_train_start(self, trainer: pl.Trainer, module: Any) -> None:
            compat.run_validation(trainer)

    found = fit(lambda t: (t.lightning_module.validations, t.training), AtStart(), check_val_every_n_epoch=2)
    assert found == [(1, True)] * BATCHES


def test_is_fast_dev_run() -> None:
    assert compat.is_fast_dev_run(trainer(fast_dev_run=True)) is True
    assert compat.is_fast_dev_run(trainer()) is False


def test_launched_processes() -> None:
    assert compat.launched_processes(trainer()) == []
    several = trainer(strategy="ddp", devices=2)
    several.strategy._configure_launcher()
    assert compat.launched_processes(several) == []
    process = object()
    several.strategy.launcher.procs.append(process)  # type: ignore[union-attr]
    assert compat.launched_processes(several) == [process]


def test_is_launched_by_lightning(monkeypatch: pytest.MonkeyPatch) -> None:
    assert compat.is_launched_by_lightning(trainer(strategy="ddp", devices=2))
    assert not compat.is_launched_by_lightning(trainer())
    torchrun = "RANK WORLD_SIZE LOCAL_RANK GROUP_RANK LOCAL_WORLD_SIZE TORCHELASTIC_RUN_ID MASTER_ADDR MASTER_PORT"
    for name, value in zip(torchrun.split(), "0 2 0 0 2 1 localhost 1".split(), strict=True):
        monkeypatch.setenv(name, value)
    assert not compat.is_launched_by_lightning(trainer(strategy="ddp", devices=2))


def test_has_grad_scaler() -> None:
    assert not compat.has_grad_scaler(trainer(precision="bf16-mixed"))
    scaled = trainer()
    scaled.strategy.precision_plugin = pl.plugins.MixedPrecision("16-mixed", "cpu", scaler=torch.amp.GradScaler("cpu"))
    assert compat.has_grad_scaler(scaled)


def checkpoint(folder: Path) -> ModelCheckpoint:
    return ModelCheckpoint(folder, save_last=True, save_top_k=0, every_n_train_steps=2, enable_version_counter=False)


@pytest.mark.parametrize("form", ["one", "list", "two lists", "dict", "with an interval", "none"])
def test_optimizers_and_schedulers(form: str) -> None:
    module = Module()
    optimizer = torch.optim.SGD(module.parameters(), lr=0.1)
    scheduler = torch.optim.lr_scheduler.ConstantLR(optimizer)
    configured: Any = {
        "one": optimizer,
        "list": [optimizer],
        "two lists": ([optimizer], [scheduler]),
        "dict": {"optimizer": optimizer, "lr_scheduler": scheduler},
        "with an interval": ([optimizer], [{"scheduler": scheduler, "interval": "step"}]),
        "none": None,
    }[form]
    optimizers, schedulers = compat.optimizers_and_schedulers(configured)
    assert optimizers == ([] if form == "none" else [optimizer])
    assert schedulers == ([] if form in ("one", "list", "none") else [scheduler])


def test_skips_checkpoint(tmp_path: Path) -> None:
    callback = checkpoint(tmp_path)
    # Called before the callback itself, which saves after steps 2 and 4.
    assert fit(lambda t: compat.skips_checkpoint(callback, t), callback) == [False, False, False, False]
    callback = checkpoint(tmp_path)
    assert fit(lambda t: compat.skips_checkpoint(callback, t), callback, fast_dev_run=2) == [True, True]


def test_save_last_checkpoint(tmp_path: Path) -> None:
    callback = ModelCheckpoint(tmp_path, save_last=True, save_top_k=0, every_n_train_steps=1000)
    fit(lambda t: compat.save_last_checkpoint(callback, t) if t.global_step == 3 else None, callback)
    assert torch.load(tmp_path / "last.ckpt", weights_only=True)["global_step"] == 3


def test_has_saved_step_and_mark_step_saved(tmp_path: Path) -> None:
    callback = checkpoint(tmp_path)

    class AtStart(pl.Callback):
        found: list[bool] = []

        def on_train_batch_start(self, trainer: pl.Trainer, *args: Any) -> None:
            self.found.append(compat.has_saved_step(callback, trainer))

    at_start = AtStart()
    at_start.found = []
    fit(lambda t: None, callback, at_start)
    assert at_start.found == [False, False, True, False], "saved after step 2"

    callback, at_start.found = checkpoint(tmp_path / "marked"), []
    fit(lambda t: compat.mark_step_saved(callback, t), callback, at_start)
    assert at_start.found == [False] * BATCHES, "step 2 needs no checkpoint"


def test_model_checkpoint_saves_through_the_method_that_checkpoints_overrides(tmp_path: Path) -> None:
    class Counting(ModelCheckpoint):
        calls = 0

        def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
            self.calls += 1
            super()._save_checkpoint(trainer, filepath)

    callback = Counting(tmp_path, save_last=True, save_top_k=0, every_n_train_steps=2)
    fit(lambda t: None, callback)
    assert callback.calls == 2


# -- torchmetrics and wandb --------------------------------------------------------------------------------------------


class TwoStates(Metric):
    def __init__(self) -> None:
        super().__init__()
        self.add_state("rows", [], dist_reduce_fx="cat")
        self.add_state("total", torch.zeros(1), dist_reduce_fx="sum")

    def update(self) -> None: ...

    def compute(self) -> torch.Tensor:
        return self.total


def test_state_reductions() -> None:
    assert dict(compat.state_reductions(TwoStates())) == {"rows": dim_zero_cat, "total": dim_zero_sum}


def test_mark_updated(recwarn: pytest.WarningsRecorder) -> None:
    metric = MeanMetric()
    metric.update(1.0)
    assert metric.compute() == 1
    metric.mean_value, metric.weight = torch.tensor(6.0), torch.tensor(2.0)
    assert metric.compute() == 1, "the earlier result is cached"
    compat.mark_updated(metric)
    assert metric.compute() == 3
    fresh = TwoStates()
    compat.mark_updated(fresh)
    fresh.compute()
    assert not [w for w in recwarn if "before the ``update``" in str(w.message)]


def test_use_artifact_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_SILENT", "true")
    run = wandb.init(mode="offline", dir=str(tmp_path), project="compat")
    artifact = wandb.Artifact("generator", type="generator", metadata={"a": 1})
    compat.use_artifact_offline(run, artifact)
    run.finish()
    wandb_file.wait_for_end(tmp_path)
    (recorded,) = wandb_file.artifacts(tmp_path)
    assert recorded.name == "generator" and recorded.use_after_commit


# -- versions ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "excluded"), [("pytorch-lightning", "2.7.0"), ("torch", "3.0.0"), ("torchmetrics", "2.0")]
)
def test_versions_with_other_hooks_are_excluded(name: str, excluded: str) -> None:
    tomllib = pytest.importorskip("tomllib")  # Python 3.11
    project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
    (requirement,) = [r for r in map(Requirement, project["dependencies"]) if r.name == name]
    assert requirement.specifier.contains(metadata.version(name)) and not requirement.specifier.contains(excluded)
    if name == "pytorch-lightning":
        assert not any(requirement.specifier.contains(version) for version in ("2.6.2", "2.6.3"))
