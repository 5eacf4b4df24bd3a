"""Optimisers of discriminators, which are stepped besides the optimiser of a method."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from torch import Tensor
from torch.optim import Optimizer

from stylegan_inv.optim.gradient_averaging import average_gradients, without_sync


@dataclass(frozen=True)
class AuxiliaryOptimizer:
    """An optimiser whose steps Lightning does not count as training steps.

    Attributes:
        name: Name by which the training step finds it.
        optimizer: The optimiser.
    """

    name: str
    optimizer: Optimizer

    def step(self, loss: Tensor, trainer: Any) -> None:
        """Back-propagates a loss, averages the gradients over all ranks, and updates the parameters.

        Args:
            loss: A scalar.
            trainer: Lightning's trainer, which knows the ranks.
        """
        self.optimizer.zero_grad(set_to_none=True)
        with without_sync(trainer):
            loss.backward()
        parameters = [p for group in self.optimizer.param_groups for p in group["params"]]
        average_gradients(parameters, trainer.strategy, trainer.world_size)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
