"""Sections of a report, read from the files that a run or a sweep has written. Nothing is computed again."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from markupsafe import Markup

from stylegan_inv.errors import UserError
from stylegan_inv.report.folder_reader import FolderReader
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
_STEP = re.compile(r"(.+)_step(\d{1,4})")
METRICS, LOGGED = "metrics.json", "metrics.csv"
_MOST_CHARTS, _MOST_LINES = 100, 32
#: Problems that an error message names.
_MOST_REASONS = 3
#: More refinement steps than any method takes.
_MOST_STEPS = 1000

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


def run_sections(reader: FolderReader) -> Sections:
    """Returns the sections about a training run.

    Raises:
        UserError: If the folder holds no run, or a run without measurements.
    """
    folder = reader.folder
    if not RunFolder(folder).config_file.is_file():
        raise UserError(f"{folder}: no config.yaml in it, expected the folder of a run or of a sweep")
    metrics = _numbers(reader, METRICS, reader.json(METRICS))
    rows = reader.table(LOGGED)
    if not metrics and not rows:
        raise UserError(
            f"{folder}: neither metrics.json nor metrics.csv in it; the run has measured nothing yet{_reasons(reader)}"
        )
    headlines = {label: metrics[key] for key, label in _HEADLINES.items() if key in metrics}
    sections: Sections = {"Result": [tiles(headlines)]}
    if not metrics:
        sections["Result"] = ["The run has not ended. This report shows what it has logged so far."]
    sections["Images"] = _figure(reader, "panels/last.png", "Held-out images in the last panel.")
    steps = [reader.number(LOGGED, row.get("step"), "step") for row in rows]
    for heading, prefixes in _CHARTS.items():
        sections[heading] = [grid(*_charts(reader, rows, steps, prefixes))]
    sections["Validation"].append(grid(*_charts_over_steps(metrics)))
    sections["Worst images"] = _worst_images(reader)
    sections["Latent codes"] = _latent_codes(reader)
    for name in reader.names("evaluation/*/metrics.json"):
        sections[f"Evaluation: {name.split('/')[-2]}"] = _evaluation(reader, name)
    sections["Reproduction"] = _reproduction(reader, metrics)
    return {**sections, **_left_out(reader)}


def sweep_sections(reader: FolderReader) -> Sections:
    """Returns the sections about a sweep: its plot and a table of its jobs.

    Raises:
        UserError: If the sweep has not ended.
    """
    rows = reader.first_rows("sweep.csv")
    if not rows:
        raise UserError(
            f"{reader.folder}: no sweep.csv with jobs in it; it is written when all jobs of a sweep have ended"
            f"{_reasons(reader)}"
        )
    heads = list(rows[0])
    sections: Sections = {
        "Plot": _figure(reader, "sweep.png", "Every job, and the mean of the jobs that share a value."),
        "Jobs": [table(heads, [[_parsed(row[head]) for head in heads] for row in rows])],
    }
    return {**sections, **_left_out(reader)}


def _reasons(reader: FolderReader) -> str:
    return f" ({'; '.join(reader.notes[:_MOST_REASONS])})" if reader.notes else ""


def _left_out(reader: FolderReader) -> Sections:
    return {"Not shown": list(reader.notes)} if reader.notes else {}


def _figure(reader: FolderReader, name: str, caption: str) -> list[str]:
    picture = reader.picture(name)
    return [] if picture is None else [figure(picture, caption)]


def _numbers(reader: FolderReader, name: str, content: Mapping[str, Any]) -> dict[str, float]:
    """Returns the entries that are finite numbers."""
    numbers = {str(key): reader.number(name, value) for key, value in content.items()}
    return {key: number for key, number in numbers.items() if number is not None}


def _charts(
    reader: FolderReader, rows: list[dict[str, str]], steps: list[float | None], prefixes: tuple[str, ...]
) -> list[Markup]:
    """Returns one chart for each column; the refinement steps of a metric share a chart."""
    charts: dict[str, dict[str, list[tuple[float, float]]]] = {}
    columns = list(rows[0]) if rows else []  # all rows are complete
    for column in sorted(columns, key=lambda name: not name.endswith("/total")):
        prefix = next((prefix for prefix in prefixes if column.startswith(prefix)), None)
        if prefix is None or len(charts) >= _MOST_CHARTS:
            continue
        step = _STEP.fullmatch(column)
        title, series = (f"{step[1]}, by step", step[2]) if step else (column, "")
        values = (reader.number(LOGGED, row[column], column) for row in rows)
        points = [(x, y) for x, y in zip(steps, values, strict=True) if x is not None and y is not None]
        lines = charts.setdefault(title.removeprefix(prefix if len(prefixes) == 1 else ""), {})
        if len(lines) < _MOST_LINES:
            lines[series] = points
    return [chart for title, series in charts.items() if (chart := line_chart(title, series))]


def _charts_over_steps(metrics: Mapping[str, float]) -> list[Markup]:
    """Returns one chart for each metric that was measured after every refinement step."""
    curves: dict[str, list[tuple[float, float]]] = {}
    for key, value in metrics.items():
        if step := _STEP.fullmatch(key):
            curves.setdefault(step[1].removeprefix("val/"), []).append((float(step[2]), value))
    return [line_chart(f"{name} over refinement steps", {"": sorted(points)}) for name, points in curves.items()]


def _worst_images(reader: FolderReader) -> list[str]:
    rows = reader.first_rows("worst/last.csv")
    caption = "Sorted by error, largest first. The difference is shown twice as bright."
    sheet = _figure(reader, "worst/last.png", caption)
    if not rows or not sheet:
        return []
    heads = [head for head in rows[0] if head != "step"]
    cells = [[row[head] if head == "image" else _parsed(row[head]) for head in heads] for row in rows]
    after = f" after step {rows[0]['step']}" if "step" in rows[0] else ""
    return [f"The held-out images with the largest error{after}.", side_by_side(*sheet, table(heads, cells))]


def _latent_codes(reader: FolderReader) -> list[str]:
    content = reader.json("codes/last.json")
    caption = (
        f"Latent codes of {content.get('images')} held-out images after step {content.get('step')}, compared with "
        "samples of W."
    )
    return _figure(reader, "codes/last.png", caption)


def _evaluation(reader: FolderReader, name: str) -> list[str]:
    """Returns table and protocol of a ``metrics.json`` that `stylegan_inv.evaluate` has written."""
    content = reader.json(name)
    rows: list[list[object]] = []
    means: dict[str, dict[int, float | None]] = {}
    for metric, summary in _part(content, "metrics").items():
        values = {key: reader.number(name, _mapping(summary).get(key)) for key in ("mean", "std", "low", "high")}
        counts = [reader.number(name, _mapping(summary).get(key)) for key in ("count", "skipped")]
        if step := _STEP.fullmatch(metric):
            means.setdefault(step[1], {})[int(step[2])] = values["mean"]
            continue
        low, high = values["low"], values["high"]
        interval = "" if low is None or high is None else f"{low:.4g} to {high:.4g}"
        whole = [None if count is None else int(count) for count in counts]
        rows.append([metric, values["mean"], values["std"], interval, *whole])
    images = _part(content, "counts").get("images")
    rows += [[key, value, None, "", images, 0] for key, value in _numbers(reader, name, _part(content, "sets")).items()]
    parts: list[str] = [table(["metric", "mean", "std", "interval", "images", "skipped"], rows)]
    if steps := sorted({step for values in means.values() for step in values})[:_MOST_STEPS]:
        shown = list(means.items())[:_MOST_CHARTS]
        cells = [[metric, *(values.get(step) for step in steps)] for metric, values in shown]
        parts.append(collapsible("All refinement steps", table(["mean after", *(f"step {n}" for n in steps)], cells)))
    return [*parts, collapsible("Protocol", definitions(_part(content, "protocol")))]


def _mapping(value: Any) -> Mapping[str, Any]:
    return value if isinstance(value, dict) else {}


def _part(content: Mapping[str, Any], key: str) -> Mapping[str, Any]:
    return _mapping(content.get(key))


def _reproduction(reader: FolderReader, metrics: Mapping[str, float]) -> list[str]:
    parts: list[str] = [definitions(reader.json("versions.json"))]
    if metrics:
        parts.append(collapsible("All metrics", table(["metric", "value"], list(metrics.items()))))
    parts.append(collapsible("Config", code(reader.text("config.yaml"))))
    return parts


def _parsed(text: str) -> object:
    """Converts numbers with a decimal point or an exponent; other text, such as a seed, stays as it is."""
    try:
        return float(text) if "." in text or "e" in text else text
    except ValueError:
        return text
