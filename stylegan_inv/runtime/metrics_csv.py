"""Writes ``metrics.csv``, one row per logged step."""

from __future__ import annotations

import csv
import errno
import io
import os
import re
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import TolerantWriter, atomic_write
from stylegan_inv.utils.regular_files import read_text

#: Longer numbers are no steps, and Python does not read those of 4,300 digits.
_STEP = re.compile("[0-9]{1,18}")
#: A million rows of 60 metrics.
_MOST_BYTES = 1 << 30


class MetricsCSV(Logger):
    """Logger that appends each row to the file immediately, so that no row is lost when the process is killed.

    A new column rewrites the file. A resumed run continues the file. Rows that cannot be written, because the disk
    is full, are written later. Lightning's own CSV logger deletes the file when a run is resumed in its folder, and
    keeps rows in memory.

    Args:
        run_dir: Folder of the run.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []
        self._unwritten: list[dict[str, Any]] = []
        self._writer = TolerantWriter()

    @property
    def name(self) -> str:
        """Empty: the file is in the run folder itself."""
        return ""

    @property
    def version(self) -> str:  # noqa: D102
        return ""

    @property
    def save_dir(self) -> str:  # noqa: D102
        return str(self.path.parent)

    @property
    @rank_zero_experiment
    def experiment(self) -> MetricsCSV:
        """The logger itself."""
        return self

    def log_hyperparams(self, *args: Any, **kwargs: Any) -> None:
        """Does nothing: ``config.yaml`` holds the hyper-parameters."""

    @rank_zero_only
    def log_metrics(self, metrics: dict[str, float], step: int | None = None) -> None:
        """Writes one row."""
        self._unwritten.append({"step": step, **{name: float(value) for name, value in metrics.items()}})
        with self._writer.writing(self.path):
            self._write_waiting()

    @rank_zero_only
    def finalize(self, status: str) -> None:
        """Writes the rows that could not be written before."""
        if self._unwritten:
            with self._writer.writing(self.path):
                self._write_waiting()

    def _write_waiting(self) -> None:
        waiting = self._unwritten
        new = dict.fromkeys(name for row in waiting for name in row if name not in self._columns)
        if new or len(waiting) > 1 or not self.path.is_file():
            try:
                before = self.rows()
            except UserError as error:  # damaged by somebody else during the training, which goes on
                raise OSError(errno.EIO, str(error), str(self.path)) from error
            self._write([*before, *waiting], [*self._columns, *new])
        else:
            self._append(waiting[0])
        self._unwritten = []

    def _append(self, row: dict[str, Any]) -> None:
        text = io.StringIO(newline="")
        csv.DictWriter(text, self._columns).writerow(row)
        content = text.getvalue().encode()
        with self.path.open("ab", buffering=0) as file:
            end = file.seek(0, os.SEEK_END)
            if file.write(content) != len(content):  # the disk is full; the next row must not continue this one
                file.truncate(end)
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(self.path))

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of the file, without a row that was written in part.

        Raises:
            UserError: The file is not one of metrics.
        """
        if not self.path.is_file():
            return []
        try:
            text = read_text(self.path, _MOST_BYTES, "the metrics of a run")
            rows = list(csv.DictReader(io.StringIO(text, newline="")))
        except (UserError, csv.Error) as error:
            raise UserError(f"{self.path}: cannot be continued ({error}); move it to start a new one") from error
        return [row for row in rows if _STEP.fullmatch(row.get("step") or "") and None not in row.values()]

    @rank_zero_only
    def drop_rows_after(self, batches: int, validation_too: bool = False) -> None:
        """Drops the rows that a resumed run is going to log again.

        Args:
            batches: Number of finished training batches to keep; batch ``n`` is logged in row ``step = n - 1``.
            validation_too: Also drop the validation after the last of these batches.
        """
        rows = self.rows()
        kept = [
            row
            for row in rows
            if int(row["step"]) < batches
            and not (validation_too and int(row["step"]) == batches - 1 and any(_is_validation(i) for i in row.items()))
        ]
        self._columns = list(rows[0]) if kept else []
        if kept:
            self._write(kept, self._columns)
        else:
            self.path.unlink(missing_ok=True)

    def _write(self, rows: list[dict[str, Any]], columns: list[str]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, columns)
            writer.writeheader()
            writer.writerows(rows)
        self._columns = columns


def _is_validation(item: tuple[str, Any]) -> bool:
    name, value = item
    return name.startswith("val/") and value not in ("", None)
