"""Standard output on a full disk, or a pipe that nobody reads: the error names it, or the command just ends."""

from __future__ import annotations

import os
import runpy
import sys
import warnings
from pathlib import Path

import pytest
from PIL import Image

from stylegan_inv import convert
from stylegan_inv.invert import __main__ as invert
from tests.cli import call
from tests.forks import join, launch

#: Command lines that print; none of them takes a second.
COMMANDS = {
    "help of a command": ["stylegan_inv.invert", "--help"],
    "help of a parser": ["stylegan_inv.prepare", "verify", "--help"],
    "help of the script": ["stylegan_inv.cli", "--help"],
    "version": ["stylegan_inv.cli", "--version"],
    "config": ["stylegan_inv.train", "--cfg", "job"],
    "direction": ["stylegan_inv.directions", "show", "smile"],
    "verify": ["stylegan_inv.prepare", "verify", "images", "--workers", "0"],
    "sweep": ["stylegan_inv.sweeps", "wandb", "sweep=loss_weights"],
}


def _print_to(where: str, arguments: list[str]) -> None:
    """Runs a command whose standard output is a full disk or a closed pipe."""
    if where == "full":
        output = os.open("/dev/full", os.O_WRONLY)
    else:
        reader, output = os.pipe()
        os.close(reader)
    sys.stdout = os.fdopen(output, "w")
    sys.argv = arguments
    warnings.simplefilter("ignore")  # that the module is imported already
    runpy.run_module(arguments[0], run_name="__main__", alter_sys=True)


@pytest.mark.parametrize("where", ["full", "closed"])
def test_output_that_cannot_be_written(where: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (8, 8)).save(tmp_path / "images" / "a.png")
    logs = {name: tmp_path / f"{number}.log" for number, name in enumerate(COMMANDS)}
    processes = [launch(_print_to, where, COMMANDS[name], log=log) for name, log in logs.items()]
    codes = join(processes, 120)
    error = "error: standard output: No space left on device; free some space or give another folder\n"
    expected = (2, error) if where == "full" else (141, "")
    found = {name: (code, logs[name].read_text()) for name, code in zip(COMMANDS, codes, strict=True)}
    assert found == dict.fromkeys(COMMANDS, expected)


def test_ctrl_c_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With Hydra, and without; a training ends by itself, after its checkpoint."""

    def interrupted(*arguments: object, **options: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as every command sets it
    monkeypatch.setattr(invert, "load_method", interrupted)
    monkeypatch.setattr(convert, "convert", interrupted)
    (tmp_path / "images").mkdir()
    Image.new("RGB", (64, 64)).save(tmp_path / "images" / "a.png")
    for command, arguments in ((invert, ["input=images"]), (convert, ["synthfaces64", "new.safetensors"])):
        with pytest.raises(SystemExit) as stop:
            call(monkeypatch, command, *arguments)
        assert stop.value.code == 130 and capsys.readouterr().err == "interrupted\n"
