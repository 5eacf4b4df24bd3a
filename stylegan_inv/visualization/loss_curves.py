"""Loss curves of per-image optimisation, as a table and as a plot."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from pathlib import Path

import torch
from torch import Tensor

from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.text import cell_text

CURVES = "losses"


def write_curves(folder: Path, names: Sequence[str], curves: Mapping[str, Sequence[Tensor]]) -> list[Path]:
    """Writes ``losses.csv`` (image, stage, step, loss) and ``losses.png`` (one panel for each stage).

    Args:
        folder: Output folder.
        names: Names of the images.
        curves: Stage -> losses (steps, B) of each batch; NaN after an image has stopped.

    Returns:
        The paths of both files.
    """
    from matplotlib.figure import Figure  # slow to import

    table, plot = folder / f"{CURVES}.csv", folder / f"{CURVES}.png"
    with atomic_write(table) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        rows = csv.writer(file)
        rows.writerow(["image", "stage", "step", "loss"])
        for stage, batches in curves.items():
            first = 0
            for batch in batches:
                for column, curve in enumerate(batch.T.tolist()):
                    rows.writerows(
                        [cell_text(names[first + column]), stage, step, f"{v:.6g}"]
                        for step, v in enumerate(curve)
                        if v == v
                    )
                first += batch.shape[1]
    figure = Figure(figsize=(4.5 * len(curves), 3.2), layout="constrained")
    for axes, (stage, batches) in zip(figure.subplots(1, len(curves), squeeze=False)[0], curves.items(), strict=True):
        for batch in batches:
            axes.semilogy(batch.cpu().clamp_min(1e-12).numpy(), color="tab:blue", alpha=0.25, linewidth=0.8)
        axes.semilogy(_mean(batches).numpy(), color="black", linewidth=1.6, label="mean")
        axes.set(title=stage, xlabel="step", ylabel="loss")
        axes.legend(frameon=False)
    with atomic_write(plot) as temporary:
        figure.savefig(temporary, dpi=110)
    return [table, plot]


def _mean(batches: Sequence[Tensor]) -> Tensor:
    """Returns the mean over all images. An image that has stopped counts with its last loss."""
    steps = max(len(batch) for batch in batches)
    columns = []
    for batch in batches:
        for curve in batch.T.cpu():
            known = curve[~curve.isnan()]
            columns.append(torch.cat([known, known[-1:].expand(steps - len(known))]))
    return torch.stack(columns).mean(0)
