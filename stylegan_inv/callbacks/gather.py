"""Collects what each rank has seen of a validation."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from stylegan_inv.methods.common.base import Inversion


def inversion_of(outputs: Any) -> Inversion | None:
    """Returns the inversion that a validation step passes to callbacks; None for other modules than methods."""
    return outputs.get("inversion") if isinstance(outputs, dict) else None


def from_all_ranks(trainer: pl.Trainer, own: Any) -> list[Any]:
    """Returns the object of every rank, in the order of the ranks; every rank must call it.

    Args:
        trainer: Tells the number of ranks.
        own: Object of this rank, which can be pickled.
    """
    if trainer.world_size == 1:
        return [own]
    objects: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(objects, own)
    return objects
