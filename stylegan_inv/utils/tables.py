"""Tables for the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.table import Table


def print_metrics(metrics: Mapping[str, float], title: str) -> None:
    """Print validation figures and timings as a table, one line each."""
    table = Table(title=title, title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        if name.startswith("val/") or "/" not in name:
            table.add_row(name, f"{value:.4g}")
    Console().print(table)
