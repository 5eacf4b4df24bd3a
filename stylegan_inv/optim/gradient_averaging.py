"""Averages of a network over time, and of gradients and statistics over ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn


@torch.no_grad()
def update_moving_average(average: nn.Module, network: nn.Module, images: int, half_life: float) -> None:
    """Exponential moving average with a half-life in images: ``beta = 0.5 ** (images / half_life)``.

    Args:
        average: changed in place; its buffers become those of ``network``.
        network: of the same class.
        images: seen since the last update, on all ranks.
        half_life: 0 copies the network.
    """
    beta = 0.5 ** (images / max(half_life, 1e-8))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - beta)
    for own, buffer in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(buffer)


def without_sync(trainer: Any) -> contextlib.AbstractContextManager[Any]:
    """A context in which DDP leaves each rank its own gradients; a null context without DDP."""
    wrapped: Any = getattr(trainer.strategy, "model", None)
    return wrapped.no_sync() if hasattr(wrapped, "no_sync") else contextlib.nullcontext()


def average_gradients(
    parameters: Iterable[nn.Parameter], strategy: Any, world_size: int, *, clean: bool = False
) -> None:
    """Gradients averaged over ranks in one exchange.

    Every rank must have gradients of the same parameters. With ``clean`` those that are not finite become 0 or +-1e5:
    the first batches of a discriminator can be wild, and StyleGAN2's official code does so.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size > 1 and gradients:
        flat = strategy.reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
    for gradient in gradients if clean else ():
        torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)


def mean_over_ranks(value: Tensor, strategy: Any) -> Tensor:
    """The mean of a statistic, without its gradient and without touching it."""
    return strategy.reduce(value.detach().clone(), reduce_op="mean")
