"""Summarises a sweep: a table in the terminal, ``sweep.md``, ``sweep.csv`` and a plot."""

from __future__ import annotations

import csv
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.experimental.callback import Callback
from omegaconf import DictConfig, OmegaConf
from rich.console import Console
from rich.markup import escape
from rich.table import Table

from stylegan_inv.errors import UserError
from stylegan_inv.sweeps.jobs import RECORD, SweepJob, best_job, read_jobs, swept
from stylegan_inv.sweeps.plot import plot_sweep
from stylegan_inv.utils.command_line import report_error
from stylegan_inv.utils.files import atomic_write

TABLE, VALUES, PLOT = "sweep.md", "sweep.csv", "sweep.png"


class SweepSummary(Callback):
    """Hydra callback that summarises a sweep after its last job, with any launcher and sweeper."""

    def on_multirun_start(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: D102
        try:
            check_folder(Path(str(config.hydra.sweep.dir)).absolute())
        except UserError as error:  # Hydra turns exceptions of callbacks into warnings, but not SystemExit
            sys.exit(report_error(error))

    def on_multirun_end(self, config: DictConfig, **kwargs: Any) -> None:  # noqa: D102
        summarise(Path(str(config.hydra.sweep.dir)).absolute(), config)


def check_folder(sweep_dir: Path) -> None:
    """Checks that the summary of a sweep replaces no file of something else.

    Args:
        sweep_dir: Folder of the sweep, which may be that of an earlier or an interrupted one.

    Raises:
        UserError: It holds such a file, or a record of jobs that cannot be read.
    """
    if (sweep_dir / RECORD).is_file():
        read_jobs(sweep_dir, None)
    elif there := [name for name in (TABLE, VALUES, PLOT, RECORD) if os.path.lexists(sweep_dir / name)]:
        # Other launchers than `ProcessLauncher` write no record; Hydra writes the config of every sweep.
        if not (sweep_dir / "multirun.yaml").is_file():
            raise UserError(
                f"{sweep_dir}: holds {', '.join(there)}, which no sweep has written; give another hydra.sweep.dir"
            )


def summarise(sweep_dir: Path, cfg: DictConfig) -> None:
    """Prints the table of a sweep, and writes the table, the metrics and the plot into its folder.

    Args:
        sweep_dir: Folder of the sweep.
        cfg: Config with ``optimized_metric`` and ``optimized_goal``.
    """
    metric, goal = str(OmegaConf.select(cfg, "optimized_metric")), str(OmegaConf.select(cfg, "optimized_goal"))
    jobs = read_jobs(sweep_dir, metric)
    if not jobs:
        return
    heads, rows = table(jobs, metric, goal)
    _print(heads, rows)
    with atomic_write(sweep_dir / TABLE) as temporary:
        lines = ["| " + " | ".join(row) + " |" for row in (heads, *rows)]
        lines.insert(1, "|---:|" + "---|" * (len(heads) - 1))
        temporary.write_text("\n".join(lines) + "\n", encoding="utf-8")
    _write_values(sweep_dir / VALUES, jobs)
    print(f"{'table:':<12}{sweep_dir / TABLE}")
    if plot_sweep(jobs, metric, goal, sweep_dir / PLOT):
        print(f"{'plot:':<12}{sweep_dir / PLOT}")


def table(jobs: Sequence[SweepJob], metric: str, goal: str) -> tuple[list[str], list[list[str]]]:
    """Returns heads and one row per job: number, swept values, metric, seconds and result."""
    names, best = swept(jobs), best_job(jobs, goal)
    rows = []
    for job in jobs:
        value = "" if job.value is None else f"{job.value:.4g}"
        result = f"failed (exit code {job.exit_code})" if job.exit_code else "best" if job is best else "done"
        rows.append([str(job.job), *(job.setting(name) for name in names), value, f"{job.seconds:.0f}", result])
    return ["job", *names, metric, "seconds", "result"], rows


def _write_values(path: Path, jobs: Sequence[SweepJob]) -> None:
    """Writes every validation metric of every job."""
    names, metrics = swept(jobs), [job.metrics() for job in jobs]
    columns = sorted({name for row in metrics for name in row if name.startswith("val/")})
    with atomic_write(path) as temporary, open(temporary, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow(["job", *names, *columns, "seconds", "exit_code"])
        for job, row in zip(jobs, metrics, strict=True):
            values = [job.setting(name) for name in names] + [row.get(column, "") for column in columns]
            writer.writerow([job.job, *values, job.seconds, job.exit_code])


def _print(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    shown = Table(title="sweep", title_justify="left")
    for head in heads:
        shown.add_column(escape(head), overflow="fold")
    for row in rows:
        shown.add_row(*(escape(cell) for cell in row))
    Console().print(shown)
