"""Plots of latent codes: their distribution compared with W, the offset of each layer, the change by each step."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.utils.files import atomic_write


def draw_codes(figures: dict[str, Any], file: Path) -> None:
    """Plots the statistics of `stylegan_inv.callbacks.latent_codes`.

    Args:
        figures: ``w`` with ``edges``, ``counts`` and ``counts_of_w``; optionally ``delta`` with ``mean`` and ``std`` of
            each layer, and ``moved``, which has one value for each step and layer.
        file: Path of the PNG.
    """
    from matplotlib.figure import Figure  # slow to import

    panels = ["w", *(name for name in ("delta", "moved") if name in figures)]
    figure = Figure(figsize=(4.2 * len(panels), 3.2), layout="constrained")
    for axes, name in zip(figure.subplots(1, len(panels), squeeze=False)[0], panels, strict=True):
        _DRAW[name](axes, figures[name])
        axes.grid(alpha=0.25)
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=110)


def _histogram(axes: Any, w: dict[str, list[float]]) -> None:
    edges = np.array(w["edges"])
    for name, counts, colour in (("W", w["counts_of_w"], "0.55"), ("inversions", w["counts"], "tab:blue")):
        density = np.array(counts, float) / max(sum(counts), 1) / np.diff(edges)
        axes.stairs(density, edges, color=colour, fill=name == "W", alpha=0.5 if name == "W" else 1, label=name)
    axes.set(title="entries of the codes", xlabel="value", ylabel="density")
    axes.set_yscale("log")
    axes.legend(frameon=False)


def _delta(axes: Any, delta: dict[str, list[float]]) -> None:
    layers = range(len(delta["mean"]))
    axes.bar(layers, delta["mean"], yerr=delta["std"], color="tab:blue", ecolor="0.35", capsize=2)
    axes.set(title="offset from the first layer", xlabel="layer", ylabel="root mean square", xticks=layers)


def _change(axes: Any, moved: list[list[float]]) -> None:
    for number, values in enumerate(moved, start=1):
        shade = 0.35 + 0.6 * number / len(moved)
        axes.plot(values, color=(0.12, 0.35, 0.75, shade), marker="o", markersize=3, label=f"step {number}")
    axes.set(title="change by each step", xlabel="layer", ylabel="root mean square", xticks=range(len(moved[0])))
    axes.legend(frameon=False, fontsize="small", loc="center left", bbox_to_anchor=(1.0, 0.5))


_DRAW: dict[str, Callable[[Any, Any], None]] = {"w": _histogram, "delta": _delta, "moved": _change}
