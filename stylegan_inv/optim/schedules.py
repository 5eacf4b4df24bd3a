"""Learning-rate schedules that torch does not have in one piece."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stylegan_inv.errors import UserError


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, final_share: float = 0.0) -> LambdaLR:
    """Rise linearly over ``warmup_steps``, then fall along a cosine to ``final_share`` of the rate at ``total_steps``.

    Raises:
        UserError: ``total_steps`` is not positive.
    """
    if total_steps < 1:
        raise UserError(f"scheduler.total_steps={total_steps}: expected at least 1")
    warmup_steps = min(warmup_steps, total_steps // 2)

    def share(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return final_share + (1 - final_share) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, share)


class ProgressiveStages:
    """e4e's progressive training: the offset of one more layer begins to be learnt at each stage.

    Layer i becomes active at step ``start + (i - 1) * every``; before ``start`` all layers share one w. The official
    flags are ``--progressive_start`` (20,000) and ``--progressive_step_every`` (2,000).

    Args:
        start: first step with an offset.
        every: steps between two stages.
    """

    def __init__(self, start: int = 20_000, every: int = 2_000) -> None:
        if start < 0 or every < 1:
            raise UserError(f"stages: start={start}, every={every}; expected at least 0 and at least 1")
        self.start, self.every = start, every

    def stage(self, step: int) -> int:
        """The highest layer whose offset is active at optimiser step ``step``; 0 for none."""
        return 0 if step < self.start else 1 + (step - self.start) // self.every
