"""Writes ``metrics.csv``, one row per logged step."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

from pytorch_lightning.loggers import Logger
from pytorch_lightning.loggers.logger import rank_zero_experiment
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from stylegan_inv.utils.files import atomic_write


class MetricsCSV(Logger):
    """Logger that appends each row to the file immediately, so that no row is lost when the process is killed.

    A new column rewrites the file. A resumed run continues the file. Lightning's own CSV logger deletes the file when a
    run is resumed in its folder, and keeps rows in memory.

    Args:
        run_dir: Folder of the run.
    """

    def __init__(self, run_dir: str | Path) -> None:
        super().__init__()
        self.path = Path(run_dir) / "metrics.csv"
        self._columns: list[str] = []

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
        row = {"step": step, **{name: float(value) for name, value in metrics.items()}}
        new = [name for name in row if name not in self._columns]
        if new or not self.path.is_file():
            self._columns += new
            self._write([*self.rows(), row])
            return
        with self.path.open("a", newline="") as file:
            csv.DictWriter(file, self._columns).writerow(row)

    def rows(self) -> list[dict[str, Any]]:
        """Returns the rows of the file, without a row that was written in part."""
        if not self.path.is_file():
            return []
        with self.path.open(newline="") as file:
            rows = list(csv.DictReader(file))
        return [row for row in rows if (row.get("step") or "").isdigit() and None not in row.values()]

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
            self._write(kept)
        else:
            self.path.unlink(missing_ok=True)

    def _write(self, rows: list[dict[str, Any]]) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(self.path) as temporary, temporary.open("w", newline="") as file:
            writer = csv.DictWriter(file, self._columns)
            writer.writeheader()
            writer.writerows(rows)


def _is_validation(item: tuple[str, Any]) -> bool:
    name, value = item
    return name.startswith("val/") and value not in ("", None)
