"""Results of an evaluation: tables in the terminal, ``metrics.json``, ``table.md`` and one row per image."""

from __future__ import annotations

import csv
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
from stylegan_inv.evaluate.columns import Column
from stylegan_inv.metrics.confidence import Summary
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.text import cell_text, json_text, readable

METRICS, TABLE = "metrics.json", "table.md"
_PER_IMAGE_SUFFIXES = (".csv", ".parquet")


@dataclass
class Results:
    """All results of an evaluation.

    Attributes:
        protocol: Label -> description, printed above the table.
        counts: ``images``, ``of`` (all images of the data), ``left_out``, ``left_out_names`` and ``not_finite``.
        summaries: Column -> summary of its values.
        sets: Metric of two sets of images -> value.
        higher_is_better: Name of a column or of a metric of sets -> whether higher is better; None if neither is.
        seconds: Inference times, see `seconds_per_image`; empty for image files.
    """

    protocol: Mapping[str, str]
    counts: Mapping[str, Any]
    summaries: Mapping[Column, Summary]
    sets: Mapping[str, float]
    higher_is_better: Mapping[str, bool | None]
    seconds: Mapping[str, Any]

    def print(self) -> None:
        """Prints the protocol and the tables."""
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
                table.add_column(escape(head), justify="left" if number == 0 else "right", overflow="fold")
            for row in rows:
                table.add_row(*map(escape, row))
            console.print(table)

    def write(self, folder: Path) -> None:
        """Writes ``metrics.json`` and ``table.md``."""
        for name, text in ((METRICS, json_text(self.metrics())), (TABLE, readable(self.markdown()))):
            with atomic_write(folder / name) as temporary:
                temporary.write_text(text, encoding="utf-8")

    def metrics(self) -> dict[str, Any]:
        """Returns the content of ``metrics.json``: plain numbers, null for those that are not finite."""
        content = {
            "protocol": dict(self.protocol),
            "counts": dict(self.counts),
            "metrics": {str(column): asdict(summary) for column, summary in self.summaries.items()},
            "sets": dict(self.sets),
            "seconds": dict(self.seconds),
        }
        return _finite(content)

    def markdown(self) -> str:
        """Returns the protocol and the tables as Markdown."""
        parts = ["\n".join(f"* {label}: {text}" for label, text in self.protocol.items())]
        for heads, rows in (self.rows(), self.step_rows()):
            if rows:
                line = "|---|" + "---:|" * (len(heads) - 1)
                parts.append("\n".join([_line(heads), line, *(_line(row) for row in rows)]))
        return "\n\n".join(parts) + "\n"

    def rows(self) -> tuple[list[str], list[list[str]]]:
        """Returns the heads and cells of the main table, which has the values of the final reconstructions."""
        heads = ["metric", "mean", "std", "interval", "images", "skipped"]
        rows = []
        for column, s in self.summaries.items():
            if not column.step:
                interval = f"{_number(s.low)} to {_number(s.high)}"
                cells = [_number(s.mean), _number(s.std), interval, str(s.count), str(s.skipped)]
                rows.append([self._with_arrow(str(column)), *cells])
        images = str(self.counts["images"])
        rows += [[self._with_arrow(name), _number(value), "", "", images, "0"] for name, value in self.sets.items()]
        for batch, sample in {sample["batch"]: sample for sample in self.seconds.values()}.items():
            name = f"seconds per image, batch of {batch} ↓"
            calls = f"{sample['calls']} calls{'' if sample['warm'] else ', not warm'}"
            rows.append([name, _number(sample["median"]), "", calls, str(batch), ""])
        return heads, rows

    def step_rows(self) -> tuple[list[str], list[list[str]]]:
        """Returns the heads and cells of the table of refinement steps, which has means; no rows without steps."""
        steps = sorted({column.step for column in self.summaries if column.step})
        last = [column for column in self.summaries if steps and column.step == steps[-1]]
        rows = [
            [
                self._with_arrow(column.label),
                *(_number(self.summaries[Column(column.metric, column.interest, step)].mean) for step in steps),
            ]
            for column in last
        ]
        return ["mean after", *(f"step {step}" for step in steps)], rows

    def _with_arrow(self, name: str) -> str:
        better = self.higher_is_better.get(name)
        return name if better is None else f"{name} {'↑' if better else '↓'}"


def check_per_image(name: str) -> None:
    """Checks the name of the file with the values of each image.

    Raises:
        UserError: Another suffix than .csv and .parquet, a path, or .parquet without pyarrow.
    """
    if Path(name).suffix.lower() not in _PER_IMAGE_SUFFIXES or Path(name).name != name:
        raise UserError(f"per_image={name}: expected a file name ending in {' or '.join(_PER_IMAGE_SUFFIXES)}")
    if name.lower().endswith(".parquet"):
        _pyarrow()


def write_per_image(file: Path, index: Sequence[int], names: Sequence[str], columns: Mapping[str, Tensor]) -> None:
    """Writes one row per image: its index, name and values; missing values are empty (null in Parquet).

    Args:
        file: CSV or Parquet file.
        index: Indices of the images, (N,).
        names: Names of the images, (N,).
        columns: Name -> values (N,); NaN for missing values.
    """
    with atomic_write(file) as temporary:
        if file.suffix.lower() == ".parquet":
            arrow, parquet = _pyarrow()
            content = {name: [None if math.isnan(v) else v for v in t.tolist()] for name, t in columns.items()}
            parquet.write_table(
                arrow.table({"index": list(index), "name": [readable(name) for name in names], **content}), temporary
            )
            return
        with open(temporary, "w", newline="", encoding="utf-8") as out:
            writer = csv.writer(out)
            writer.writerow(["index", "name", *columns])
            for row, (number, name) in enumerate(zip(index, names, strict=True)):
                values = [float(t[row]) for t in columns.values()]
                writer.writerow([number, cell_text(name), *("" if math.isnan(v) else repr(v) for v in values)])


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


def _finite(value: Any) -> Any:
    """Returns plain containers in which None replaces numbers that are not finite."""
    if isinstance(value, Mapping):
        return {str(key): _finite(entry) for key, entry in value.items()}
    if isinstance(value, (list, tuple)):
        return [_finite(entry) for entry in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
