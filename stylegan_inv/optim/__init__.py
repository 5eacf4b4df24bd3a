"""Optimisers, learning rate schedules and the loop of per-image optimisation."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.optim.per_image_optimization import EarlyStop as EarlyStop
    from stylegan_inv.optim.ranger import Ranger as Ranger
    from stylegan_inv.optim.schedules import ProgressiveStages as ProgressiveStages
    from stylegan_inv.optim.schedules import warmup_cosine as warmup_cosine

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "per_image_optimization": ["EarlyStop"],
        "ranger": ["Ranger"],
        "schedules": ["ProgressiveStages", "warmup_cosine"],
    },
)
