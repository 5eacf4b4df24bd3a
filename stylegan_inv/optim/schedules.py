"""Schedules over the training steps."""

from __future__ import annotations

import math

from torch.optim import Optimizer
from torch.optim.lr_scheduler import LambdaLR

from stylegan_inv.utils.checks import real_number, whole_number


def warmup_cosine(optimizer: Optimizer, total_steps: int, warmup_steps: int = 0, end_factor: float = 0.0) -> LambdaLR:
    """Returns a schedule with linear warm-up and cosine decay.

    Args:
        optimizer: Optimiser whose learning rates are multiplied.
        total_steps: Step at which the decay ends.
        warmup_steps: Number of steps of the warm-up, at most half of ``total_steps``.
        end_factor: Factor of the learning rate at the end.

    Raises:
        UserError: ``total_steps`` is not positive, or ``end_factor`` is not in [0, 1].
    """
    whole_number("scheduler.total_steps", total_steps)
    real_number("scheduler.end_factor", end_factor, least=0, most=1)
    warmup_steps = min(warmup_steps, total_steps // 2)

    def factor(step: int) -> float:
        if step < warmup_steps:
            return (step + 1) / warmup_steps
        progress = min(1.0, (step - warmup_steps) / max(1, total_steps - warmup_steps))
        return end_factor + (1 - end_factor) * 0.5 * (1 + math.cos(math.pi * progress))

    return LambdaLR(optimizer, factor)


class ProgressiveStages:
    """Schedule of e4e's progressive training, which activates the offset of one more layer at each stage.

    Layer i becomes active at step ``start + (i - 1) * every``; before ``start`` all layers have the same code. The
    options of the official code are ``--progressive_start`` (20,000) and ``--progressive_step_every`` (2,000).

    Args:
        start: First step with an offset.
        every: Number of steps between two stages.
    """

    def __init__(self, start: int = 20_000, every: int = 2_000) -> None:
        self.start = whole_number("method.stages.start", start, least=0)
        self.every = whole_number("method.stages.every", every)

    def stage(self, step: int) -> int:
        """Returns the last layer with an active offset at optimiser step ``step``; 0 for none."""
        return 0 if step < self.start else 1 + (step - self.start) // self.every


def lr_ramp(t: float, rampup_length: float, rampdown_length: float) -> float:
    """Returns the factor of the learning rate at a fraction ``t`` of the steps, in [0, 1)."""
    falling = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / rampdown_length)) if rampdown_length else 1.0
    return falling * (min(1.0, t / rampup_length) if rampup_length else 1.0)
