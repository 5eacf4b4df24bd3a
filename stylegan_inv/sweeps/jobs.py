"""The jobs of a sweep: their results, and the values in which they differ."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.checks import real_number, whole_number
from stylegan_inv.utils.files import atomic_write, leads_into
from stylegan_inv.utils.plain_data import check_plain, read_yaml
from stylegan_inv.utils.regular_files import read_bytes

RECORD = "sweep.json"
#: Size limit of a record, in which a job has about 1 kB.
_MOST_BYTES = 1 << 26


@dataclass
class SweepJob:
    """A job of a sweep.

    Attributes:
        job: Number of the job.
        overrides: Overrides of the job.
        exit_code: 0 if it finished.
        value: Value of the optimised metric; None if there is none.
        folder: Folder of the job.
        seconds: Duration.
    """

    job: int
    overrides: list[str]
    exit_code: int
    value: float | None
    folder: str
    seconds: float

    def check(self, name: str) -> None:
        """Checks the types of a job that was read from a file.

        Args:
            name: Name of the job, for errors.

        Raises:
            UserError: An attribute of another type.
        """
        whole_number(f"{name}: job", self.job, 0)
        whole_number(f"{name}: exit_code", self.exit_code, None)
        real_number(f"{name}: seconds", self.seconds, 0)
        if self.value is not None and _number_in(self.value) is None:
            raise UserError(f"{name}: value is {self.value!r:.60}, expected a number or null")
        if not isinstance(self.overrides, list) or not all(isinstance(one, str) for one in self.overrides):
            raise UserError(f"{name}: overrides is {self.overrides!r:.60}, expected a list of texts")
        if not isinstance(self.folder, str) or "\0" in self.folder:
            raise UserError(f"{name}: folder is {self.folder!r:.60}, expected a path")

    def metrics(self) -> dict[str, float]:
        """Returns the content of its ``metrics.json``; empty without one."""
        return RunFolder(Path(self.folder)).metrics()

    def setting(self, name: str) -> str:
        """Returns the value that an override sets for a name; empty if there is none."""
        return dict(_pair(override) for override in self.overrides).get(name, "")


def write_jobs(sweep_dir: Path, jobs: Sequence[SweepJob]) -> None:
    """Writes ``sweep.json``; jobs of earlier batches, which have smaller numbers, are kept."""
    path = sweep_dir / RECORD
    before = [job for job in (_recorded(path) if path.is_file() else []) if job.job < jobs[0].job]
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps([asdict(job) for job in (*before, *jobs)], indent=2) + "\n")


def read_jobs(sweep_dir: Path, metric: str | None) -> list[SweepJob]:
    """Returns the jobs in ``sweep.json``, or, after other launchers than `ProcessLauncher`, those that have a folder.

    Args:
        sweep_dir: Folder of the sweep.
        metric: Optimised metric, a key of ``metrics.json``.
    """
    if (sweep_dir / RECORD).is_file():
        return _recorded(sweep_dir / RECORD)
    jobs = []
    for file in sorted(sweep_dir.glob("*/.hydra/overrides.yaml"), key=lambda path: _number(path.parents[1])):
        folder = file.parents[1]
        metrics = RunFolder(folder).metrics()
        read = read_yaml(file, interpolations=True)
        overrides = [str(override) for override in read] if isinstance(read, list) else []
        value, seconds = _number_in(metrics.get(metric or "")), _number_in(metrics.get("seconds")) or 0.0
        jobs.append(SweepJob(_number(folder), overrides, int(not metrics), value, str(folder), seconds))
    return jobs


def swept(jobs: Sequence[SweepJob]) -> list[str]:
    """Returns the names whose values differ between jobs, in the order of the overrides."""
    names = dict.fromkeys(_pair(override)[0] for job in jobs for override in job.overrides)
    return [name for name in names if len({job.setting(name) for job in jobs}) > 1]


def best_job(jobs: Sequence[SweepJob], goal: str) -> SweepJob | None:
    """Returns the job with the best value; None if no job has a finite one.

    Args:
        jobs: Jobs of the sweep.
        goal: ``minimize`` or ``maximize``.
    """
    scored = [(job.value if goal == "minimize" else -job.value, job.job) for job in jobs if job.value is not None]
    finite = [pair for pair in scored if pair[0] == pair[0]]
    number = min(finite)[1] if finite else None
    return next((job for job in jobs if job.job == number), None)


def _recorded(path: Path) -> list[SweepJob]:
    """Returns the jobs in a record, which may come from a stranger, or have been moved with the sweep."""
    try:
        rows = check_plain(json.loads(read_bytes(path, _MOST_BYTES)))
        jobs = [SweepJob(**row) for row in rows]
        for number, job in enumerate(jobs):
            job.check(f"job {number}")
            if not leads_into(Path(job.folder), path.parent):
                job.folder = str(path.parent / Path(job.folder).name)
        return jobs
    except (UserError, OSError, ValueError, TypeError, RecursionError) as error:
        raise UserError(f"{path}: cannot be read ({error}); expected the record of a sweep") from error


def _number_in(value: Any) -> float | None:
    """Returns a number of a ``metrics.json``; None for anything else."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _number(folder: Path) -> int:
    return int(folder.name) if re.fullmatch("[0-9]+", folder.name) else 0


def _pair(override: str) -> tuple[str, str]:
    name, _, value = override.partition("=")
    return name.lstrip("+"), value
