"""A config of ``conf/sweep`` starts a sweep without ``-m``; Optuna's trials are jobs like others.

The jobs are small programs instead of trainings.
"""

from __future__ import annotations

import importlib.util
import json
import sys
from pathlib import Path

import pytest
import yaml

from stylegan_inv import train
from stylegan_inv.config import hydra_command

#: Leaves the error of a parabola in the learning rate, or of the iterations.
JOB = """
import json, math, os, sys
overrides = dict(argument.split("=", 1) for argument in sys.argv[1:])
folder = overrides["hydra.run.dir"][1:-1]
os.makedirs(folder, exist_ok=True)
lr, iterations = (float(overrides.get(*pair)) for pair in (("optimizer.lr", 0.001), ("method.iterations", 0)))
error = (math.log10(lr) + 2.5) ** 2 + iterations
with open(os.path.join(folder, "metrics.json"), "w") as file:
    json.dump({"val/mse": error, "seconds": 1.5, "overrides": overrides}, file)
"""


def sweep(monkeypatch: pytest.MonkeyPatch, folder: Path, *arguments: str) -> list[dict]:
    """Runs a sweep in ``folder`` and returns the ``metrics.json`` of each job."""
    monkeypatch.chdir(folder)
    monkeypatch.setattr(hydra_command, "program", lambda module: [sys.executable, "-S", "-c", JOB])
    monkeypatch.setattr(sys, "argv", ["train", *arguments, "hydra.sweep.dir=sweep"])
    train.main()
    jobs = json.loads((folder / "sweep" / "sweep.json").read_text())
    return [json.loads((Path(job["folder"]) / "metrics.json").read_text()) for job in jobs]


def test_no_flag_is_needed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = sweep(monkeypatch, tmp_path, "sweep=refinement_steps", "hydra.sweeper.params={method.iterations:'1,2'}")
    assert [job["overrides"]["method.iterations"] for job in left] == ["1", "2"]
    for job in left:
        assert job["overrides"]["sweep"] == "refinement_steps" and job["overrides"]["hydra.mode"] == "RUN"
        assert job["overrides"]["logger.wandb.group"] == "'sweep'"
    table = (tmp_path / "sweep" / "sweep.md").read_text().splitlines()
    assert "method.iterations" in table[0] and "best" in table[2] and (tmp_path / "sweep" / "sweep.png").is_file()


def test_a_group_that_was_given_stays(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    left = sweep(monkeypatch, tmp_path, "-m", "method.iterations=1,2", "logger.wandb.group=mine")
    assert [job["overrides"]["logger.wandb.group"] for job in left] == ["mine", "mine"]
    for logger in ("none", "csv"):
        (tmp_path / logger).mkdir()
        (job,) = sweep(monkeypatch, tmp_path / logger, "-m", f"logger={logger}", "seed=1")
        assert "logger.wandb.group" not in job["overrides"]


@pytest.mark.slow
@pytest.mark.skipif(importlib.util.find_spec("optuna") is None, reason="optuna: pip install 'stylegan_inv[sweep]'")
def test_optuna_searches(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    arguments = ["sweep=optuna", "hydra.sweeper.n_trials=6", "hydra.sweeper.params={loss.id.weight:'choice(0,0.1)'}"]
    left = sweep(monkeypatch, tmp_path, *arguments)
    rates = [float(job["overrides"]["optimizer.lr"]) for job in left]
    assert len(set(rates)) == 6 and all(1e-4 <= rate <= 1e-2 for rate in rates)
    assert {job["overrides"]["loss.id.weight"] for job in left} <= {"0", "0.1"}
    results = yaml.safe_load((tmp_path / "sweep" / "optimization_results.yaml").read_text())
    assert results["best_value"] == pytest.approx(min(job["val/mse"] for job in left))
    assert len((tmp_path / "sweep" / "sweep.csv").read_text().splitlines()) == 7, "all batches, not the last one only"
