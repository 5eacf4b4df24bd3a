"""Sections of a report, read from the files that a run or a sweep has written. Nothing is computed again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from markupsafe import Markup

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.visualization.html_page import (
    code,
    collapsible,
    definitions,
    figure,
    grid,
    side_by_side,
    table,
    tiles,
)
from stylegan_inv.visualization.line_chart import line_chart

#: Name of a metric that was measured after one refinement step.
_STEP = re.compile(r"(.+)_step(\d+)")

#: Heading -> parts of the section.
Sections = dict[str, list[str]]

#: Metrics in large type: key of metrics.json -> label.
_HEADLINES = {
    "val/mse": "mean squared error",
    "val/psnr": "PSNR, dB",
    "val/id": "identity",
    "val/perceptual": "perceptual distance",
    "val/lpips": "LPIPS",
    "val/ms_ssim": "MS-SSIM",
    "images_per_second": "training images/s",
    "seconds": "total seconds",
}
#: Heading -> prefixes of the columns of metrics.csv that the section plots.
_CHARTS = {"Losses": ("train/loss/",), "Validation": ("val/",), "Training": ("lr/", "grad_norm/", "perf/")}


def run_sections(folder: Path) -> Sections:
    """Returns the sections about a training run.

    Raises:
        UserError: If the folder holds no run, or a run without measurements.
    """
    run = RunFolder(folder)
    if not run.config_file.is_file():
        raise UserError(f"{folder}: no config.yaml in it, expected the folder of a run or of a sweep")
    metrics, rows = run.metrics(), _read_csv(run.logged_metrics_file)
    if not metrics and not rows:
        raise UserError(f"{folder}: neither metrics.json nor metrics.csv in it; the run has measured nothing yet")
    headlines = {label: metrics[key] for key, label in _HEADLINES.items() if key in metrics}
    sections: Sections = {"Result": [tiles(headlines)]}
    if not metrics:
        sections["Result"] = ["The run has not ended. This report shows what it has logged so far."]
    panel = folder / "panels" / "last.png"
    sections["Images"] = [figure(panel, "Held-out images in the last panel.")] if panel.is_file() else []
    for heading, prefixes in _CHARTS.items():
        sections[heading] = [grid(*_charts(rows, prefixes))]
    sections["Validation"].append(grid(*_charts_over_steps(metrics)))
    sections["Worst images"] = _worst_images(folder / "worst")
    sections["Latent codes"] = _latent_codes(folder / "codes")
    for file in sorted((folder / "evaluation").glob("*/metrics.json")):
        sections[f"Evaluation: {file.parent.name}"] = _evaluation(_read_json(file))
    sections["Reproduction"] = _reproduction(run, metrics)
    return sections


def sweep_sections(folder: Path) -> Sections:
    """Returns the sections about a sweep: its plot and a table of its jobs.

    Raises:
        UserError: If the sweep has not ended.
    """
    rows = _read_csv(folder / "sweep.csv")
    if not rows:
        raise UserError(f"{folder}: no sweep.csv in it; it is written when all jobs of a sweep have ended")
    plot = folder / "sweep.png"
    heads = list(rows[0])
    caption = "Every job, and the mean of the jobs that share a value."
    return {
        "Plot": [figure(plot, caption)] if plot.is_file() else [],
        "Jobs": [table(heads, [[_parsed(row[head]) for head in heads] for row in rows])],
    }


def _charts(rows: list[dict[str, str]], prefixes: tuple[str, ...]) -> list[Markup]:
    """Returns one chart for each column; the refinement steps of a metric share a chart."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    columns = dict.fromkeys(name for row in rows for name in row)
    for column in sorted(columns, key=lambda name: not name.endswith("/total")):
        prefix = next((prefix for prefix in prefixes if column.startswith(prefix)), None)
        if prefix is None:
            continue
        step = _STEP.fullmatch(column)
        title, series = (f"{step[1]}, by step", step[2]) if step else (column, "")
        points = [(float(row["step"]), float(row[column])) for row in rows if row.get(column) and row.get("step")]
        charts.setdefault(title.removeprefix(prefix if len(prefixes) == 1 else ""), {})[series] = points
    return [chart for title, series in charts.items() if (chart := line_chart(title, series))]


def _charts_over_steps(metrics: Mapping[str, Any]) -> list[Markup]:
    """Returns one chart for each metric that was measured after every refinement step."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for key, value in metrics.items():
        if step := _STEP.fullmatch(key):
            curves.setdefault(step[1].removeprefix("val/"), []).append((float(step[2]), value))
    return [line_chart(f"{name} over refinement steps", {"": sorted(points)}) for name, points in curves.items()]


def _worst_images(folder: Path) -> list[str]:
    rows = _read_csv(folder / "last.csv")
    if not rows or not (folder / "last.png").is_file():
        return []
    heads = [head for head in rows[0] if head != "step"]
    cells = [[row[head] if head == "image" else _parsed(row[head]) for head in heads] for row in rows]
    sheet = figure(folder / "last.png", "Sorted by error, largest first. The difference is shown twice as bright.")
    text = f"The held-out images with the largest error after step {rows[0]['step']}."
    return [text, side_by_side(sheet, table(heads, cells))]


def _latent_codes(folder: Path) -> list[str]:
    if not (folder / "last.png").is_file():
        return []
    content = _read_json(folder / "last.json")
    caption = (
        f"Latent codes of {content.get('images')} held-out images after step {content.get('step')}, compared with "
        "samples of W."
    )
    return [figure(folder / "last.png", caption)]


def _evaluation(content: Mapping[str, Any]) -> list[str]:
    """Returns table and protocol of a ``metrics.json`` that `stylegan_inv.evaluate` has written."""
    rows: list[list[object]] = []
    means: dict[str, dict[int, float]] = {}
    for name, summary in content.get("metrics", {}).items():
        if step := _STEP.fullmatch(name):
            means.setdefault(step[1], {})[int(step[2])] = summary["mean"]
            continue
        interval = "" if summary["low"] is None else f"{summary['low']:.4g} to {summary['high']:.4g}"
        rows.append([name, summary["mean"], summary["std"], interval, summary["count"], summary["skipped"]])
    images = content.get("counts", {}).get("images")
    rows += [[name, value, None, "", images, 0] for name, value in content.get("sets", {}).items()]
    parts: list[str] = [table(["metric", "mean", "std", "interval", "images", "skipped"], rows)]
    if steps := sorted({step for values in means.values() for step in values}):
        cells = [[name, *(values.get(step) for step in steps)] for name, values in means.items()]
        parts.append(collapsible("All refinement steps", table(["mean after", *(f"step {n}" for n in steps)], cells)))
    return [*parts, collapsible("Protocol", definitions(content.get("protocol", {})))]


def _reproduction(run: RunFolder, metrics: Mapping[str, Any]) -> list[str]:
    parts: list[str] = [definitions(_read_json(run.versions_file))]
    if metrics:
        parts.append(collapsible("All metrics", table(["metric", "value"], list(metrics.items()))))
    parts.append(collapsible("Config", code(run.config_file.read_text(encoding="utf-8"))))
    return parts


def _read_json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _read_csv(path: Path) -> list[dict[str, str]]:
    """Reads the complete rows of a table; a run that is still writing may have cut the last one."""
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _parsed(text: str) -> object:
    """Converts numbers with a decimal point or an exponent; other text, such as a seed, stays as it is."""
    try:
        return float(text) if "." in text or "e" in text else text
    except ValueError:
        return text
