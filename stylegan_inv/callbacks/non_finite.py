"""Skips optimiser steps with a loss or gradient that is not finite."""

from __future__ import annotations

import logging
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.compat import batch_norm_buffers, has_grad_scaler, norms
from stylegan_inv.utils.text import printable

_log = logging.getLogger(__name__)
#: More steps than any training takes; a float holds them exactly.
_MOST = 1 << 53


class SkipNonFinite(pl.Callback):
    """Skips optimiser steps whose loss or gradient is NaN or infinite, on all ranks together.

    The step counts (schedules and the order of the data advance) but changes nothing: the gradients are removed, and
    the running statistics of batch norm are restored. A warning names the loss terms and the images of the batch.

    Args:
        abort_after: Number of successive skipped steps that ends the training.
    """

    def __init__(self, abort_after: int = 10) -> None:
        self.abort_after = whole_number("callbacks.non_finite.abort_after", abort_after)
        #: Number of skipped steps, including those before a resume.
        self.skipped = 0
        self._successive = 0
        self._broken: str | None = None
        self._batch: Any = None
        self._statistics: list[Tensor] = []

    def state_dict(self) -> dict[str, int]:  # noqa: D102
        return {"skipped": self.skipped, "in_a_row": self._successive}

    def load_state_dict(self, state_dict: dict[str, int]) -> None:  # noqa: D102
        counts = (whole_number(f"callbacks.non_finite.{n}", state_dict[n], 0, _MOST) for n in ("skipped", "in_a_row"))
        self.skipped, self._successive = counts

    def on_train_batch_start(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int
    ) -> None:
        self._batch, self._broken = batch, None
        self._statistics = [buffer.clone() for buffer in batch_norm_buffers(module)]

    def on_before_optimizer_step(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, optimizer: torch.optim.Optimizer
    ) -> None:
        here = _find_broken(trainer, optimizer)
        if trainer.strategy.reduce_boolean_decision(here is None, all=True):
            return
        self._broken = self._broken or here or "on another rank"
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                parameter.grad = None  # a step without gradients leaves weights and moments unchanged

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        batch, self._batch = self._batch, None
        # The method steps the optimiser of a discriminator itself, and has removed its broken gradients.
        self._broken = self._broken or _broken_terms(trainer, "discriminator")
        if self._broken is None:
            self._successive = 0
            return
        self.skipped, self._successive = self.skipped + 1, self._successive + 1
        for buffer, before in zip(batch_norm_buffers(module), self._statistics, strict=True):
            buffer.copy_(before)
        message = (
            f"step {trainer.global_step}, rank {trainer.global_rank}: not finite: {self._broken}; "
            f"images {name_images(batch)}; the step was skipped ({self._successive} in a row, {self.skipped} in all)"
        )
        _log.warning("%s", message)
        module.log("perf/skipped_steps", float(self.skipped))
        if self._successive >= self.abort_after:
            raise UserError(
                f"{message}; ended after {self.abort_after} in a row: lower optimizer.lr, set "
                "method.gradient_clip_norm, or look at these images"
            )


def name_images(batch: Any, most: int = 8) -> str:
    """Returns names or indices of a batch's images for a message.

    Args:
        batch: Batch of a data set.
        most: Largest number of names.
    """
    named: Any = batch.get("name", batch.get("index", [])) if isinstance(batch, dict) else []
    names = [printable(str(n)) for n in (named.tolist() if isinstance(named, Tensor) else named)]
    return ", ".join(names[:most]) + (" ..." if len(names) > most else "") or "unknown"


def _find_broken(trainer: pl.Trainer, optimizer: torch.optim.Optimizer) -> str | None:
    """Returns the loss terms that are not finite, or ``gradient``; None if everything is finite."""
    if terms := _broken_terms(trainer, "total", "generator"):
        return terms
    if has_grad_scaler(trainer):
        return None  # float16: the scaler skips gradients that overflow, which is normal
    gradients = [p.grad for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
    if not gradients or bool(torch.isfinite(norms(gradients).sum())):
        return None
    return _broken_terms(trainer) or "gradient"


def _broken_terms(trainer: pl.Trainer, *decisive: str) -> str | None:
    """Returns the loss terms that are not finite.

    Args:
        trainer: Has the logged loss terms.
        *decisive: Terms that are computed in each step. Without one of them among the broken terms the result is None:
            other terms may be values of an earlier step. No name: every term is decisive.
    """
    prefix = "train/loss/"
    terms = {k.removeprefix(prefix): v for k, v in trainer.callback_metrics.items() if k.startswith(prefix)}
    broken = sorted(name for name, value in terms.items() if not torch.isfinite(value).all())
    if not broken or (decisive and not set(decisive) & set(broken)):
        return None
    return "loss " + ", ".join(broken)
