"""Hydra launcher that gives each job of a sweep a fresh process.

Hydra loads launchers only from the namespace package ``hydra_plugins``; `stylegan_inv.config` adds this folder to the
path. The config is ``conf/hydra/launcher/process.yaml``.
"""

from __future__ import annotations

import time
from collections.abc import Sequence
from pathlib import Path

from hydra.core.utils import JobReturn, JobStatus, filter_overrides
from hydra.plugins.launcher import Launcher
from hydra.types import HydraContext, TaskFunction
from omegaconf import DictConfig, OmegaConf, open_dict

from stylegan_inv.config import hydra_command
from stylegan_inv.errors import UserError
from stylegan_inv.runtime import sweep_process
from stylegan_inv.sweeps.jobs import SweepJob, write_jobs
from stylegan_inv.utils.files import TolerantWriter, check_links


class ProcessLauncher(Launcher):
    """Runs the jobs one after the other, each as ``python -m stylegan_inv.train <its overrides>``.

    A job releases its memory when it ends, its ranks start and end with it, and if it crashes, the other jobs run
    nevertheless; the table at the end shows the result of each. A sweep that was stopped continues in the same folder:
    jobs that have finished are not run again.
    """

    def setup(self, *, hydra_context: HydraContext, task_function: TaskFunction, config: DictConfig) -> None:
        """Stores what Hydra passes."""
        self.hydra_context, self.config = hydra_context, config

    def launch(self, job_overrides: Sequence[Sequence[str]], initial_job_idx: int) -> Sequence[JobReturn]:
        """Runs all jobs; a failed one raises when the sweeper reads its value."""
        sweep_dir = Path(str(self.config.hydra.sweep.dir)).absolute()
        check_links(sweep_dir)
        sweep_dir.mkdir(parents=True, exist_ok=True)
        jobs = [self._job(number, list(o)) for number, o in enumerate(job_overrides, start=initial_job_idx)]
        done: list[SweepJob] = []
        writer = TolerantWriter()
        metric = OmegaConf.select(self.config, "optimized_metric")
        for number, (overrides, cfg, folder) in enumerate(jobs, start=initial_job_idx):
            print(f"job {number}: {' '.join(overrides)}", flush=True)
            started = time.monotonic()
            more = sweep_process.job_overrides(folder, sweep_dir, cfg, overrides)
            code = sweep_process.run_job([*hydra_command.program(_program()), *overrides, *more])
            value = sweep_process.metric_of(folder, metric) if code == 0 else None
            done.append(SweepJob(number, overrides, code, value, str(folder), round(time.monotonic() - started, 1)))
            with writer.writing(sweep_dir):
                write_jobs(sweep_dir, done)
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
