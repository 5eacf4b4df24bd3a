"""Prints tables in the terminal."""

from __future__ import annotations

from collections.abc import Mapping

from rich.console import Console
from rich.markup import escape
from rich.table import Table


def print_metrics(metrics: Mapping[str, float], title: str) -> None:
    """Prints validation metrics and timings as a table.

    Args:
        metrics: Name -> value; names with a slash other than ``val/...`` are not printed.
        title: Title of the table.
    """
    table = Table(title=escape(title), title_justify="left")
    table.add_column("metric")
    table.add_column("value", justify="right")
    for name, value in metrics.items():
        if name.startswith("val/") or "/" not in name:
            table.add_row(escape(name), f"{value:.4g}")
    Console().print(table)
