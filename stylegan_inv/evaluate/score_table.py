"""What an evaluation leaves: a table in the terminal, ``metrics.json``, ``table.md`` and one row for each image."""

from __future__ import annotations

import csv
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.markup import escape
from rich.table import Table
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.scoring import STEP
from stylegan_inv.metrics.confidence import Summary
from stylegan_inv.utils.files import atomic_write

METRICS, TABLE = "metrics.json", "table.md"
PER_IMAGE_SUFFIXES = (".csv", ".parquet")


@dataclass
class Report:
    """Everything that is known at the end.

    Attributes:
        protocol: What was compared how, label -> text; printed above the table.
        counts: ``images``, ``of`` (so many there are), ``unreadable``, ``not_finite`` and the like.
        summaries: Column -> summary.
        sets: Metric of two sets of images -> value.
        better: Column or set metric -> whether higher is better; None where neither is.
        seconds: Timings of the method, see `runtime.evaluation_speed`; empty for pictures.
    """

    protocol: Mapping[str, str]
    counts: Mapping[str, Any]
    summaries: Mapping[str, Summary]
    sets: Mapping[str, float]
    better: Mapping[str, bool | None]
    seconds: Mapping[str, Any]

    def metrics(self) -> dict[str, Any]:
        """Plain numbers for ``metrics.json``; what is not a number is null."""
        content = {
            "protocol": dict(self.protocol),
            "counts": dict(self.counts),
            "metrics": {name: asdict(summary) for name, summary in self.summaries.items()},
            "sets": dict(self.sets),
            "seconds": dict(self.seconds),
        }
        return _plain(content)

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """The main table: heads and cells."""
        heads = ["metric", "mean", "std", "interval", "images", "skipped"]
        rows = []
        for name, s in self.summaries.items():
            if STEP not in name:
                interval = f"{_number(s.low)} to {_number(s.high)}"
                rows.append([self._name(name), _number(s.mean), _number(s.std), interval, str(s.count), str(s.skipped)])
        images = str(self.counts["images"])
        rows += [[self._name(name), _number(value), "", "", images, "0"] for name, value in self.sets.items()]
        for batch, sample in {sample["batch"]: sample for sample in self.seconds.values()}.items():
            name = f"seconds an image, {'one at a time' if batch == 1 else f'batch of {batch}'} ↓"
            measured = f"{sample['calls']} calls{'' if sample['warm'] else ', not warm'}"
            rows.append([name, _number(sample["median"]), "", measured, str(batch), ""])
        return heads, rows

    def step_rows(self) -> tuple[list[str], list[list[str]]]:
        """The table of refinement steps, means only: heads and cells; no row for methods that do not refine."""
        steps = sorted({int(name.rpartition(STEP)[2]) for name in self.summaries if STEP in name})
        names = (
            [name.rpartition(STEP)[0] for name in self.summaries if name.endswith(f"{STEP}{steps[-1]}")]
            if steps
            else []
        )
        rows = [
            [self._name(name), *(_number(self.summaries[f"{name}{STEP}{step}"].mean) for step in steps)]
            for name in names
        ]
        return ["mean after", *(f"step {step}" for step in steps)], rows

    def print(self) -> None:
        """Protocol and tables in the terminal."""
        console = Console()
        if not console.is_terminal:
            console = Console(width=120)
        for label, text in self.protocol.items():
            console.print(f"{label + ':':<18}{escape(text)}", highlight=False, soft_wrap=True)
        for heads, rows in (self.rows(), self.step_rows()):
            if not rows:
                continue
            table = Table()
            for number, head in enumerate(heads):
                table.add_column(head, justify="left" if number == 0 else "right", overflow="fold")
            for row in rows:
                table.add_row(*row)
            console.print(table)

    def markdown(self) -> str:
        """Protocol and tables as Markdown."""
        parts = ["\n".join(f"* {label}: {text}" for label, text in self.protocol.items())]
        for heads, rows in (self.rows(), self.step_rows()):
            if rows:
                line = "|---|" + "---:|" * (len(heads) - 1)
                parts.append("\n".join([_line(heads), line, *(_line(row) for row in rows)]))
        return "\n\n".join(parts) + "\n"

    def _name(self, column: str) -> str:
        better = self.better.get(column)
        return column if better is None else f"{column} {'↑' if better else '↓'}"


def write_report(report: Report, folder: Path) -> None:
    """Write ``metrics.json`` and ``table.md``."""
    for name, text in ((METRICS, json.dumps(report.metrics(), indent=2) + "\n"), (TABLE, report.markdown())):
        with atomic_write(folder / name) as temporary:
            temporary.write_text(text, encoding="utf-8")


def check_per_image(name: str) -> None:
    """Raise a UserError unless per-image values can be written to a file of this name."""
    if Path(name).suffix not in PER_IMAGE_SUFFIXES or Path(name).name != name:
        raise UserError(f"per_image={name}: expected a file name ending in {' or '.join(PER_IMAGE_SUFFIXES)}")
    if name.endswith(".parquet"):
        _pyarrow()


def write_per_image(file: Path, index: Sequence[int], names: Sequence[str], columns: Mapping[str, Tensor]) -> None:
    """One row for each image: its index, name and values; empty cells (null in Parquet) where it has none."""
    with atomic_write(file) as temporary:
        if file.suffix == ".parquet":
            arrow, parquet = _pyarrow()
            content = {name: [None if math.isnan(v) else v for v in t.tolist()] for name, t in columns.items()}
            parquet.write_table(arrow.table({"index": list(index), "name": list(names), **content}), temporary)
            return
        with open(temporary, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["index", "name", *columns])
            for row, (number, name) in enumerate(zip(index, names, strict=True)):
                values = [float(t[row]) for t in columns.values()]
                writer.writerow([number, name, *("" if math.isnan(v) else repr(v) for v in values)])


def _pyarrow() -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError:
        raise UserError("per_image=….parquet needs pyarrow (pip install pyarrow); or give per_image=….csv") from None
    return pyarrow, pyarrow.parquet


def _number(value: float) -> str:
    return "-" if math.isnan(value) else f"{value:.4g}"


def _line(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(key): _plain(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_plain(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
