"""Processes end with the process that started them, also where another process adopts orphans."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch.utils.data import DataLoader, Dataset

from stylegan_inv.data.datamodules.loaders import worker_options
from stylegan_inv.report import __main__ as report
from stylegan_inv.runtime import rank_processes, sweep_process
from stylegan_inv.runtime.ranks import Ranks
from stylegan_inv.utils import parent_process
from stylegan_inv.utils.parallel import ordered
from tests.cli import REPOSITORY, call
from tests.faults.small import wait_for
from tests.forks import join, launch

_PR_SET_CHILD_SUBREAPER = 36
#: A command that is ready to be killed, waits where its parent may be killed first, and then works for long.
CHILD = """
import os, sys, time
from pathlib import Path
folder = Path(sys.argv[1])
(folder / "starting").write_text(str(os.getpid()))
while (folder / "wait").exists():
    time.sleep(0.01)
from stylegan_inv.utils.parent_process import die_with_parent
die_with_parent()
assert "STYLEGAN_INV_PARENT" not in os.environ, "its own children have another parent"
(folder / "pid").write_text(str(os.getpid()))
time.sleep(60)
"""


def child(folder: Path) -> list[str]:
    return [sys.executable, "-c", CHILD, str(folder)]


class Sleeping(Dataset[int]):
    """An item that takes a minute, so that a loader process does not look for its parent by itself."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def __len__(self) -> int:
        return 1

    def __getitem__(self, index: int) -> int:
        return sleep(self.folder, index)


def sleep(folder: Path, item: int) -> int:
    (folder / "pid").write_text(str(os.getpid()))
    time.sleep(60)
    return item


def rank(folder: Path) -> None:
    with rank_processes.launched(Ranks(0, 2, 0, starts_others=True), child(folder)):
        time.sleep(60)


def rank_of_lightning(folder: Path) -> None:
    with parent_process.known_to_children():
        subprocess.Popen(child(folder))
        time.sleep(60)


def job(folder: Path) -> None:
    sweep_process.run_job(child(folder))


def loader(folder: Path) -> None:
    next(iter(DataLoader(Sleeping(folder), **worker_options(1))))


def pool(folder: Path) -> None:
    list(ordered(sleep, folder, [0], workers=1))


def adopt(start: Callable[[Path], None], folder: Path, early: bool) -> None:
    """Kills the parent of a process and adopts the process, as systemd and inits of containers do."""
    ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1)
    os.environ["PYTHONPATH"] = str(REPOSITORY)
    parent = os.fork()
    if parent == 0:
        start(folder)
        os._exit(0)
    wait_for((folder / ("starting" if early else "pid")).exists, 60)
    number = int(wait_for((folder / ("starting" if early else "pid")).read_text))
    os.kill(parent, signal.SIGKILL)
    os.waitpid(parent, 0)
    (folder / "wait").unlink(missing_ok=True)
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        ended, status = os.waitpid(number, os.WNOHANG)
        if ended:
            (folder / "ended").write_text(str(os.waitstatus_to_exitcode(status)))
            return
        time.sleep(0.02)
    os.kill(number, signal.SIGKILL)
    os.waitpid(number, 0)


CASES = {"rank": rank, "rank of Lightning": rank_of_lightning, "job": job, "loader": loader, "pool": pool}


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="prctl")
@pytest.mark.parametrize("early", [False, True], ids=["working", "starting"])
@pytest.mark.parametrize("kind", CASES)
def test_nothing_outlives_its_killed_parent(kind: str, early: bool, tmp_path: Path) -> None:
    if early:
        if kind in ("loader", "pool"):
            pytest.skip("forked: there is no time between start and check in which it could be stopped")
        (tmp_path / "wait").touch()
    process = launch(adopt, CASES[kind], tmp_path, early, log=tmp_path / "log")
    assert join([process], 90) == [0], (tmp_path / "log").read_text()
    assert (tmp_path / "ended").exists(), "it outlived its parent"
    assert int((tmp_path / "ended").read_text()) == (-signal.SIGTERM if kind == "job" else -signal.SIGKILL)
    assert (tmp_path / "pid").exists() == (not early)


class Ended(Exception):
    pass


def test_commands_look_for_their_parent_first(monkeypatch: pytest.MonkeyPatch) -> None:
    killed: list[Any] = []

    def kill(pid: int, signum: int) -> None:
        killed.append((pid, signum))
        raise Ended

    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # commands set it
    monkeypatch.setattr(parent_process, "_ask_for_signal", lambda signum: None)
    monkeypatch.setattr(parent_process.os, "kill", kill)
    monkeypatch.setenv("STYLEGAN_INV_PARENT", f"{os.getppid()} {int(signal.SIGKILL)}")
    with pytest.raises(SystemExit):
        call(monkeypatch, report, "run=missing")
    assert not killed, "its parent is alive"
    monkeypatch.setenv("STYLEGAN_INV_PARENT", f"{os.getpid()} {int(signal.SIGKILL)}")
    with pytest.raises(Ended):
        call(monkeypatch, report, "run=missing")
    assert killed == [(os.getpid(), signal.SIGKILL)]


def test_the_environment_is_as_before() -> None:
    before = dict(os.environ)
    with parent_process.known_to_children():
        assert os.environ["STYLEGAN_INV_PARENT"] == f"{os.getpid()} 9"
    assert dict(os.environ) == before
    for text in ("", "x", "1", "1 x", "1 2 3", "-1 9"):
        os.environ["STYLEGAN_INV_PARENT"] = text
        parent_process.die_with_parent()
        assert "STYLEGAN_INV_PARENT" not in os.environ
