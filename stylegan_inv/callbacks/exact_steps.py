"""Makes a resumed run repeat, bit for bit, what an uninterrupted one would have done."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm

from stylegan_inv.callbacks.step_count import batches_done


class ExactSteps(pl.Callback):
    """Random numbers as a function of (seed, rank, step), and state that differs between ranks in the checkpoint.

    * Each training batch begins with its own seed, so noise, codes and augmentation drawn from the global generators do
      not depend on what was drawn before: panels, a validation, another life of the process.
    * The running statistics of batch norm are the first rank's, as DDP has it with ``broadcast_buffers``. That option
      would exchange them in validation too, where ranks may have different numbers of batches, and hang.
    * Modules with ``differs_by_rank`` (histories of codes) are saved for each rank.

    Args:
        seed: Of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        share_statistics(trainer, module)
        seed_everything(self.seed, trainer.global_rank, batches_done(trainer), 0)
        # Lightning logs the last value of a figure again in each step that has none; a resumed run does not know it.
        for figure in trainer.fit_loop.epoch_loop._results.values():
            if figure.meta.fx == "training_step" and not figure.meta.on_epoch:
                figure.reset()

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: D102
        share_statistics(trainer, module)
        seed_everything(self.seed, trainer.global_rank, batches_done(trainer), 1)

    def on_save_checkpoint(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = {name: part.get_extra_state() for name, part in _own_state(module)}
        if trainer.world_size > 1 and own:
            everyones: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(everyones, own)
            checkpoint["by_rank"] = everyones

    def on_load_checkpoint(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint.get("by_rank", [])
        if trainer.global_rank < len(states):  # a rank that is new goes on with the first one's
            for name, part in _own_state(module):
                part.set_extra_state(states[trainer.global_rank][name])


def seed_everything(*numbers: int) -> None:
    """Seed the generators of torch (all devices), numpy and Python by a hash of some whole numbers."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]) & 0xFFFFFFFF)
    random.seed(int(words[1]))


def batch_norms(module: nn.Module) -> list[Tensor]:
    """The running statistics and counters of all batch norms."""
    norms = (part for part in module.modules() if isinstance(part, _BatchNorm))
    return [buffer for norm in norms for buffer in norm.buffers(recurse=False)]


def share_statistics(trainer: pl.Trainer, module: nn.Module) -> None:
    """Give every rank the first one's running statistics, in one exchange."""
    if trainer.world_size == 1:
        return
    buffers = batch_norms(module)
    if not buffers:
        return
    # Doubles hold floats and counters exactly.
    flat = torch.cat([b.detach().double().flatten() for b in buffers])
    torch.distributed.broadcast(flat, src=0)
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _own_state(module: nn.Module) -> Iterator[tuple[str, Any]]:
    return ((name, part) for name, part in module.named_modules() if getattr(part, "differs_by_rank", False))
