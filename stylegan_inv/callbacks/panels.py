"""Draws panels of fixed validation images: input, reconstruction of every step, and difference or target."""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from pytorch_lightning.loggers import WandbLogger
from torch import Tensor

from stylegan_inv.callbacks.gather import inversion_of
from stylegan_inv.methods.common.base import Inversion, InversionMethod, pool
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.compat import is_fast_dev_run
from stylegan_inv.utils.files import TolerantWriter, atomic_write
from stylegan_inv.visualization.contact_sheet import contact_sheet, difference_image


@runtime_checkable
class MakesPanel(Protocol):
    """A module that draws its own panel."""

    def panel_columns(self) -> dict[str, Tensor]:
        """Returns caption -> images (N, 3, H, W) in [-1, 1]."""


class Panels(pl.Callback):
    """Writes ``panels/step_<n>.png`` and ``panels/last.png``, and logs them to wandb.

    Args:
        run_dir: Folder of the run.
        every_n_steps: Optimiser steps between panels; one is drawn at the end of training in any case.
        images: Number of validation images in the panel.
    """

    def __init__(self, run_dir: str, every_n_steps: int = 500, images: int = 8) -> None:
        self._folder = Path(run_dir) / "panels"
        self._every = whole_number("callbacks.panels.every_n_steps", every_n_steps)
        self._count = whole_number("callbacks.panels.images", images)
        self._writer = TolerantWriter()
        self._batch: dict[str, Any] | None = None
        #: First validation batch and its inversion, of methods that are only measured.
        self._measured: tuple[dict[str, Any], Inversion] | None = None

    @property
    def last(self) -> Path:
        """Path of the newest panel."""
        return self._folder / "last.png"

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:  # noqa: D102
        if trainer.global_step % self._every == 0:
            self._draw(trainer, module)

    def on_validation_start(self, *args: Any) -> None:  # noqa: D102
        self._measured = None

    def on_validation_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, module: Any, outputs: Any, batch: Any, *args: Any
    ) -> None:
        # An inversion of these methods takes minutes; the panel shows that of the validation.
        inversion = inversion_of(outputs)
        if self._measured is None and inversion is not None and _is_only_measured(module):
            self._measured = dict(batch), inversion

    def on_validation_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: D102
        if _is_only_measured(module):
            self._draw(trainer, module)
        self._measured = None

    def on_train_end(self, trainer: pl.Trainer, module: Any) -> None:  # noqa: D102
        if trainer.global_step % self._every:
            self._draw(trainer, module)

    @torch.no_grad()
    def _draw(self, trainer: pl.Trainer, module: Any) -> None:
        if not trainer.is_global_zero or is_fast_dev_run(trainer):
            return
        was_training = module.training
        module.eval()
        columns = self._columns(trainer, module)
        module.train(was_training)
        sheet = contact_sheet(columns)
        with self._writer.writing(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            for path in (self._folder / f"step_{trainer.global_step:07d}.png", self.last):
                with atomic_write(path) as temporary:
                    sheet.save(temporary)
        for logger in trainer.loggers:
            if isinstance(logger, WandbLogger):
                logger.log_image("panel", [sheet], step=trainer.global_step)

    def _columns(self, trainer: pl.Trainer, module: Any) -> dict[str, Tensor]:
        if isinstance(module, MakesPanel):
            return module.panel_columns()
        batch, inversion = self._measured or self._inverted(trainer, module)
        source, target = module.source(batch), batch["image"]
        steps = inversion.steps if inversion.steps and len(inversion.steps) > 1 else []
        size = target.shape[-1]
        # In translation tasks the input and the target are different images.
        translates = source is not target
        columns = {"source" if translates else "input": batch.get("shown", source)}
        columns.update({step.name or f"step {n}": pool(step.image, size) for n, step in enumerate(steps, start=1)})
        if not steps:
            columns["reconstruction"] = pool(inversion.image, size)
        if translates:
            columns["target"] = target
        else:
            columns["difference"] = difference_image(pool(inversion.image, size), target)
        return {name: column[: self._count] for name, column in columns.items()}

    def _inverted(self, trainer: pl.Trainer, module: Any) -> tuple[dict[str, Any], Inversion]:
        if self._batch is None:
            data: Any = trainer.datamodule  # type: ignore[attr-defined]
            self._batch = data.panel_batch(self._count)
        batch = {name: x.to(module.device) if isinstance(x, Tensor) else x for name, x in self._batch.items()}
        classes = batch.get("class")
        with contextlib.nullcontext() if classes is None else module.with_classes(classes):
            return batch, module.invert(module.source(batch))


def _is_only_measured(module: Any) -> bool:
    return isinstance(module, InversionMethod) and not isinstance(module, TrainedMethod)
