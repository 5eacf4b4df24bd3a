"""Every command reports bad input in one line and exits with code 2."""

from __future__ import annotations

import importlib
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli import assert_user_error, error_of, run_cli

#: Command -> arguments that name a file or folder that does not exist.
MISSING_FILES = {
    "train": ["dataset=folder", "dataset.root=missing", "logger=none"],
    "invert": ["input=missing", "method=projector"],
    "edit": ["input=missing", "edit=smile"],
    "evaluate": ["run=missing"],
    "report": ["run=missing"],
    "benchmark": ["methods", "--no-training", "--only", "psp_synthfaces", "--runs", "missing"],
    "convert": ["missing.pkl", "new.safetensors"],
    "directions": ["show", "missing.safetensors"],
    "prepare align": ["align", "missing", "new"],
    "prepare masks": ["masks", "labels", "missing", "new", "--classes", "1"],
    "prepare pack": ["pack", "missing", "new.zip"],
    "prepare verify": ["verify", "missing"],
    "sweeps": ["wandb", "sweep=missing"],
    "generators.ops": ["--build", "missing"],
}
UNKNOWN_OPTIONS = {name: arguments + ["--unknown"] for name, arguments in MISSING_FILES.items()}


def command(name: str) -> ModuleType:
    package = f"stylegan_inv.{name.split()[0]}"
    return importlib.import_module(package if name in ("train", "convert") else f"{package}.__main__")


@pytest.mark.parametrize("name", MISSING_FILES)
def test_missing_file(name, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    assert "missing" in error_of(monkeypatch, capsys, command(name), *MISSING_FILES[name])
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", UNKNOWN_OPTIONS)
def test_unknown_option(name, monkeypatch, capsys, tmp_path) -> None:
    monkeypatch.chdir(tmp_path)
    error = error_of(monkeypatch, capsys, command(name), *UNKNOWN_OPTIONS[name])
    assert "--unknown" in error or "invalid choice" in error
    assert f"python -m stylegan_inv.{name.split()[0]}" in error and error.endswith("--help")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "prepare verify", "directions"])
def test_commands_in_a_process_of_their_own(name: str, tmp_path: Path) -> None:
    """Nothing else, such as warnings of imported libraries, reaches standard error."""
    assert_user_error(run_cli(name.split()[0], *MISSING_FILES[name], cwd=tmp_path), "missing")
