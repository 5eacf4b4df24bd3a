"""Logs the norm of the gradient as ``grad_norm/<group>``."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor

from stylegan_inv.utils.compat import norms


class GradientNorm(pl.Callback):
    """Logs the Euclidean norm of each parameter group's gradient as it is just before the optimiser step.

    That is after clipping (``method.gradient_clip_norm``) and, with float16, after the gradients have been unscaled.
    """

    def __init__(self) -> None:
        self._norms: dict[str, Tensor] = {}

    def on_before_optimizer_step(  # noqa: D102
        self, trainer: pl.Trainer, module: Any, optimizer: torch.optim.Optimizer
    ) -> None:
        groups = {
            group.get("name", f"group{number}"): [p.grad for p in group["params"] if p.grad is not None]
            for number, group in enumerate(optimizer.param_groups)
            if group["params"]
        }
        learns = next((gradients[0] for gradients in groups.values() if gradients), None)
        if learns is None:  # a step that is skipped
            return
        for name, gradients in groups.items():
            # Zero for a group that does not learn in this phase: Lightning repeats what is not logged again.
            norm = norms(gradients).norm() if gradients else learns.new_zeros(())
            self._norms[f"grad_norm/{name}"] = norm

    def on_train_batch_end(self, trainer: pl.Trainer, module: Any, *args: Any) -> None:  # noqa: D102
        # Logging in on_before_optimizer_step would make Lightning forget what the first batch's training_step has
        # logged before, in methods that step several optimisers themselves.
        module.log_dict(self._norms)
        self._norms = {}
