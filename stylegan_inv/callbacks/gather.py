"""What each rank has seen of a validation, put together."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from stylegan_inv.methods.common.base import Inversion


def inversion_of(outputs: Any) -> Inversion | None:
    """The inversion that a validation step hands to callbacks; None for what is not an inversion method."""
    return outputs.get("inversion") if isinstance(outputs, dict) else None


def from_all_ranks(trainer: pl.Trainer, own: Any) -> list[Any]:
    """``own`` of every rank, in their order; every rank must call it."""
    if trainer.world_size == 1:
        return [own]
    everyones: list[Any] = [None] * trainer.world_size
    torch.distributed.all_gather_object(everyones, own)
    return everyones
