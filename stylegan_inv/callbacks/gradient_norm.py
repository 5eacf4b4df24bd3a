"""Norm of the gradient, as ``grad_norm/<group>``."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor


class GradientNorm(pl.Callback):
    """Logs the Euclidean norm of each parameter group's gradient just before an optimiser takes its step.

    That is after clipping (``method.gradient_clip_norm``), and with float16 after the loss scale was taken out.
    """

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}

    def on_before_optimizer_step(  # noqa: D102
        self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        for number, group in enumerate(optimizer.param_groups):
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if gradients:
                norms = torch.stack(torch._foreach_norm(gradients))
                self._norms[f"grad_norm/{group.get('name', f'group{number}')}"] = norms.norm()

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:  # noqa: D102
        # Not before: logging from another hook in the middle of the first batch's training_step, where a method with
        # several optimisers takes its steps, makes Lightning forget what that had logged.
        module.log_dict(self._norms)
        self._norms = {}
