"""Private parts of PyTorch, Lightning, torchmetrics and wandb that this package depends on, one function each.

``pyproject.toml`` caps Lightning below the next minor version and PyTorch below the next major one because of this
file. ``tests/utils/test_compat.py`` checks each function against the installed versions and names the one that broke.
All functions were last checked with torch 2.14, pytorch-lightning 2.6.6, torchmetrics 1.9 and wandb 0.31.
"""

from __future__ import annotations

import re
import subprocess
import tarfile
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module
from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    import pytorch_lightning as pl
    from pytorch_lightning.callbacks import ModelCheckpoint
    from torchmetrics import Metric

_MOST_PAX_BYTES = 1 << 20

# -- PyTorch -----------------------------------------------------------------------------------------------------------


def norms(tensors: Sequence[Tensor]) -> Tensor:
    """Returns the Euclidean norm of each tensor, (N,), in few kernel launches.

    ``torch._foreach_norm`` is what ``torch.nn.utils.clip_grad_norm_`` calls.
    """
    return torch.stack(torch._foreach_norm(list(tensors)))


def batch_norm_buffers(module: nn.Module) -> list[Tensor]:
    """Returns the running statistics and counters of all batch norms in a module.

    ``_BatchNorm`` is the common base class of ``BatchNorm1d`` to ``BatchNorm3d`` and ``SyncBatchNorm``.
    """
    found = (part for part in module.modules() if isinstance(part, _BatchNorm))
    return [buffer for part in found for buffer in part.buffers(recurse=False)]


def inside_functorch() -> bool:
    """Returns whether a transform of ``torch.func`` (``vmap``, ``grad``, ...) is active."""
    return torch._C._functorch.peek_interpreter_stack() is not None


def inside_forward_ad() -> bool:
    """Returns whether a level of forward-mode differentiation is active."""
    return forward_ad._current_level >= 0


def is_plain_cpu_tensor(tensor: Tensor) -> bool:
    """Returns whether a tensor is in the memory of the CPU and not a batch of ``is_grads_batched=True``."""
    return bool(torch._C._dispatch_keys(tensor).has(torch._C.DispatchKey.CPU))


def has_hooks(modules: Iterable[nn.Module]) -> bool:
    """Returns whether any module, or all modules, have forward or backward hooks."""
    if nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks:
        return True
    return any(
        part._forward_hooks or part._forward_pre_hooks or part._backward_hooks or part._backward_pre_hooks
        for part in modules
    )


def backward_keeps_graph() -> bool:
    """Returns, within a backward pass, whether its graph is kept (``retain_graph=True``); True if unknown."""
    keeps_graph = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if keeps_graph is None else bool(keeps_graph())


# -- Lightning: the loops ----------------------------------------------------------------------------------------------


def finished_batches(trainer: pl.Trainer) -> int:
    """Returns the number of training batches that are finished, over all resumed runs.

    ``trainer.global_step`` counts optimiser steps: one for several accumulated batches, and one per optimiser of a GAN.
    This number increases right after the optimiser step, before any callback can save a checkpoint.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(progress.processed)


def finished_steps(trainer: pl.Trainer, module: pl.LightningModule) -> int:
    """Returns ``trainer.global_step`` of a training of a module, by which checkpoints count, before it begins."""
    loop = trainer.fit_loop.epoch_loop
    if module.automatic_optimization:
        return int(loop.automatic_optimization.optim_progress.optimizer_steps)
    return int(loop.manual_optimization.optim_step_progress.total.completed)


def validation_interval(trainer: pl.Trainer) -> int | None:
    """Returns the number of training batches between validations; None if validation does not run by batches."""
    if trainer.check_val_every_n_epoch is not None or not trainer.enable_validation:
        return None
    every = getattr(trainer, "val_check_batch", None)  # set when the data loaders are, and inf without validation data
    return every if isinstance(every, int) else None


def reset_step_metrics(trainer: pl.Trainer) -> None:
    """Forgets the values that earlier training steps logged.

    Lightning logs the last value of a metric again in each step that does not log it. A resumed run does not know that
    value, so it would log other numbers than an uninterrupted one.
    """
    for result in trainer.fit_loop.epoch_loop._results.values():
        if result.meta.fx == "training_step" and not result.meta.on_epoch:
            result.reset()


def run_validation(trainer: pl.Trainer) -> None:
    """Runs the validation loop of a training once, as the training loop does it."""
    loop = trainer.fit_loop.epoch_loop.val_loop
    loop.restarting = False
    trainer.validating = True
    loop.run()
    trainer.training = True


def is_fast_dev_run(trainer: pl.Trainer) -> bool:
    """Returns whether the trainer runs a single batch and writes nothing; set in an initialisation helper."""
    return bool(trainer.fast_dev_run)  # type: ignore[attr-defined]


# -- Lightning: processes and precision --------------------------------------------------------------------------------


def launched_processes(trainer: pl.Trainer) -> list[subprocess.Popen[Any]]:
    """Returns the ranks that this process has started; empty in those ranks, and under torchrun or SLURM."""
    return list(getattr(trainer.strategy.launcher, "procs", None) or [])


def is_launched_by_lightning(trainer: pl.Trainer) -> bool:
    """Returns whether Lightning itself starts the ranks, whose first rank then watches the others."""
    from pytorch_lightning.plugins.environments import LightningEnvironment

    return isinstance(getattr(trainer.strategy, "cluster_environment", None), LightningEnvironment)


def has_grad_scaler(trainer: pl.Trainer) -> bool:
    """Returns whether gradients are scaled (float16), so that infinite ones are skipped by the scaler."""
    return getattr(trainer.precision_plugin, "scaler", None) is not None


def optimizers_and_schedulers(configured: Any) -> tuple[list[torch.optim.Optimizer], list[Any]]:
    """Returns the optimisers and schedulers in a result of ``configure_optimizers``, in the order of checkpoints."""
    from pytorch_lightning.core.optimizer import _configure_optimizers

    if configured is None:
        return [], []
    optimizers, schedulers, _ = _configure_optimizers(configured)
    return optimizers, [entry["scheduler"] if isinstance(entry, dict) else entry for entry in schedulers]


# -- Lightning: ModelCheckpoint ----------------------------------------------------------------------------------------


def skips_checkpoint(callback: ModelCheckpoint, trainer: pl.Trainer) -> bool:
    """Returns whether the callback would not save now: fast dev run, sanity check, or this step is saved already."""
    return bool(callback._should_skip_saving_checkpoint(trainer))


def save_last_checkpoint(callback: ModelCheckpoint, trainer: pl.Trainer) -> None:
    """Writes ``last.ckpt`` with the current state."""
    callback._save_last_checkpoint(trainer, callback._monitor_candidates(trainer))


def has_saved_step(callback: ModelCheckpoint, trainer: pl.Trainer) -> bool:
    """Returns whether the callback has written a checkpoint after the current optimiser step."""
    return callback._last_global_step_saved == trainer.global_step and bool(callback._last_checkpoint_saved)


def mark_step_saved(callback: ModelCheckpoint, trainer: pl.Trainer) -> None:
    """Tells the callback that the current step needs no checkpoint, because the training resumes from it."""
    callback._last_global_step_saved = trainer.global_step


# -- torchmetrics ------------------------------------------------------------------------------------------------------


def state_reductions(metric: Metric) -> Mapping[str, Any]:
    """Returns the function that reduces each state of a metric over ranks, by the state's name."""
    return metric._reductions


def mark_updated(metric: Metric) -> None:
    """Tells a metric that its states were set from outside.

    `compute` then neither warns that `update` was not called, nor returns an earlier result.
    """
    metric._update_count = max(1, metric._update_count)
    metric._computed = None


# -- wandb -------------------------------------------------------------------------------------------------------------


def use_artifact_offline(run: Any, artifact: Any) -> None:
    """Records that an offline run uses an artifact, for ``wandb sync`` to act on.

    ``run.use_artifact`` waits for the server. This call writes the same record, and does not wait.
    """
    run._log_artifact(artifact, is_user_created=True, use_after_commit=True)


# -- Python ------------------------------------------------------------------------------------------------------------


class BoundedTarInfo(tarfile.TarInfo):
    """A member of a tar file whose extended header tarfile can read in a short time.

    Python before 3.11.10 and 3.12.6 searches the header in quadratic time where it is a long number (CVE-2024-6232): a
    file of 2 MB keeps it busy for hours. No header of real archives has more than a few kB.
    """

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        assert archive.fileobj is not None
        if self.size > _MOST_PAX_BYTES:
            raise tarfile.ReadError(f"an extended header of {self.size:,} bytes")
        place = archive.fileobj.tell()
        if re.search(rb"[0-9]{64}", archive.fileobj.read(self.size)):
            raise tarfile.ReadError("an extended header with a number of more than 63 digits")
        archive.fileobj.seek(place)
        header: tarfile.TarInfo = super()._proc_pax(archive)  # type: ignore[misc]
        return header
