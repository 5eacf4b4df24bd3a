"""Norm of the gradient, as ``grad_norm/<group>``."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch


class GradientNorm(pl.Callback):
    """Logs the Euclidean norm of each parameter group's gradient just before an optimiser takes its step.

    That is after clipping (``method.gradient_clip_norm``), and with float16 after the loss scale was taken out.
    """

    def on_before_optimizer_step(  # noqa: D102
        self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        for number, group in enumerate(optimizer.param_groups):
            gradients = [p.grad for p in group["params"] if p.grad is not None]
            if gradients:
                norms = torch.stack(torch._foreach_norm(gradients))
                module.log(f"grad_norm/{group.get('name', f'group{number}')}", norms.norm())
