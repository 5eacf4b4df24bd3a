"""Columns of the results: a metric of the whole image or of its region of interest, after a refinement step."""

from __future__ import annotations

from dataclasses import dataclass

#: Suffixes of column names in ``metrics.json`` and ``per_image.csv``.
_INTEREST, _STEP = "_interest", "_step"


@dataclass(frozen=True)
class Column:
    """Identifies one value per image; ``str(column)`` is its name in files and tables.

    Attributes:
        metric: Name of the metric.
        interest: Whether only the region of interest is compared.
        step: Number of the refinement step, from 1; 0 for the final reconstruction.
    """

    metric: str
    interest: bool = False
    step: int = 0

    def __str__(self) -> str:
        return self.label + (f"{_STEP}{self.step}" if self.step else "")

    @property
    def label(self) -> str:
        """The name without the step."""
        return self.metric + (_INTEREST if self.interest else "")


def is_ambiguous(metric: str) -> bool:
    """Returns whether columns of a metric with this name could be taken for those of another metric."""
    return metric.endswith(_INTEREST) or _STEP in metric
