"""Figures of the benchmark."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.benchmark.editability import STRENGTHS, attributes
from stylegan_inv.benchmark.method_runs import BY_NAME, DESCENT
from stylegan_inv.benchmark.results import Table
from stylegan_inv.benchmark.significance import Estimate, estimate
from stylegan_inv.data.images.image_files import from_uint8
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.contact_sheet import contact_sheet

Values = Mapping[str, Mapping[str, np.ndarray]]
#: Entrant -> colour and marker; what is related has the same colour (encoders of one pass, ReStyle, IntereStyle).
_LOOK = {
    "psp_synthfaces": ("tab:blue", "o"),
    "e4e_synthfaces": ("tab:cyan", "s"),
    "restyle_synthfaces": ("tab:red", "o"),
    "restyle_e4e_synthfaces": ("tab:pink", "s"),
    "restyle_covered": ("tab:red", "v"),
    "interestyle_synthfaces": ("tab:green", "D"),
    "projector": ("tab:gray", "P"),
    "image2stylegan": ("tab:olive", "X"),
    "image2stylegan_pp": ("tab:orange", "X"),
    "pti": ("tab:purple", "*"),
    "true_factors": ("black", "_"),
}
_EDGES = (0.0, 0.05, 0.1, 0.15, 0.2, 0.3, 0.6)


def tradeoff(table: Table, file: Path) -> None:
    """Distortion, perception and editability against seconds, and against one another."""
    panels = (
        ("seconds", "clear/mse", "CPU seconds a face", "MSE"),
        ("seconds", "clear/perceptual", "CPU seconds a face", "perceptual distance"),
        ("seconds", "edits/wanted", "CPU seconds a face", "edit: wanted change, std"),
        ("clear/mse", "edits/wanted", "MSE", "edit: wanted change, std"),
        ("clear/mse", "clear/perceptual", "MSE", "perceptual distance"),
        ("clear/w_distance", "edits/wanted", "distance to W", "edit: wanted change, std"),
    )
    figure = _figure(13, 7.6)
    for axes, (x, y, x_title, y_title) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        for name, row in table.items():
            if y in row and x in row:
                _point(axes, name, row[x], row[y])
            elif name == "true_factors" and y in row and x == "seconds":
                axes.axhline(row[y].mean, color="black", linewidth=0.8, linestyle=":", label=BY_NAME[name].title)
        scales = ["log" if key in ("seconds", "clear/mse", "clear/perceptual") else "linear" for key in (x, y)]
        axes.set(xlabel=x_title, ylabel=y_title, xscale=scales[0], yscale=scales[1])
    _legend(figure, 6)
    _save(figure, file)


def refinement(values: Values, table: Table, file: Path) -> None:
    """Distortion along the way: of the encoders' refinements, and of descents."""
    figure = _figure(12, 4.4)
    whole, region, descents = figure.subplots(1, 3)
    for name, columns in values.items():
        steps = sorted((key for key in columns if key.startswith("clear/mse_step")), key=_number)
        if not steps:
            continue
        curve = [estimate(columns[key]) for key in steps]
        inside = [estimate(columns[key.replace("mse", "mse_interest")]) for key in steps]
        at = np.array([_number(key) for key in steps], dtype=float)
        if BY_NAME[name].kind == DESCENT:
            # Snapshots are taken at even distances; the first is the start.
            _curve(descents, name, (at - 1) / (at[-1] - 1) * table[name]["seconds"].mean, curve)
        else:
            _curve(whole, name, at, curve)
            _curve(region, name, at, inside)
    for axes, title in ((whole, "whole image"), (region, "region of interest")):
        axes.set(xlabel="refinement", ylabel="MSE", title=f"encoders, {title}")
        axes.xaxis.get_major_locator().set_params(integer=True)
    whole.set_yscale("log")  # IntereStyle does not look at the background
    if not descents.lines:
        figure.delaxes(descents)
    descents.set(xlabel="CPU seconds a face", ylabel="MSE", yscale="log", title="descents, whole image")
    _legend(figure, 5)
    _save(figure, file)


def obstacles(values: Values, file: Path) -> None:
    """What covering more of a face does to what is seen of it, and to what is hidden."""
    figure = _figure(11, 4.8)
    panels = (("mse_interest", "MSE of what is seen of the face"), ("mse_hidden", "MSE against what is hidden"))
    for axes, (metric, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for name, columns in values.items():
            if BY_NAME[name].kind == DESCENT and columns["covered/share"].shape[1] < 40:
                continue  # too few faces for bins
            share = columns["covered/share"][0]
            at, curve = [], []
            if metric == "mse_interest":
                at, curve = [0.0], [estimate(columns["clear/mse_interest"])]
            for low, high in zip(_EDGES[:-1], _EDGES[1:], strict=True):
                inside = (share > low) & (share <= high)
                if inside.sum() >= 5:
                    binned = estimate(columns[f"covered/{metric}"][:, inside])
                    if binned.faces:
                        at.append(float(share[inside].mean()))
                        curve.append(binned)
            if curve:
                _curve(axes, name, np.array(at), curve)
        axes.set(xlabel="share of the face that is covered", ylabel=title, yscale="log")
    _legend(figure, 4)
    _save(figure, file)


def edits(values: Values, file: Path) -> None:
    """Trade-offs over the strength: what arrives against what else changes, and against the identity."""
    kinds = attributes(next(iter(values.values())))
    figure = _figure(3.0 * len(kinds), 6.6)
    grid = figure.subplots(2, len(kinds), sharex="col")
    for column, edit in enumerate(kinds):
        for row, (measure, title) in enumerate((("others", "others' change, std"), ("identity", "identity kept"))):
            axes = grid[row][column]
            for name, columns in values.items():
                x, y = (columns[f"edits/{edit}/{m}"].mean(axis=(0, 2)) for m in ("wanted", measure))
                colour, marker = _LOOK[name]
                axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1, label=BY_NAME[name].title)
            if not row:
                axes.set_title("mean of the five" if edit == "all" else edit)
            axes.set(xlabel="wanted change, std" if row else "", ylabel=title if not column else "")
    strengths = ", ".join(f"{s:g}" for s in STRENGTHS)
    figure.suptitle(f"Edits of strength {strengths} (along each line)", fontsize=11)
    _legend(figure, 6)
    _save(figure, file)


def grid(scored: Mapping[str, Sequence[Mapping[str, np.ndarray]]], faces: Mapping[str, Tensor], file: Path) -> None:
    """The same faces through all of them, clear ones above; of the first seed.

    Args:
        scored: Entrant -> results of each seed.
        faces: Condition -> the faces that are shown (n, 3, R, R).
        file: PNG.
    """
    columns = {"input": torch.cat(list(faces.values()))}
    for name, seeds in scored.items():
        pictures = [torch.from_numpy(seeds[0][f"{condition}/pictures"]) for condition in faces]
        columns[BY_NAME[name].title.replace(" (reference)", "")] = from_uint8(torch.cat(pictures))
    sheet = contact_sheet(columns, cell=128)
    with atomic_write(file) as temporary:
        sheet.save(temporary, format="png")


def _point(axes: Any, name: str, x: Estimate, y: Estimate) -> None:
    colour, marker = _LOOK[name]
    error = {"xerr": [[x.mean - x.low], [x.high - x.mean]], "yerr": [[y.mean - y.low], [y.high - y.mean]]}
    axes.errorbar(
        x.mean, y.mean, **error, color=colour, marker=marker, markersize=8, linestyle="", linewidth=1,
        label=BY_NAME[name].title,
    )  # fmt: skip


def _curve(axes: Any, name: str, x: np.ndarray, curve: Sequence[Estimate]) -> None:
    colour, marker = _LOOK[name]
    axes.plot(x, [e.mean for e in curve], color=colour, marker=marker, markersize=5, label=BY_NAME[name].title)
    axes.fill_between(x, [e.low for e in curve], [e.high for e in curve], color=colour, alpha=0.15, linewidth=0)


def _number(key: str) -> int:
    return int(key.rpartition("step")[2])


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # slow to import, needed at the end only

    return Figure(figsize=(width, height), layout="constrained")


def _ticks(axis: Any) -> Callable[[float, int], str]:
    """Plain numbers at so many ticks of each decade of a logarithmic axis as there is room for."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    shown = (1,) if decades > 2.5 else (1, 2, 5) if decades > 0.9 else (1, 2, 3, 5, 7)

    def label(value: float, _: int) -> str:
        return f"{value:g}" if round(value / 10 ** np.floor(np.log10(value)), 6) in shown else ""

    return label


def _legend(figure: Any, columns: int) -> None:
    found: dict[str, Any] = {}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(_ticks(axis))
                axis.set_minor_formatter(_ticks(axis))
        axes.grid(True, which="major", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            found.setdefault(label, handle)
    order = [e.title for e in BY_NAME.values() if e.title in found]
    figure.legend(
        [found[title] for title in order], order, loc="outside lower center", ncols=columns, frameon=False, fontsize=9
    )


def _save(figure: Any, file: Path) -> None:
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
