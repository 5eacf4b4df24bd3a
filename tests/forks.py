"""Processes that start in milliseconds: forks of one process that has everything imported.

Signals, limits, exit codes and what is written to standard output are as real as anywhere. What happens before and
during the imports is not: tests of it start Python itself.
"""

from __future__ import annotations

import atexit
import multiprocessing
import os
import runpy
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any
from unittest import mock

REPOSITORY = Path(__file__).resolve().parents[1]

_context = multiprocessing.get_context("forkserver")
# Matplotlib takes half a second when it first draws.
_context.set_forkserver_preload(["tests.faults.small", "matplotlib.backends.backend_agg"])


def launch(target: Callable[..., Any], *args: Any, log: Path, **environment: str | None) -> Any:
    """Start ``target(*args)`` in a fork; its output goes to ``log``. Returns the process.

    ``environment`` changes variables; None removes one.
    """
    process = _context.Process(target=_logged, args=(target, args, str(log), _variables(environment)))
    _start(process)
    return process


def launch_ranks(target: Callable[..., Any], *args: Any, log: Path, world: int = 2) -> list[Any]:
    """Start forks that see themselves as ranks, as torchrun would start them; their logs are ``log``.0, ``log``.1."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    common = {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "WORLD_SIZE": str(world), "NODE_RANK": "0"}
    return [
        launch(target, *args, log=Path(f"{log}.{rank}"), LOCAL_RANK=str(rank), **common) for rank in range(world)
    ]  # fmt: skip


def join(processes: Sequence[Any], seconds: float) -> list[int | None]:
    """Exit codes; those that do not end in time are killed and have None."""
    deadline = time.monotonic() + seconds
    codes = []
    for process in processes:
        process.join(max(0.0, deadline - time.monotonic()))
        codes.append(process.exitcode)
        if process.exitcode is None:
            process.kill()
            process.join()
    return codes


def run_fork(
    program: str, *arguments: str, cwd: Path, timeout: float = 300, **environment: str | None
) -> subprocess.CompletedProcess[str]:
    """``python -m program arguments``, or ``python program arguments`` of a path, in a fork, output captured.

    Args:
        program: A module, or the path of a script.
        arguments: Its command line.
        cwd: Working directory.
        timeout: Seconds after which it is killed.
        environment: Changes of the environment; None removes a variable.

    Raises:
        TimeoutExpired: It was killed.
    """
    with tempfile.TemporaryDirectory() as folder:
        output, error = Path(folder) / "output", Path(folder) / "error"
        settings = _variables({"COLUMNS": "120", **environment})
        process = _context.Process(
            target=_program, args=(program, arguments, str(cwd), settings, str(output), str(error))
        )
        _start(process)
        (code,) = join([process], timeout)
        command = [program, *arguments]
        if code is None:
            raise subprocess.TimeoutExpired(command, timeout, output.read_text(), error.read_text())
        return subprocess.CompletedProcess(command, code, output.read_text(), error.read_text())


def _variables(changes: dict[str, str | None]) -> dict[str, str]:
    variables = {**os.environ, "PYTHONPATH": str(REPOSITORY), **changes}
    return {name: value for name, value in variables.items() if value is not None}


def _start(process: Any) -> None:
    # The server, which the first process starts, looks for its modules in the working directory of that moment and in
    # the installed packages, one of which has modules named tests, too.
    with mock.patch.dict(os.environ, PYTHONPATH=str(REPOSITORY)):
        process.start()


def _logged(target: Callable[..., Any], args: tuple[Any, ...], log: str, environment: dict[str, str]) -> None:
    _redirect(log, log)
    os.environ.clear()
    os.environ.update(environment)
    _settle()
    target(*args)


def _program(
    program: str, arguments: tuple[str, ...], cwd: str, environment: dict[str, str], output: str, error: str
) -> None:
    _redirect(output, error)
    os.environ.clear()
    os.environ.update(environment)
    _settle()
    os.chdir(cwd)
    sys.argv[:] = [program, *arguments]
    try:
        if os.sep in program:
            sys.path.insert(0, str(Path(program).resolve().parent))
            runpy.run_path(program, run_name="__main__")
        else:
            sys.path.insert(0, cwd)
            _forget(program)
            runpy.run_module(program, run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()  # which a fork leaves out


def _redirect(output: str, error: str) -> None:
    os.setpgid(0, 0)
    for descriptor, path in ((1, output), (2, error)):
        opened = os.open(path, os.O_CREAT | os.O_WRONLY | os.O_APPEND)
        os.dup2(opened, descriptor)
        os.close(opened)
    sys.stdout, sys.stderr = os.fdopen(1, "w", buffering=1), os.fdopen(2, "w", buffering=1)


def _settle() -> None:
    import torch

    multiprocessing.set_start_method("fork", force=True)  # of loader processes; this one's would import all again
    torch.set_num_threads(1)


def _forget(program: str) -> None:
    """Takes a program off the imported modules; Python warns about a program that is one of them."""
    for module in (program, f"{program}.__main__"):
        if module in sys.modules and not hasattr(sys.modules[module], "__path__"):
            del sys.modules[module]
