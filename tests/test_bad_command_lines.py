"""Every command reports bad input in one line and exits with code 2."""

from __future__ import annotations

import importlib
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from tests.cli import assert_user_error, error_of, run_python

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


#: A folder or file that a user may have, whose name means something to Hydra.
VALUES = ["a=b.png", "photos (1)", "é.png", "it's.png", "a#b.png", "~/a.png", "x,y.png"]


@pytest.mark.parametrize("value", VALUES)
def test_values_that_hydra_does_not_take_come_with_what_to_type(value, monkeypatch, capsys, tmp_path) -> None:
    """The shell takes off the outer quotes of the advice; what remains names the file."""
    monkeypatch.chdir(tmp_path)
    error = error_of(monkeypatch, capsys, command("invert"), f"input={value}", "method=projector")
    (advice,) = shlex.split(error.partition(" give ")[2].partition(", for a list")[0])
    line = error_of(monkeypatch, capsys, command("invert"), advice, "method=projector")
    assert line.startswith(f"error: {value}: no")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["train", "prepare verify", "directions"])
def test_commands_in_a_process_of_their_own(name: str, tmp_path: Path) -> None:
    """Nothing else, such as warnings of imported libraries, reaches standard error."""
    assert_user_error(run_python(name.split()[0], *MISSING_FILES[name], cwd=tmp_path), "missing")
