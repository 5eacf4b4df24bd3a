"""Hydra launcher that gives each job of a sweep a fresh process.

Hydra takes launchers from the namespace package ``hydra_plugins`` only; `stylegan_inv.config` puts this folder on the
path. Its config is ``conf/hydra/launcher/process.yaml``.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from stylegan_inv.errors import UserError


class ProcessLauncher(Launcher):
    """Runs the jobs one after the other, each as ``python -m stylegan_inv.train <its overrides>``.

    A job's memory is really freed, several ranks in a job start and end with it, and a job that crashes is recorded
    while the others go on; the table at the end says what became of each. A sweep of the same folder goes on where it
    was stopped: jobs that are finished are not run again.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Called by Hydra."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Run all jobs; failed ones raise when the sweeper asks for their value."""
        sweep_dir = Path(str(self.config.hydra.sweep.dir)).absolute()
        sweep_dir.mkdir(parents=True, exist_ok=True)
        jobs = [self._job(number, list(o)) for number, o in enumerate(job_overrides, start=initial_job_idx)]
        rows = []
        for number, (overrides, cfg, folder) in enumerate(jobs, start=initial_job_idx):
            print(f"job {number}: {' '.join(overrides)}", flush=True)
            started = time.monotonic()
            code = _run([*_command(), *overrides, f"hydra.run.dir={_quoted(folder)}"])
            value = _value(folder, OmegaConf.select(cfg, "optimized_metric")) if code == 0 else None
            rows.append(
                {
                    "job": number, "overrides": overrides, "exit_code": code, "value": value, "folder": str(folder),
                    "seconds": round(time.monotonic() - started, 1),
                }
            )  # fmt: skip
            (sweep_dir / "sweep.json").write_text(json.dumps(rows, indent=2) + "\n")
        _print_table(rows, OmegaConf.select(self.config, "optimized_metric"))
        return [self._return(job, row, rows) for job, row in zip(jobs, rows, strict=True)]

    def _job(self, number: int, overrides: list[str]) -> tuple[list[str], DictConfig, Path]:
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        folder = Path(str(cfg.hydra.sweep.dir)).absolute() / str(cfg.hydra.sweep.subdir)
        own = [o for o in filter_overrides(overrides) if not o.startswith("hydra/")]
        return own, cfg, folder

    @staticmethod
    def _return(job: tuple[list[str], DictConfig, Path], row: dict[str, Any], rows: list[dict[str, Any]]) -> JobReturn:
        overrides, cfg, folder = job
        result = JobReturn(overrides=overrides, cfg=cfg, working_dir=str(folder), task_name=f"job {row['job']}")
        if row["exit_code"] == 0:
            result.status, result.return_value = JobStatus.COMPLETED, row["value"]
        else:
            failed = [str(r["job"]) for r in rows if r["exit_code"]]
            result.status = JobStatus.FAILED
            result.return_value = UserError(f"{len(failed)} of {len(rows)} jobs failed: {', '.join(failed)}")
        return result


def _command() -> list[str]:
    """This program again, with what it was told about where configs lie."""
    import __main__

    spec = getattr(__main__, "__spec__", None)
    command = [sys.executable, "-m", spec.name if spec is not None else "stylegan_inv.train"]
    arguments = iter(sys.argv[1:])
    for argument in arguments:
        if argument in ("--config-dir", "-cd", "--config-name", "-cn", "--config-path", "-cp"):
            command += [argument, next(arguments)]
        elif argument.startswith(("--config-dir=", "--config-name=", "--config-path=")):
            command.append(argument)
    return command


def _run(command: list[str]) -> int:
    """Run a job; its exit code. A signal to stop is handed on, and ends the sweep when the job has ended."""
    process = subprocess.Popen(command)
    asked: list[int] = []

    def stop(signum: int, frame: Any) -> None:
        asked.append(signum)
        if signum != signal.SIGINT:  # Ctrl-C reaches the job by itself
            process.send_signal(signum)

    former = {signum: signal.signal(signum, stop) for signum in (signal.SIGTERM, signal.SIGINT)}
    try:
        code = process.wait()
    finally:
        for signum, handler in former.items():
            signal.signal(signum, handler)
    if asked:
        print("sweep stopped; the same command with the same hydra.sweep.dir goes on", file=sys.stderr)
        raise SystemExit(128 + asked[0])
    return code


def _value(folder: Path, metric: str | None) -> float | None:
    try:
        value = json.loads((folder / "metrics.json").read_text()).get(metric)
    except (OSError, ValueError):
        return None
    return None if value is None else float(value)


def _quoted(folder: Path) -> str:
    escaped = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"


def _print_table(rows: list[dict[str, Any]], metric: str | None) -> None:
    from rich.console import Console
    from rich.table import Table

    shared = set.intersection(*(set(row["overrides"]) for row in rows)) if len(rows) > 1 else set()
    table = Table(title="sweep", title_justify="left")
    for column in ("job", "what", str(metric), "seconds", "result"):
        table.add_column(column)
    for row in rows:
        what = " ".join(o for o in row["overrides"] if o not in shared)
        value = "" if row["value"] is None else f"{row['value']:.4g}"
        result = "done" if row["exit_code"] == 0 else f"failed (exit code {row['exit_code']})"
        table.add_row(str(row["job"]), what, value, f"{row['seconds']:.0f}", result)
    Console().print(table)
