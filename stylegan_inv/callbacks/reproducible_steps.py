"""Makes a resumed run repeat an uninterrupted one bit for bit."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytorch_lightning as pl
import torch
from torch import nn

from stylegan_inv.runtime.ranks import StatePerRank
from stylegan_inv.utils.compat import batch_norm_buffers, finished_batches, reset_step_metrics

_TRAINING, _VALIDATION = 0, 1


class ReproducibleSteps(pl.Callback):
    """Seeds each batch by (seed, rank, step), and saves state that differs between ranks.

    * Each training batch begins with its own seed. So noise, latent codes and augmentation that are drawn from the
      global generators do not depend on earlier draws: of panels, of a validation, or before the run was resumed.
    * All ranks use the running statistics of batch norm of the first rank, as DDP has it with ``broadcast_buffers``.
      That option would exchange them in validation too, where ranks may have different numbers of batches, and hang.
    * The state of modules with ``differs_by_rank`` is saved for each rank.

    Args:
        seed: Seed of the run.
    """

    def __init__(self, seed: int) -> None:
        self.seed = seed

    def on_train_batch_start(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        broadcast_batch_norms(trainer, module)
        seed_everything(self.seed, trainer.global_rank, finished_batches(trainer), _TRAINING)
        reset_step_metrics(trainer)

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: D102
        broadcast_batch_norms(trainer, module)
        seed_everything(self.seed, trainer.global_rank, finished_batches(trainer), _VALIDATION)

    def on_save_checkpoint(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        own = {name: part.get_extra_state() for name, part in _parts_with_own_state(module)}
        if trainer.world_size > 1 and own:
            states: list[Any] = [None] * trainer.world_size
            torch.distributed.all_gather_object(states, own)
            checkpoint["by_rank"] = states

    def on_load_checkpoint(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, checkpoint: dict[str, Any]
    ) -> None:
        states = checkpoint.get("by_rank", [])
        if trainer.global_rank < len(states):  # additional ranks keep the state of the first one
            for name, part in _parts_with_own_state(module):
                part.set_extra_state(states[trainer.global_rank][name])


def seed_everything(*numbers: int) -> None:
    """Seeds the generators of torch (all devices), numpy and Python by a hash of whole numbers."""
    words = np.random.SeedSequence(numbers).generate_state(2, np.uint64)
    torch.manual_seed(int(words[0]))
    np.random.seed(int(words[1]) & 0xFFFFFFFF)
    random.seed(int(words[1]))


def broadcast_batch_norms(trainer: pl.Trainer, module: nn.Module) -> None:
    """Copies the running statistics of batch norm from the first rank to the others, in one exchange."""
    if trainer.world_size == 1:
        return
    buffers = batch_norm_buffers(module)
    if not buffers:
        return
    # Doubles represent floats and counters exactly.
    flat = torch.cat([b.detach().double().flatten() for b in buffers])
    torch.distributed.broadcast(flat, src=0)
    for buffer, part in zip(buffers, flat.split([b.numel() for b in buffers]), strict=True):
        buffer.copy_(part.view_as(buffer))


def _parts_with_own_state(module: nn.Module) -> Iterator[tuple[str, StatePerRank]]:
    for name, part in module.named_modules():
        if isinstance(part, StatePerRank) and part.differs_by_rank:
            yield name, part
