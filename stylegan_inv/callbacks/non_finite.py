"""A batch that breaks the loss does not break the training."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from stylegan_inv.callbacks.exact_steps import batch_norms
from stylegan_inv.errors import UserError

_log = logging.getLogger(__name__)


class SkipNonFinite(pl.Callback):
    """Skips optimiser steps whose loss or gradient is NaN or infinite, on all ranks together.

    The step counts (schedules and the order of the data go on) but changes nothing: the gradients are taken away, and
    the running statistics of batch norm are put back. The terms that broke and the images of the batch are named.

    Args:
        abort_after: So many in a row end the training.
    """

    def __init__(self, abort_after: int = 10) -> None:
        self.abort_after = abort_after
        #: Steps skipped so far, also before a resume, and how many of them in a row up to now.
        self.skipped, self._in_a_row = 0, 0
        self._broken: str | None = None
        self._batch: Any = None
        self._statistics: list[Tensor] = []

    def state_dict(self) -> dict[str, int]:  # noqa: D102
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:  # noqa: D102
        self.skipped, self._in_a_row = state_dict["skipped"], state_dict["in_a_row"]

    def on_train_batch_start(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._broken = batch, None
        self._statistics = [buffer.clone() for buffer in batch_norms(module)]

    def on_before_optimizer_step(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        here = self._what_is_broken(trainer, optimizer)
        if trainer.strategy.reduce_boolean_decision(here is None, all=True):
            return
        self._broken = self._broken or here or "on another rank"
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # a step without gradients leaves weights and moments as they are

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        batch, self._batch = self._batch, None
        # A GAN's discriminator steps by itself, with gradients that its method has cleaned.
        self._broken = self._broken or _broken_terms(trainer, "discriminator")
        if self._broken is None:
            self._in_a_row = 0
            return
        self.skipped, self._in_a_row = self.skipped + 1, self._in_a_row + 1
        for buffer, before in zip(batch_norms(module), self._statistics, strict=True):
            buffer.copy_(before)
        said = (
            f"step {trainer.global_step}, rank {trainer.global_rank}: not finite: {self._broken}; "
            f"images {name_images(batch)}; the step was skipped ({self._in_a_row} in a row, {self.skipped} in all)"
        )
        _log.warning("%s", said)
        module.log("perf/skipped_steps", float(self.skipped))
        if self._in_a_row >= self.abort_after:
            raise UserError(
                f"{said}; ended after {self.abort_after} in a row: lower optimizer.lr, set method.gradient_clip_norm, "
                "or look at these images"
            )

    def _what_is_broken(self, trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> str | None:
        if terms := _broken_terms(trainer, "total", "generator"):
            return terms
        if getattr(trainer.precision_plugin, "scaler", None) is not None:
            return None  # float16: a gradient too large for the loss scale is the scaler's affair, and normal
        gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        if not gradients or bool(torch.isfinite(torch.stack(torch._foreach_norm(gradients)).sum())):
            return None
        return _broken_terms(trainer) or "gradient"


def _broken_terms(trainer: pl.Trainer, *decisive: str) -> str | None:
    """The loss terms that are not finite, if one of ``decisive`` is among them (all are: no name given).

    Some terms are not computed in each step; what they were before says nothing about this one.
    """
    prefix = "train/loss/"
    figures = {k.removeprefix(prefix): v for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
    broken = sorted(name for name, value in figures.items() if not torch.isfinite(value).all())
    if not broken or (decisive and not set(decisive) & set(broken)):
        return None
    return "loss " + ", ".join(broken)


def name_images(batch: Any, most: int = 8) -> str:
    """Names or indices of a batch's images, for messages."""
    named: Any = batch.get("name", batch.get("index", [])) if isinstance(batch, dict) else []
    names = [str(n) for n in (named.tolist() if isinstance(named, Tensor) else named)]
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "") or "unknown"
