"""Moving averages of weights, and means of gradients and statistics over the ranks."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel


@torch.no_grad()
def update_moving_average(average: nn.Module, network: nn.Module, images: int, half_life: float) -> None:
    """Updates an exponential moving average of weights in place, ``beta = 0.5 ** (images / half_life)``.

    Args:
        average: The moving average; its buffers become those of ``network``.
        network: Network of the same class.
        images: Number of images since the last update, on all ranks.
        half_life: Half-life in images; 0 copies the network.
    """
    beta = 0.5 ** (images / max(half_life, 1e-8))
    for mean, value in zip(average.parameters(), network.parameters(), strict=True):
        mean.lerp_(value, 1 - beta)
    for own, buffer in zip(average.buffers(), network.buffers(), strict=True):
        own.copy_(buffer)


def without_sync(trainer: Any) -> contextlib.AbstractContextManager[Any]:
    """Returns a context in which DDP does not reduce gradients; a null context without DDP."""
    model = trainer.strategy.model
    return model.no_sync() if isinstance(model, DistributedDataParallel) else contextlib.nullcontext()


def average_gradients(
    parameters: Iterable[nn.Parameter], strategy: Any, world_size: int, *, clean: bool = False
) -> None:
    """Averages gradients over all ranks in one reduction.

    Args:
        parameters: Parameters; on all ranks the same ones must have a gradient.
        strategy: Lightning's strategy.
        world_size: Number of ranks.
        clean: Replace NaN by 0 and infinite values by +-1e5, as StyleGAN2's official code does for the first batches
            of a discriminator.
    """
    gradients = [p.grad for p in parameters if p.grad is not None]
    if world_size > 1 and gradients:
        flat = strategy.reduce(torch.cat([g.flatten() for g in gradients]), reduce_op="mean")
        for gradient, mean in zip(gradients, flat.split([g.numel() for g in gradients]), strict=True):
            gradient.copy_(mean.view_as(gradient))
    for gradient in gradients if clean else ():
        torch.nan_to_num(gradient, nan=0.0, posinf=1e5, neginf=-1e5, out=gradient)


def mean_over_ranks(value: Tensor, strategy: Any) -> Tensor:
    """Returns the mean of a statistic over all ranks, detached; ``value`` is not modified."""
    mean: Tensor = strategy.reduce(value.detach().clone(), reduce_op="mean")
    return mean
