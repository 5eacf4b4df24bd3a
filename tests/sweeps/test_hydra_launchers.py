"""Every launcher starts a process per job; a job that is killed does not stop the others, and a table is printed.

The jobs are small programs instead of trainings; `tests/faults/test_sweep.py` has a sweep of real ones.
"""

from __future__ import annotations

import importlib.util
import json
import os
import sys
from pathlib import Path

import pytest

from stylegan_inv import train
from stylegan_inv.config import hydra_command
from stylegan_inv.config.hydra_command import HydraTask

#: Leaves what a training would leave; the one with seed=2 is killed.
JOB = """
import json, os, signal, sys
overrides = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = overrides["hydra.run.dir"][1:-1].replace(chr(92), "")
if overrides["seed"] == "2":
    os.kill(os.getpid(), signal.SIGKILL)
os.makedirs(folder, exist_ok=True)
with open(os.path.join(folder, "metrics.json"), "w") as file:
    metrics = {"val/mse": float(overrides["seed"]), "seconds": 1.5}
    json.dump({**metrics, "process": os.getpid(), "overrides": overrides}, file)
"""


def needs(launcher: str, plugin: str):
    found = importlib.util.find_spec("hydra_plugins") and importlib.util.find_spec(f"hydra_plugins.{plugin}")
    reason = f"{plugin} is absent: pip install 'stylegan_inv[sweep]'"
    return pytest.param(launcher, marks=pytest.mark.skipif(not found, reason=reason))


@pytest.mark.parametrize(
    "launcher",
    [
        "process",
        needs("joblib", "hydra_joblib_launcher"),
        needs("submitit_local", "hydra_submitit_launcher"),
    ],
)
def test_a_process_for_each_job(
    launcher: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hydra_command, "program", lambda module: [sys.executable, "-S", "-c", JOB])
    sweep = "the 'sweep'" if launcher == "process" else "sweep"
    escaped = sweep.replace("'", "\\'")
    more = ["hydra.launcher.n_jobs=2"] if launcher == "joblib" else []
    arguments = ["-m", f"hydra/launcher={launcher}", *more, "seed=1,2,3", f"hydra.sweep.dir='{escaped}'"]
    monkeypatch.setattr(sys, "argv", ["train", *arguments])
    with pytest.raises(SystemExit) as stop:
        train.main()
    assert stop.value.code == 2
    found = {seed: json.loads((tmp_path / sweep / str(seed - 1) / "metrics.json").read_text()) for seed in (1, 3)}
    assert found[1]["process"] != found[3]["process"] and os.getpid() not in (found[1]["process"], found[3]["process"])
    for seed, metrics in found.items():
        assert metrics["overrides"]["seed"] == str(seed) and metrics["overrides"]["hydra.mode"] == "RUN"
        assert metrics["overrides"]["logger.wandb.group"][1:-1].replace("\\", "") == sweep
    assert not (tmp_path / sweep / "1" / "metrics.json").exists()
    printed = capsys.readouterr()
    rows = [line for line in printed.out.splitlines() if line.startswith("│")]
    assert len(rows) == 3 and "best" in rows[0] and "failed" in rows[1] and "done" in rows[2]
    error = printed.err.strip().splitlines()[-1]
    assert error.startswith("error: ") and ("job 1 of the sweep failed (exit code -9)" in error or "failed: 1" in error)
    assert len((tmp_path / sweep / "sweep.csv").read_text().splitlines()) == 4


def test_basic_launcher_and_the_value_that_sweepers_search_by(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    values: list[float] = []
    real = HydraTask.__call__
    monkeypatch.setattr(HydraTask, "__call__", lambda task, cfg: values.append(real(task, cfg)) or values[-1])
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(hydra_command, "program", lambda module: [sys.executable, "-S", "-c", JOB])
    monkeypatch.setattr(sys, "argv", ["train", "-m", "hydra/launcher=basic", "seed=5,7", "hydra.sweep.dir=sweep"])
    train.main()
    assert values == [5.0, 7.0]
    assert json.loads(Path("sweep/1/metrics.json").read_text())["process"] != os.getpid()
