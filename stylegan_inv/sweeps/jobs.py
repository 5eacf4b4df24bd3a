"""What became of the jobs of a sweep, and which values they differ in."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import yaml

from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.files import atomic_write

RECORD = "sweep.json"


@dataclass
class SweepJob:
    """A job of a sweep.

    Attributes:
        job: Its number.
        overrides: What it was told.
        exit_code: 0 when it finished.
        value: Of the optimised metric; None if it has none.
        folder: Where it ran.
        seconds: That it took.
    """

    job: int
    overrides: list[str]
    exit_code: int
    value: float | None
    folder: str
    seconds: float

    def metrics(self) -> dict[str, float]:
        """All figures of its ``metrics.json``; none if there is no such file."""
        return RunFolder(Path(self.folder)).metrics()

    def setting(self, name: str) -> str:
        """What an override gives to ``name``; empty where there is none."""
        return dict(_pair(override) for override in self.overrides).get(name, "")


def write_jobs(sweep_dir: Path, jobs: Sequence[SweepJob]) -> None:
    """Write ``sweep.json``; jobs of earlier batches, with smaller numbers, stay in it."""
    path = sweep_dir / RECORD
    before = [job for job in (_recorded(path) if path.is_file() else []) if job.job < jobs[0].job]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([asdict(job) for job in (*before, *jobs)], indent=2) + "\n")


def read_jobs(sweep_dir: Path, metric: str | None) -> list[SweepJob]:
    """The jobs of ``sweep.json``, or, with other launchers than ours, those that have left a folder.

    Args:
        sweep_dir: Of the sweep.
        metric: The optimised one, a key of ``metrics.json``.
    """
    if (sweep_dir / RECORD).is_file():
        return _recorded(sweep_dir / RECORD)
    jobs = []
    for told in sorted(sweep_dir.glob("*/.hydra/overrides.yaml"), key=lambda path: _number(path.parents[1])):
        folder = told.parents[1]
        figures = RunFolder(folder).metrics()
        overrides = [str(override) for override in yaml.safe_load(told.read_text()) or []]
        value = figures.get(metric or "")
        jobs.append(
            SweepJob(_number(folder), overrides, int(not figures), value, str(folder), figures.get("seconds", 0.0))
        )
    return jobs


def swept(jobs: Sequence[SweepJob]) -> list[str]:
    """The names that do not have the same value in all jobs, in the order of the overrides."""
    names = dict.fromkeys(_pair(override)[0] for job in jobs for override in job.overrides)
    return [name for name in names if len({job.setting(name) for job in jobs}) > 1]


def best_job(jobs: Sequence[SweepJob], goal: str) -> SweepJob | None:
    """The job with the best value.

    Args:
        jobs: Of the sweep.
        goal: ``minimize`` or ``maximize``.
    """
    scored = [(job.value if goal == "minimize" else -job.value, job.job) for job in jobs if job.value is not None]
    finite = [pair for pair in scored if pair[0] == pair[0]]
    number = min(finite)[1] if finite else None
    return next((job for job in jobs if job.job == number), None)


def _recorded(path: Path) -> list[SweepJob]:
    return [SweepJob(**row) for row in json.loads(path.read_text())]


def _number(folder: Path) -> int:
    return int(folder.name) if folder.name.isdigit() else 0


def _pair(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.lstrip("+"), value
