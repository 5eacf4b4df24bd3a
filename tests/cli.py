"""Run the command lines of the package as a user would."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

from tests.forks import REPOSITORY as REPOSITORY
from tests.forks import run_fork

#: A training that takes seconds: the default job with everything made small.
QUICK = (
    "trainer.max_steps=3",
    "trainer.log_every_n_steps=1",
    "dataset.batch_size=2",
    "dataset.val_size=4",
    "dataset.val_batch_size=2",
    "dataset.num_workers=0",
    "callbacks.panels.images=2",
    "logger=csv",
)


def run_cli(module: str, *arguments: str, cwd: Path, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """``python -m stylegan_inv.<module> arguments`` in ``cwd``, output captured, without the seconds of its imports."""
    return run_fork(f"stylegan_inv.{module}", *arguments, cwd=cwd, timeout=timeout, WANDB_API_KEY=None)


def run_python(module: str, *arguments: str, cwd: Path, timeout: int = 300) -> subprocess.CompletedProcess[str]:
    """The same in a new process of Python."""
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), COLUMNS="120")
    environment.pop("WANDB_API_KEY", None)
    return subprocess.run(
        [sys.executable, "-m", f"stylegan_inv.{module}", *arguments],
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=timeout,
        stdin=subprocess.DEVNULL,
    )


def assert_user_error(result: subprocess.CompletedProcess[str], *expected: str) -> None:
    """One line on standard error that says all of ``expected``; exit code 2."""
    assert result.returncode == 2, result.stderr + result.stdout
    lines = [line for line in result.stderr.splitlines() if line.strip()]
    assert len(lines) == 1, result.stderr
    assert lines[0].startswith("error: ")
    for text in expected:
        assert text in lines[0], lines[0]


def call(monkeypatch: pytest.MonkeyPatch, module: ModuleType, *arguments: object) -> None:
    """The command line of ``module`` in this process, without the seconds of a new one."""
    monkeypatch.setattr(sys, "argv", [module.__name__.rpartition(".")[2], *map(str, arguments)])
    module.main()


def error_of(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], module: ModuleType, *arguments: object
) -> str:
    """The one line that a command line in this process ends with; its exit code is 2."""
    with pytest.raises(SystemExit) as stop:
        call(monkeypatch, module, *arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    return line
