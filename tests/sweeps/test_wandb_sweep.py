"""A sweep of Weights & Biases runs the same jobs as the Hydra sweep that it is translated from."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

import pytest
import yaml
from hydra import compose, initialize_config_dir
from hydra._internal.core_plugins.basic_sweeper import BasicSweeper
from hydra.core.override_parser.overrides_parser import OverridesParser
from omegaconf import OmegaConf

from stylegan_inv.config import CONF_DIR
from stylegan_inv.errors import UserError
from stylegan_inv.sweeps.__main__ import main
from stylegan_inv.sweeps.wandb_sweep import wandb_sweep

GRIDS = sorted(path.stem for path in (Path(CONF_DIR) / "sweep").glob("*.yaml") if path.stem != "optuna")


def agents_jobs(sweep: dict[str, Any]) -> list[list[str]]:
    """The command lines of a grid, made as wandb's agent makes them."""
    utils = pytest.importorskip("wandb.sdk.launch.sweeps.utils")
    names = list(sweep["parameters"])
    jobs = []
    for values in itertools.product(*(sweep["parameters"][name]["values"] for name in names)):
        values_of = {"args": {name: {"value": value} for name, value in zip(names, values, strict=True)}}
        filled = utils.create_sweep_command_args(values_of)["args_no_hyphens"]
        command = [a.replace("${program}", sweep["program"]) for a in sweep["command"] if a not in ("${env}",)]
        place = command.index("${args_no_hyphens}")
        jobs.append([*command[:place], *filled, *command[place + 1 :]])
    return jobs


def composed(overrides: list[str]) -> Any:
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("train", overrides, return_hydra_config=True)
    assert str(cfg.hydra.mode) == "RunMode.RUN", "an agent's job is one run"
    return {key: value for key, value in OmegaConf.to_container(cfg).items() if key not in ("hydra", "paths")}


@pytest.mark.parametrize("name", GRIDS)
def test_agents_run_the_jobs_of_the_hydra_sweep(name: str) -> None:
    sweep = wandb_sweep([f"sweep={name}"])
    assert sweep["method"] == "grid" and sweep["metric"] == {"name": "val/mse", "goal": "minimize"}
    jobs = agents_jobs(sweep)
    assert all(job[1:3] == ["-m", "stylegan_inv.train"] for job in jobs)
    params = yaml.safe_load((Path(CONF_DIR) / "sweep" / f"{name}.yaml").read_text())["hydra"]["sweeper"]["params"]
    parsed = OverridesParser.create().parse_overrides([f"{k}={v}" for k, v in params.items()])
    (expected,) = BasicSweeper.split_arguments(parsed, None)
    assert len(jobs) == len(expected) > 3
    for ours, theirs in [(jobs[0], expected[0]), (jobs[-1], expected[-1])]:
        assert composed(ours[3:]) == composed([*theirs, "hydra.mode=RUN"])


def test_wandbs_own_check_accepts_every_sweep() -> None:
    config = pytest.importorskip("sweeps.config", reason="the package sweeps, which checks them, is not installed")
    searched = wandb_sweep(["optimizer.lr=tag(log,interval(0.0001,0.01))", "method.iterations=int(interval(1,7))"])
    for sweep in [*(wandb_sweep([f"sweep={name}"]) for name in GRIDS), searched]:
        assert config.schema_violations_from_proposed_config(sweep) == []


def test_the_command_line_wins_over_the_file() -> None:
    sweep = wandb_sweep(["sweep=loss_weights", "loss.id.weight=0.3", "seed=0,1"])
    assert sweep["parameters"] == {"loss.perceptual.weight": {"values": [0.4, 0.8, 1.6]}, "seed": {"values": [0, 1]}}
    assert "loss.id.weight=0.3" in sweep["command"]


def test_intervals_words_and_nothing() -> None:
    sweep = wandb_sweep(
        [
            "optimizer.lr=tag(log,interval(0.0001,0.01))",
            "method.iterations=int(interval(1,7))",
            "loss.id.weight=interval(0.,1.)",
        ]
    )
    assert sweep["method"] == "bayes"
    assert sweep["parameters"] == {
        "optimizer.lr": {"distribution": "log_uniform_values", "min": 0.0001, "max": 0.01},
        "method.iterations": {"distribution": "int_uniform", "min": 1, "max": 7},
        "loss.id.weight": {"distribution": "uniform", "min": 0.0, "max": 1.0},
    }
    words = wandb_sweep(["encoder.pretrained=null,face_train", "trainer.deterministic=true,'warn'", "seed=range(3)"])
    assert [p["values"] for p in words["parameters"].values()] == [["null", "face_train"], [True, "warn"], [0, 1, 2]]


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        ([], "no override: nothing is swept"),
        (["method=psp"], "method=psp: nothing is swept"),
        (["encoder=fpn", "encoder/backbone=ir_se_tiny,resnet34"], "encoder/backbone: Weights & Biases accepts letters"),
    ],
)
def test_what_cannot_be_swept_is_reported(overrides: list[str], message: str) -> None:
    with pytest.raises(UserError, match=message):
        wandb_sweep(overrides)


def test_the_command_prints_yaml(capsys: pytest.CaptureFixture[str]) -> None:
    main(["wandb", "sweep=refinement_steps", "method=restyle_e4e"])
    printed = yaml.safe_load(capsys.readouterr().out)
    assert printed["name"] == "restyle_e4e refinement_steps" and "method=restyle_e4e" in printed["command"]
    for arguments in (["wandb", "sweep=unknown"], []):
        with pytest.raises(SystemExit, match="2"):
            main(arguments)
        assert capsys.readouterr().err.startswith("error: ")
    with pytest.raises(SystemExit, match="0"):
        main(["--help"])
    assert "wandb sweep sweep.yaml" in capsys.readouterr().out
