"""Figures of the comparison."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.benchmark.quality.compared_methods import BY_NAME, PER_IMAGE
from stylegan_inv.benchmark.quality.editability import ALL_ATTRIBUTES, IDENTITY, OTHERS, STRENGTHS, TARGET
from stylegan_inv.benchmark.quality.results import Results
from stylegan_inv.benchmark.quality.significance import Estimate
from stylegan_inv.data.images.image_files import from_uint8
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.contact_sheet import contact_sheet

#: Method -> colour and marker. Related methods share a colour.
_STYLES = {
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
_SECONDS = ("seconds", "CPU seconds per face")
_TARGET_CHANGE = "target attribute change, std"
#: Columns on a logarithmic axis.
_LOGARITHMIC = ("seconds", "clear/mse", "clear/perceptual")


def tradeoff(results: Results, file: Path) -> None:
    """Plots distortion, perceptual distance and editability against time and against each other."""
    mse, perceptual, target = ("clear/mse", "MSE"), ("clear/perceptual", "perceptual distance"), "edits/target"
    panels = (
        (_SECONDS, mse),
        (_SECONDS, perceptual),
        (_SECONDS, (target, _TARGET_CHANGE)),
        (mse, (target, _TARGET_CHANGE)),
        (mse, perceptual),
        (("clear/w_distance", "distance to W"), (target, _TARGET_CHANGE)),
    )
    figure = _figure(13, 7.6)
    for axes, ((x, x_title), (y, y_title)) in zip(figure.subplots(2, 3).flat, panels, strict=True):
        for name, row in results.table.items():
            if y in row and x in row:
                _plot_point(axes, name, row[x], row[y])
            elif name == "true_factors" and y in row and x == "seconds":
                axes.axhline(row[y].mean, color="black", linewidth=0.8, linestyle=":", label=BY_NAME[name].title)
        scales = ["log" if key in _LOGARITHMIC else "linear" for key in (x, y)]
        axes.set(xlabel=x_title, ylabel=y_title, xscale=scales[0], yscale=scales[1])
    _add_legend(figure, 6)
    _save(figure, file)


def refinement(results: Results, file: Path) -> None:
    """Plots the distortion over the refinement steps of encoders and over the time of per-image optimisation."""
    figure = _figure(12, 4.4)
    whole, region, per_image = figure.subplots(1, 3)
    for name, curves in results.refinement.items():
        steps = np.array([step for step, _ in curves["mse"]])
        if BY_NAME[name].kind == PER_IMAGE:
            # Snapshots are taken at equal intervals; the first is the start.
            seconds = (steps - 1) / (steps[-1] - 1) * results.table[name]["seconds"].mean
            _plot_curve(per_image, name, seconds, [e for _, e in curves["mse"]])
        else:
            _plot_curve(whole, name, steps, [e for _, e in curves["mse"]])
            if region_curve := curves.get("mse_interest"):
                _plot_curve(region, name, steps, [e for _, e in region_curve])
    for axes, title in ((whole, "whole image"), (region, "region of interest")):
        axes.set(xlabel="refinement step", ylabel="MSE", title=f"encoders, {title}")
        axes.xaxis.get_major_locator().set_params(integer=True)
    whole.set_yscale("log")  # IntereStyle does not reconstruct the background
    if not per_image.lines:
        figure.delaxes(per_image)
    per_image.set(xlabel=_SECONDS[1], ylabel="MSE", yscale="log", title="per-image optimisation, whole image")
    _add_legend(figure, 5)
    _save(figure, file)


def obstacles(results: Results, file: Path) -> None:
    """Plots the error of the visible and of the hidden region against the covered fraction of the face."""
    figure = _figure(11, 4.8)
    panels = (("mse_interest", "MSE, visible region"), ("mse_hidden", "MSE, hidden region"))
    for axes, (metric, title) in zip(figure.subplots(1, 2), panels, strict=True):
        for name, curves in results.obstacles.items():
            if points := curves.get(metric):
                _plot_curve(axes, name, np.array([x for x, _ in points]), [e for _, e in points])
        axes.set(xlabel="covered fraction of the face", ylabel=title, yscale="log")
    _add_legend(figure, 4)
    _save(figure, file)


def edits(results: Results, file: Path) -> None:
    """Plots the change of other attributes and the identity against the change of the target attribute."""
    attributes = list(next(iter(results.edits.values())))
    figure = _figure(3.0 * len(attributes), 6.6)
    grid = figure.subplots(2, len(attributes), sharex="col")
    for column, attribute in enumerate(attributes):
        for row, (measure, title) in enumerate(((OTHERS, "other attributes' change, std"), (IDENTITY, "identity"))):
            axes = grid[row][column]
            for name, found in results.edits.items():
                x, y = ([e.mean for e in found[attribute][key]] for key in (TARGET, measure))
                colour, marker = _STYLES[name]
                axes.plot(x, y, color=colour, marker=marker, markersize=4, linewidth=1, label=BY_NAME[name].title)
            if not row:
                axes.set_title("mean of all attributes" if attribute == ALL_ATTRIBUTES else attribute)
            axes.set(xlabel=_TARGET_CHANGE if row else "", ylabel=title if not column else "")
    strengths = ", ".join(f"{s:g}" for s in STRENGTHS)
    figure.suptitle(f"Edits of strength {strengths} (along each line)", fontsize=11)
    _add_legend(figure, 6)
    _save(figure, file)


def grid(images: Mapping[str, Mapping[str, np.ndarray]], faces: Mapping[str, Tensor], file: Path) -> None:
    """Draws the input faces and the reconstructions of all methods.

    Args:
        images: Method -> condition -> reconstructions (n, 3, R, R), uint8.
        faces: Condition -> input faces (n, 3, R, R).
        file: Path of the PNG.
    """
    columns = {"input": torch.cat(list(faces.values()))}
    for name, found in images.items():
        reconstructions = torch.cat([torch.from_numpy(found[condition]) for condition in faces])
        columns[BY_NAME[name].title.replace(" (reference)", "")] = from_uint8(reconstructions)
    sheet = contact_sheet(columns, cell=128)
    with atomic_write(file) as temporary:
        sheet.save(temporary, format="png")


def _plot_point(axes: Any, name: str, x: Estimate, y: Estimate) -> None:
    colour, marker = _STYLES[name]
    axes.errorbar(
        x.mean,
        y.mean,
        xerr=[[x.mean - x.low], [x.high - x.mean]],
        yerr=[[y.mean - y.low], [y.high - y.mean]],
        color=colour,
        marker=marker,
        markersize=8,
        linestyle="",
        linewidth=1,
        label=BY_NAME[name].title,
    )


def _plot_curve(axes: Any, name: str, x: np.ndarray, curve: Sequence[Estimate]) -> None:
    colour, marker = _STYLES[name]
    axes.plot(x, [e.mean for e in curve], color=colour, marker=marker, markersize=5, label=BY_NAME[name].title)
    axes.fill_between(x, [e.low for e in curve], [e.high for e in curve], color=colour, alpha=0.15, linewidth=0)


def _figure(width: float, height: float) -> Any:
    from matplotlib.figure import Figure  # slow to import

    return Figure(figsize=(width, height), layout="constrained")


def _tick_labels(axis: Any) -> Callable[[float, int], str]:
    """Returns a formatter of a logarithmic axis, which labels fewer ticks of each decade if there are many decades."""
    low, high = axis.get_view_interval()
    decades = np.log10(high / low)
    labelled = (1,) if decades > 2.5 else (1, 2, 5) if decades > 0.9 else (1, 2, 3, 5, 7)

    def label(value: float, _: int) -> str:
        return f"{value:g}" if round(value / 10 ** np.floor(np.log10(value)), 6) in labelled else ""

    return label


def _add_legend(figure: Any, columns: int) -> None:
    """Adds one legend for all axes, a grid, and plain numbers on logarithmic axes."""
    handles: dict[str, Any] = {}
    for axes in figure.axes:
        for axis in (axes.xaxis, axes.yaxis):
            if axis.get_scale() == "log":
                axis.set_major_formatter(_tick_labels(axis))
                axis.set_minor_formatter(_tick_labels(axis))
        axes.grid(True, which="major", color="0.9", linewidth=0.6)
        axes.set_axisbelow(True)
        for handle, label in zip(*axes.get_legend_handles_labels(), strict=True):
            handles.setdefault(label, handle)
    titles = [method.title for method in BY_NAME.values() if method.title in handles]
    figure.legend(
        [handles[title] for title in titles],
        titles,
        loc="outside lower center",
        ncols=columns,
        frameon=False,
        fontsize=9,
    )


def _save(figure: Any, file: Path) -> None:
    with atomic_write(file) as temporary:
        figure.savefig(temporary, dpi=110, format="png")
