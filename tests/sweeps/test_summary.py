"""Summary of a sweep: jobs, table, values and plot, from jobs with known metrics."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import pytest
import yaml
from matplotlib.figure import Figure
from omegaconf import OmegaConf
from PIL import Image

from stylegan_inv.sweeps import plot
from stylegan_inv.sweeps.jobs import SweepJob, best_job, read_jobs, swept, write_jobs
from stylegan_inv.sweeps.summary import summarise

CFG = OmegaConf.create({"optimized_metric": "val/mse", "optimized_goal": "minimize"})


def make_job(folder: Path, number: int, value: float | None, *overrides: str) -> SweepJob:
    job_folder = folder / str(number)
    (job_folder / ".hydra").mkdir(parents=True)
    (job_folder / ".hydra" / "overrides.yaml").write_text(yaml.safe_dump(list(overrides)))
    if value is not None:
        metrics = {"val/mse": value, "val/psnr": 10.0 + number, "train/loss/l2": 1.0, "seconds": 5.0}
        (job_folder / "metrics.json").write_text(json.dumps(metrics))
    return SweepJob(number, list(overrides), 0 if value is not None else 2, value, str(job_folder), 5.0)


@pytest.fixture
def jobs(tmp_path: Path) -> list[SweepJob]:
    """Two weights and two seeds, and a job that failed."""
    made = [
        make_job(tmp_path, number, value, "method=psp", f"+loss.a.weight={weight}", f"seed={seed}")
        for number, (weight, seed, value) in enumerate(
            [(0.1, 0, 0.5), (0.1, 1, 0.3), (1.0, 0, 0.2), (1.0, 1, 0.25), (9.0, 0, None)]
        )
    ]
    write_jobs(tmp_path, made)
    return made


def test_table_values_and_plot(jobs: list[SweepJob], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    summarise(tmp_path, CFG)
    lines = [
        [c.strip() for c in line.strip("|").split("|")] for line in (tmp_path / "sweep.md").read_text().split("\n")
    ]
    assert lines[0] == ["job", "loss.a.weight", "seed", "val/mse", "seconds", "result"], "method is the same in all"
    assert [line[-1] for line in lines[2:7]] == ["done", "done", "best", "done", "failed (exit code 2)"]
    assert lines[4][:4] == ["2", "1.0", "0", "0.2"]
    with (tmp_path / "sweep.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [row["val/psnr"] for row in rows] == ["10.0", "11.0", "12.0", "13.0", ""]
    assert "train/loss/l2" not in rows[0] and rows[4]["exit_code"] == "2"
    assert Image.open(tmp_path / "sweep.png").size[0] > 300
    printed = capsys.readouterr().out
    assert "sweep.md" in printed and "sweep.png" in printed and "best" in printed


def test_goal_decides_what_is_best(jobs: list[SweepJob]) -> None:
    assert best_job(jobs, "minimize") is jobs[2] and best_job(jobs, "maximize") is jobs[0]
    nan = SweepJob(7, ["a=1"], 0, float("nan"), "", 1.0)
    assert best_job([nan], "minimize") is None and best_job([nan, jobs[0]], "minimize") is jobs[0]


def test_mean_line_is_over_the_seeds(jobs: list[SweepJob]) -> None:
    axes = Figure().subplots()
    plot._panel(axes, jobs[:4], "loss.a.weight", jobs[2], alone=True)
    (line,) = axes.get_lines()
    assert list(line.get_xdata()) == [0.1, 1.0]
    assert list(line.get_ydata()) == pytest.approx([(0.5 + 0.3) / 2, (0.2 + 0.25) / 2])
    assert axes.get_xscale() == "log" and axes.collections[0].get_offsets().tolist() == [
        [0.1, 0.5], [0.1, 0.3], [1.0, 0.2], [1.0, 0.25],
    ]  # fmt: skip


def test_words_and_searches(tmp_path: Path) -> None:
    words = [SweepJob(n, [f"encoder={e}"], 0, v, "", 1.0) for n, (e, v) in enumerate([("fpn", 0.1), ("small", 0.2)])]
    assert plot.plot_sweep(words, "val/mse", "minimize", tmp_path / "words.png")
    search = [SweepJob(n, [f"a=0.{n}1", f"b=0.{n}2"], 0, 0.1 * n + 0.1, "", 1.0) for n in range(3)]
    axes = Figure().subplots()
    plot._panel(axes, search, "a", search[0], alone=False)
    assert not axes.get_lines(), "no job shares a value with another: there is no mean"
    assert not plot.plot_sweep([SweepJob(0, ["a=1"], 1, None, "", 1.0)], "val/mse", "minimize", tmp_path / "none.png")
    assert not (tmp_path / "none.png").exists()


def test_jobs_of_other_launchers_are_found_by_their_folders(jobs: list[SweepJob], tmp_path: Path) -> None:
    recorded = read_jobs(tmp_path, "val/mse")
    assert recorded == jobs and swept(recorded) == ["loss.a.weight", "seed"]
    (tmp_path / "sweep.json").unlink()
    found = read_jobs(tmp_path, "val/mse")
    assert [(job.job, job.overrides, job.value) for job in found] == [(j.job, j.overrides, j.value) for j in jobs]
    assert [bool(job.exit_code) for job in found] == [False] * 4 + [True]


def test_a_later_batch_adds_jobs_and_a_new_sweep_replaces_them(jobs: list[SweepJob], tmp_path: Path) -> None:
    later = SweepJob(5, ["seed=9"], 0, 0.1, "", 1.0)
    write_jobs(tmp_path, [later])
    assert [job.job for job in read_jobs(tmp_path, None)] == [0, 1, 2, 3, 4, 5]
    write_jobs(tmp_path, [jobs[0]])
    assert [job.job for job in read_jobs(tmp_path, None)] == [0]
