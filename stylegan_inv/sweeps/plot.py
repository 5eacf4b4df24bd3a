"""Plots the metric of a sweep over each swept value."""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.sweeps.jobs import SweepJob, best_job, swept
from stylegan_inv.utils.files import atomic_write

#: Repeats an experiment; its effect is not of interest.
_REPEATS = "seed"
_COLUMNS = 3
#: Largest number of values, and of letters in each, for which every value has a tick.
_TICKS = 8


def plot_sweep(jobs: Sequence[SweepJob], metric: str, goal: str, file: Path) -> bool:
    """Draws a panel for each swept name: every job as a point, and the mean of the jobs with the same value as a line.

    The mean is taken over the seeds and over all other swept names, so the line shows the effect of one name. It is
    absent if no two jobs have the same value, as in a search.

    Args:
        jobs: Jobs of the sweep; those without a metric are left out.
        metric: Name of the metric.
        goal: ``minimize`` or ``maximize``.
        file: PNG file to write.

    Returns:
        Whether anything was drawn.
    """
    from matplotlib.figure import Figure  # slow to import, needed at the end only

    best = best_job(jobs, goal)
    done = [job for job in jobs if job.value is not None and math.isfinite(job.value)]
    names = [name for name in swept(jobs) if name != _REPEATS] or swept(jobs)
    if not done or not names or best is None:
        return False
    across = min(_COLUMNS, len(names))
    down = math.ceil(len(names) / across)
    figure = Figure(figsize=(4.4 * across, 3.4 * down), layout="constrained")
    panels = figure.subplots(down, across, squeeze=False, sharey=True).flat
    for axes, name in zip(panels, names, strict=False):
        _panel(axes, [job for job in done if job.setting(name)], name, best, alone=len(names) == 1)
    for axes in list(panels)[len(names) :]:
        axes.set_axis_off()
    values = [job.value for job in done if job.value is not None]
    if min(values) > 0 and max(values) > 5 * min(values):
        figure.axes[0].set_yscale("log")
    for row in range(down):
        figure.axes[row * across].set_ylabel(f"{metric} ({'smaller' if goal == 'minimize' else 'larger'} is better)")
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=120)
    return True


def _panel(axes: Any, jobs: Sequence[SweepJob], name: str, best: SweepJob, alone: bool) -> None:
    texts = [job.setting(name) for job in jobs]
    numbers = _numbers(texts)
    labels = list(dict.fromkeys(texts))
    positions = numbers or [float(labels.index(text)) for text in texts]
    values = [job.value for job in jobs]
    axes.scatter(positions, values, color="tab:blue", alpha=0.6, linewidths=0, s=28, label="job")
    if alone or len(set(positions)) < len(positions):
        unique = sorted(set(positions))
        means = [
            _mean([v for p, v in zip(positions, values, strict=True) if p == position and v is not None])
            for position in unique
        ]
        axes.plot(unique, means, color="black", linewidth=1.4, label="mean" if len(unique) < len(positions) else None)
    if best in jobs:
        axes.scatter(
            [positions[jobs.index(best)]], [best.value], marker="o", facecolors="none", edgecolors="tab:red", s=90,
            linewidths=1.6, label="best",
        )  # fmt: skip
    if numbers is None:
        axes.set_xticks(range(len(labels)), labels, rotation=20 if len(labels) > 3 else 0)
        axes.margins(x=0.15)
    else:
        if min(numbers) > 0 and max(numbers) >= 10 * min(numbers):
            axes.set_xscale("log")
        if len(labels) <= _TICKS and max(map(len, labels)) <= _TICKS:  # short ones
            axes.set_xticks([float(label) for label in labels], labels)
            axes.set_xticks([], minor=True)
    axes.set_xlabel(name)
    axes.grid(alpha=0.25)
    axes.legend(frameon=False)


def _numbers(texts: Sequence[str]) -> list[float] | None:
    try:
        return [float(text) for text in texts]
    except ValueError:
        return None


def _mean(values: Sequence[float]) -> float:
    return sum(values) / len(values)
