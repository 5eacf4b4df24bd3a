"""Checks that all ranks have the same weights."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


class RankConsistency(pl.Callback):
    """Compares the weights of all ranks bit by bit, at the start, at intervals and at the end.

    Ranks read different data but must hold the same weights. A parameter that missed the broadcast or the averaging of
    gradients is an error that average losses do not show.

    Args:
        every_n_steps: Optimiser steps between comparisons; each exchanges two numbers per parameter.
    """

    def __init__(self, every_n_steps: int = 100) -> None:
        self.every_n_steps = whole_number("callbacks.consistency.every_n_steps", every_n_steps)

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: D102
        check_ranks_agree(trainer, module)

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        if trainer.global_step % self.every_n_steps == 0:
            check_ranks_agree(trainer, module)

    def on_train_end(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: D102
        check_ranks_agree(trainer, module)


@torch.no_grad()
def check_ranks_agree(trainer: pl.Trainer, module: torch.nn.Module) -> None:
    """Checks that a module's parameters are the same on all ranks; does nothing with one rank.

    Raises:
        UserError: Some differ; the error names them.
    """
    if trainer.world_size == 1:
        return
    named = list(module.named_parameters())
    own = torch.stack([_checksum(parameter) for _, parameter in named])
    checksums = [torch.empty_like(own) for _ in range(trainer.world_size)]
    torch.distributed.all_gather(checksums, own)
    for rank, other in enumerate(checksums):
        differ = [named[i][0] for i in (other != checksums[0]).any(1).nonzero().flatten().tolist()]
        if differ:
            raise UserError(
                f"step {trainer.global_step}: rank {rank} differs from rank 0 in {', '.join(differ[:3])}"
                f"{' ...' if len(differ) > 3 else ''} ({len(differ)} of {len(named)} parameters)"
            )


def _checksum(tensor: torch.Tensor) -> torch.Tensor:
    """Returns two sums of the bits, (2,) int64: plain, and weighted by position so that swapped values count."""
    flat = tensor.detach().contiguous().flatten()
    flat = flat.float() if flat.element_size() < 4 else flat
    bits = flat.view(torch.int32).long()
    return torch.stack([bits.sum(), (bits * torch.arange(1, len(bits) + 1, device=bits.device)).sum()])
