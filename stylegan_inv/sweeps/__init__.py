"""Sweeps: one process per job, a summary at the end, and sweeps of Weights & Biases."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.sweeps.summary import SweepSummary as SweepSummary

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "summary": ["SweepSummary"],
    },
)
