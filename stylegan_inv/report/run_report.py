"""What a report says about a run or a sweep: read from the files in its folder, nothing is computed again."""

from __future__ import annotations

import csv
import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.visualization.html_page import Html, beside, code, facts, folded, grid, picture, table, tiles
from stylegan_inv.visualization.svg_curves import curves

#: A figure after a refinement step.
_STEP = re.compile(r"(.+)_step(\d+)")

Sections = dict[str, list[str]]

#: What is shown large, if the run has it: key of metrics.json -> what it is called.
_HEADLINES = {
    "val/mse": "mean squared error",
    "val/psnr": "PSNR, dB",
    "val/id": "identity",
    "val/perceptual": "perceptual distance",
    "val/lpips": "LPIPS",
    "val/ms_ssim": "MS-SSIM",
    "images_per_second": "training images/s",
    "seconds": "seconds in all",
}
#: Heading -> prefixes of the columns of metrics.csv that are drawn below it.
_CURVES = {"Losses": ("train/loss/",), "Validation": ("val/",), "Training": ("lr/", "grad_norm/", "perf/")}


def run_sections(folder: Path) -> Sections:
    """Everything about a training run.

    Raises:
        UserError: No run, or one that has measured nothing yet.
    """
    run = RunFolder(folder)
    if not run.config_file.is_file():
        raise UserError(f"{folder}: no config.yaml in it, expected the folder of a run or of a sweep")
    metrics, rows = run.metrics(), _rows(run.logged_metrics_file)
    if not metrics and not rows:
        raise UserError(f"{folder}: neither metrics.json nor metrics.csv in it; the run has measured nothing yet")
    sections: Sections = {"Result": [tiles({name: metrics[key] for key, name in _HEADLINES.items() if key in metrics})]}
    if not metrics:
        sections["Result"] = ["The run has not ended: what follows is what it has logged so far."]
    last = folder / "panels" / "last.png"
    sections["Pictures"] = [picture(last, "Held-out images, as the last panel shows them.")] if last.is_file() else []
    for heading, prefixes in _CURVES.items():
        sections[heading] = [grid(*_charts(rows, prefixes))]
    sections["Validation"].append(grid(*_over_steps(metrics)))
    sections["Worst images"] = _worst(folder / "worst")
    sections["Codes"] = _codes(folder / "codes")
    for evaluated in sorted((folder / "evaluation").glob("*/metrics.json")):
        sections[f"Evaluation: {evaluated.parent.name}"] = _evaluation(_json(evaluated))
    sections["How it was made"] = _origin(folder, metrics)
    return sections


def sweep_sections(folder: Path) -> Sections:
    """The jobs of a sweep and its plot."""
    rows = _rows(folder / "sweep.csv")
    if not rows:
        raise UserError(f"{folder}: no sweep.csv in it; it is written when all jobs of a sweep have ended")
    plot = folder / "sweep.png"
    heads = list(rows[0])
    jobs = table(heads, [[_number(row[head]) for head in heads] for row in rows])
    return {
        "Plot": [picture(plot, "Every job, and the mean of those that share a value.")] if plot.is_file() else [],
        "Jobs": [jobs],
    }


def _charts(rows: list[dict[str, str]], prefixes: tuple[str, ...]) -> list[Html]:
    """A chart for each column, one for all refinement steps of the same metric."""
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
    return [chart for title, series in charts.items() if (chart := curves(title, series))]


def _over_steps(metrics: Mapping[str, Any]) -> list[Html]:
    """A chart for each metric that was measured after every refinement step."""
    found: dict[str, list[tuple[float, float]]] = {}
    for key, value in metrics.items():
        if step := _STEP.fullmatch(key):
            found.setdefault(step[1].removeprefix("val/"), []).append((float(step[2]), value))
    return [curves(f"{name} over refinement steps", {"": sorted(points)}) for name, points in found.items()]


def _worst(folder: Path) -> list[str]:
    rows = _rows(folder / "last.csv")
    if not rows or not (folder / "last.png").is_file():
        return []
    heads = [head for head in rows[0] if head != "step"]
    said = f"The held-out images with the largest error, after step {rows[0]['step']}."
    listed = table(heads, [[_number(row[head]) if head != "image" else row[head] for head in heads] for row in rows])
    return [said, beside(picture(folder / "last.png", "From the worst on; the difference is twice as bright."), listed)]


def _codes(folder: Path) -> list[str]:
    if not (folder / "last.png").is_file():
        return []
    found = _json(folder / "last.json")
    said = f"Codes of {found.get('images')} held-out images beside codes of W, after step {found.get('step')}."
    return [picture(folder / "last.png", said)]


def _evaluation(found: Mapping[str, Any]) -> list[str]:
    """Table and protocol of ``metrics.json`` as `stylegan_inv.evaluate` writes it."""
    rows: list[list[object]] = []
    means: dict[str, dict[int, float]] = {}
    for name, s in found.get("metrics", {}).items():
        if step := _STEP.fullmatch(name):
            means.setdefault(step[1], {})[int(step[2])] = s["mean"]
            continue
        interval = "" if s["low"] is None else f"{s['low']:.4g} to {s['high']:.4g}"
        rows.append([name, s["mean"], s["std"], interval, s["count"], s["skipped"]])
    images = found.get("counts", {}).get("images")
    rows += [[name, value, None, "", images, 0] for name, value in found.get("sets", {}).items()]
    parts: list[str] = [table(["metric", "mean", "std", "interval", "images", "skipped"], rows)]
    if steps := sorted({step for values in means.values() for step in values}):
        listed = [[name, *(values.get(step) for step in steps)] for name, values in means.items()]
        parts.append(folded("Every refinement step", table(["mean after", *(f"step {n}" for n in steps)], listed)))
    return [*parts, folded("Protocol", facts(found.get("protocol", {})))]


def _origin(folder: Path, metrics: Mapping[str, Any]) -> list[str]:
    parts: list[str] = [facts(_json(RunFolder(folder).versions_file))]
    if metrics:
        parts.append(folded("All figures", table(["figure", "value"], list(metrics.items()))))
    parts.append(folded("Config", code(RunFolder(folder).config_file.read_text(encoding="utf-8"))))
    return parts


def _json(path: Path) -> dict[str, Any]:
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}
    return content if isinstance(content, dict) else {}


def _rows(path: Path) -> list[dict[str, str]]:
    if not path.is_file():
        return []
    with path.open(newline="", encoding="utf-8") as file:
        return [row for row in csv.DictReader(file) if None not in row.values()]


def _number(text: str) -> object:
    try:
        return float(text) if "." in text or "e" in text else text
    except ValueError:
        return text
