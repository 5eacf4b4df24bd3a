"""Training is not affected by wandb without a network or with a failing server, and resumes its run."""

from __future__ import annotations

import re
import sys
import threading
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest
from pytorch_lightning.loggers import WandbLogger

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.loggers import check_logger_arguments, make_loggers
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.run_folder import RunFolder
from tests.faults.small import build, run, state, stop_after
from tests.forks import join, launch


class Broken(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        self.send_error(500)

    do_GET = do_POST

    def log_message(self, *args: object) -> None:
        pass


def made(folder: Path, **arguments: str) -> list[type]:
    return [type(logger) for logger in make_loggers(str(folder), wandb={"project": "x", **arguments})]


@pytest.mark.parametrize(
    "variables",
    [
        {"WANDB_MODE": "disabled"},
        {"WANDB_DISABLED": "true"},
        {"WANDB_DISABLED": "1"},
        {"WANDB_DISABLED": "True", "WANDB_MODE": "online", "WANDB_API_KEY": "a" * 40},
    ],
)
def test_nothing_is_recorded_if_wandb_is_disabled(
    variables: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_DISABLED"):
        monkeypatch.delenv(name, raising=False)
    for name, text in variables.items():
        monkeypatch.setenv(name, text)
    assert made(tmp_path) == [MetricsCSV]
    assert not list(tmp_path.iterdir()), "no offline run, and no id"


def test_modes_of_the_logger(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("WANDB_DISABLED", "WANDB_API_KEY"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("WANDB_MODE", "online")
    assert made(tmp_path, mode="disabled") == [MetricsCSV]
    monkeypatch.setenv("WANDB_DISABLED", "false")
    monkeypatch.setenv("WANDB_API_KEY", "a" * 40)
    assert made(tmp_path, mode="offline") == [MetricsCSV, WandbLogger], "without connecting"
    with pytest.raises(UserError, match="logger.wandb.mode=off: expected one of online, offline, disabled"):
        check_logger_arguments(wandb={"mode": "off"})


def test_folders_that_wandb_cannot_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("WANDB_MODE", raising=False)
    folder = tmp_path / "bad\udcff" / "run"
    with pytest.raises(UserError, match="bad%FF/run: wandb cannot write to a folder whose path is not UTF-8"):
        build("psp", folder, "logger=wandb")
    assert not folder.exists()
    check_logger_arguments(wandb={"mode": "disabled"}, run_dir=folder)
    check_logger_arguments(wandb={}, run_dir=tmp_path / "é [x] \t%")


@pytest.mark.parametrize("stored", ["../../elsewhere", "a/b", "", 7, ["x"], "x" * 100, "a\nb"])
def test_an_id_of_a_stranger_is_not_used(stored: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_DISABLED", raising=False)
    RunFolder(tmp_path).update_record(wandb_id=stored)
    made(tmp_path)
    assert re.fullmatch("[0-9a-f]{8}", RunFolder(tmp_path).record()["wandb_id"])


def two_lives(folder: Path) -> None:
    assert "wandb" not in sys.modules, "it reads variables of the environment when it is imported"
    try:
        run("psp", folder, "logger=wandb", stop_after(2))
    except SystemExit as stopped:
        print("stopped with", stopped.code, flush=True)
    run("psp", folder, "logger=wandb")
    sys.modules["wandb"].finish()  # at the exit of a process, which forks do not have


@pytest.mark.slow
@pytest.mark.parametrize("fault", ["no key", "no network", "server error"])
def test_training_goes_on_under_one_run_id(fault: str, tmp_path: Path) -> None:
    environment = {"WANDB_INIT_TIMEOUT": "2", "HOME": str(tmp_path)}
    server = HTTPServer(("127.0.0.1", 0), Broken)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    if fault != "no key":
        port = server.server_port if fault == "server error" else 1
        environment |= {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": f"http://127.0.0.1:{port}"}
    folder = tmp_path / "run"
    try:
        process = launch(two_lives, folder, log=tmp_path / "log", WANDB_MODE=None, **environment)
        codes = join([process], 240)
    finally:
        server.shutdown()
        server.server_close()
    log = (tmp_path / "log").read_text()
    assert codes == [0] and "stopped with 143" in log, log
    assert ("wandb cannot be reached" in log) == (fault != "no key")
    run_id = RunFolder(folder).record()["wandb_id"]
    kept = [path.name for path in (folder / "wandb").glob("offline-run-*")]
    assert kept and all(name.endswith(run_id) for name in kept), kept
    assert state(folder)["global_step"] == 6
