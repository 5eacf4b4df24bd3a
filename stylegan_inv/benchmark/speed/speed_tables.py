"""Measurements of speed as tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from rich.table import Table


def speed_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Returns the table of rows of `stylegan_inv.utils.timing.row`."""
    columns = ["what", "pass", "ms", "spread", "CPU ms", "x reference", "of roofline", "peak MB"]
    columns += ["x frozen"] * ("times_frozen" in rows[0])
    columns += ["difference"] * ("difference" in rows[0])
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("what", "pass") else "right", no_wrap=True)
    for row in rows:
        cells = [row["what"], row["pass"]]
        cells += [f"{row[key] * 1e3:.2f}" for key in ("seconds", "spread", "cpu_seconds")]
        cells += [f"{row['times_reference']:.2f}", f"{row['of_roofline']:.0%}"]
        cells.append("-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}")
        if "times_frozen" in row:
            cells.append("-" if row["times_frozen"] is None else f"{row['times_frozen']:.2f}")
        cells += [f"{row['difference']:.0e}"] if "difference" in row else []
        table.add_row(*cells)
    return table


def world_table(rows: Sequence[Mapping[str, Any]], title: str) -> Table:
    """Returns the table of rows of `stylegan_inv.benchmark.speed.embedded_speed.run`."""
    table = Table(title=title, title_justify="left")
    for column in ("what", "ms/image", "spread", "images/s", "x reference"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['ms_per_image']:.2f}",
            f"±{row['iqr_ms']:.2f}",
            f"{row['images_per_second']:.0f}",
            f"{row['ratio_to_reference']:.1f}",
        )
    return table
