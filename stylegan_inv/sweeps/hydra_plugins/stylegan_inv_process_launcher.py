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

from stylegan_inv.config import program
from stylegan_inv.errors import UserError
from stylegan_inv.sweeps.jobs import SweepJob, write_jobs
from stylegan_inv.sweeps.summary import summarise


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
        done: list[SweepJob] = []
        metric = OmegaConf.select(self.config, "optimized_metric")
        for number, (overrides, cfg, folder) in enumerate(jobs, start=initial_job_idx):
            print(f"job {number}: {' '.join(overrides)}", flush=True)
            started = time.monotonic()
            code = _run([*program(_program()), *overrides, *_of_job(sweep_dir, folder, cfg, overrides)])
            value = _value(folder, metric) if code == 0 else None
            done.append(SweepJob(number, overrides, code, value, str(folder), round(time.monotonic() - started, 1)))
            write_jobs(sweep_dir, done)
        if any(job.exit_code for job in done):  # the sweeper is going to raise, and then nobody else does it
            summarise(sweep_dir, self.config)
        return [self._return(job, row, done) for job, row in zip(jobs, done, strict=True)]

    def _job(self, number: int, overrides: list[str]) -> tuple[list[str], DictConfig, Path]:
        cfg = self.hydra_context.config_loader.load_sweep_config(self.config, overrides)
        with open_dict(cfg):
            cfg.hydra.job.id = cfg.hydra.job.num = number
        folder = Path(str(cfg.hydra.sweep.dir)).absolute() / str(cfg.hydra.sweep.subdir)
        own = [o for o in filter_overrides(overrides) if not o.startswith("hydra/")]
        return own, cfg, folder

    @staticmethod
    def _return(job: tuple[list[str], DictConfig, Path], row: SweepJob, rows: list[SweepJob]) -> JobReturn:
        overrides, cfg, folder = job
        result = JobReturn(overrides=overrides, cfg=cfg, working_dir=str(folder), task_name=f"job {row.job}")
        if row.exit_code == 0:
            result.status, result.return_value = JobStatus.COMPLETED, row.value
        else:
            failed = [str(r.job) for r in rows if r.exit_code]
            result.status = JobStatus.FAILED
            result.return_value = UserError(f"{len(failed)} of {len(rows)} jobs failed: {', '.join(failed)}")
        return result


def _program() -> str:
    import __main__

    spec = getattr(__main__, "__spec__", None)
    return spec.name if spec is not None else "stylegan_inv.train"


def _of_job(sweep_dir: Path, folder: Path, cfg: DictConfig, overrides: Sequence[str]) -> list[str]:
    """Where a job runs; a config of ``conf/sweep`` asks for a sweep, which a job is not."""
    return [f"hydra.run.dir={_quoted(folder)}", "hydra.mode=RUN"]


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


def _quoted(folder: Path | str) -> str:
    escaped = str(folder).replace("\\", "\\\\").replace("'", "\\'")
    return f"'{escaped}'"
