"""The console script runs every command as ``python -m`` does, also the processes that a command starts itself."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from stylegan_inv import __version__, cli
from tests.cli import QUICK, REPOSITORY, assert_user_error
from tests.forks import run_fork

PACKAGE = REPOSITORY / "stylegan_inv"
#: What pip writes for an entry of [project.scripts].
SCRIPT = f"#!{sys.executable}\nimport sys\nfrom stylegan_inv.cli import main\nsys.exit(main())\n"
#: A loss term in a file of the working directory.
OWN_TERM = """
from torch import nn


class Term(nn.Module):
    def forward(self, inputs):
        return inputs.image.square().mean()
"""


@pytest.fixture
def script(tmp_path: Path) -> Path:
    path = tmp_path / "bin" / "stylegan-inv"
    path.parent.mkdir()
    path.write_text(SCRIPT)
    path.chmod(0o755)
    return path


def run(command: list[str], cwd: Path) -> subprocess.CompletedProcess[str]:
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY))
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


def test_every_command_has_a_line_in_the_help(capsys: pytest.CaptureFixture[str]) -> None:
    packages = {path.parent.name for path in PACKAGE.glob("*/__main__.py")}
    modules = {path.stem for path in PACKAGE.glob("*.py") if "__main__" in path.read_text() and path.stem != "cli"}
    assert set(cli.COMMANDS) == packages | modules - {"__main__"}
    assert cli.main(["--help"]) == 0
    lines = capsys.readouterr().out.splitlines()
    for name, text in cli.COMMANDS.items():
        assert sum(line.split() == [name, *text.split()] for line in lines) == 1


def test_unknown_commands_end_with_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["trian", "method=restyle"]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: stylegan-inv trian: unknown command; did you mean train?")
    assert cli.main([]) == 2 and "usage: stylegan-inv COMMAND" in capsys.readouterr().err
    assert cli.main(["--version"]) == 0 and capsys.readouterr().out == f"stylegan-inv {__version__}\n"


def test_importing_the_script_is_light() -> None:
    code = "import sys, stylegan_inv.cli; print(*sorted(sys.modules))"
    imported = run([sys.executable, "-c", code], REPOSITORY).stdout.split()
    assert [name for name in imported if name.startswith("stylegan_inv")] == ["stylegan_inv", "stylegan_inv.cli"]
    assert not {"torch", "hydra", "numpy", "argparse"} & set(imported)


@pytest.mark.parametrize("as_module", [False, True])
def test_arguments_reach_the_command(script: Path, as_module: bool, tmp_path: Path) -> None:
    program = "stylegan_inv" if as_module else str(script)
    result = run_fork(program, "report", "run=absent folder", cwd=tmp_path)
    assert_user_error(result, "absent folder", "no such folder")
    shown = run_fork(program, "prepare", "pack", "--help", cwd=tmp_path)
    assert shown.returncode == 0 and "usage:" in shown.stdout, shown.stderr


@pytest.mark.slow
def test_ranks_of_a_training_are_started(script: Path, tmp_path: Path) -> None:
    """Two ranks, which import a class of the working directory as well."""
    (tmp_path / "own.py").write_text(OWN_TERM)
    ddp = ["trainer=ddp", "trainer.devices=2", "trainer.accelerator=cpu", "callbacks.codes=null"]
    term = "+loss.own={_target_: own.Term, weight: 1.0}"
    done = run([str(script), "train", *QUICK, *ddp, term, "hydra.run.dir=run"], tmp_path)
    assert done.returncode == 0, done.stderr
    assert "MEMBER: 2/2" in done.stderr, "Lightning names the ranks that it has started"
    assert "train/loss/own" in (tmp_path / "run" / "metrics.csv").read_text()


@pytest.mark.slow
@pytest.mark.long
def test_jobs_of_a_sweep_are_started(script: Path, tmp_path: Path) -> None:
    done = run(
        [str(script), "train", "-m", *QUICK, "trainer.max_steps=1", "seed=0,1", "hydra.sweep.dir=sweep"], tmp_path
    )
    assert done.returncode == 0, done.stderr
    metrics = [json.loads(path.read_text()) for path in sorted((tmp_path / "sweep").glob("*/metrics.json"))]
    assert len(metrics) == 2 and metrics[0]["val/mse"] != metrics[1]["val/mse"]
