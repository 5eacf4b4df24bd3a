"""Logs learning rates as ``lr/<group>``."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


class LearningRate(pl.Callback):
    """Logs ``lr/<group>`` of every parameter group; a group without a name is called ``group<number>``."""

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, batch: Any, batch_idx: int) -> None:  # noqa: D102
        rates = {
            f"lr/{group.get('name', f'group{number}')}": float(group["lr"])
            for optimizer in trainer.optimizers
            for number, group in enumerate(optimizer.param_groups)
        }
        module.log_dict(rates)
