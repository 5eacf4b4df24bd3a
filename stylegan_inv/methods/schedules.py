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
