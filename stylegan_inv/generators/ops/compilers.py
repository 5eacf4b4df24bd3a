"""Finds the compilers and tools that build the native kernels."""

from __future__ import annotations

import functools
import importlib.util
import os
import platform
import shlex
import shutil
import subprocess
import sysconfig
from pathlib import Path

import torch


class BuildError(RuntimeError):
    """Raised when the kernels cannot be built or loaded on this machine.

    Attributes:
        cause: What is missing or failed.
        cure: What the user can do about it.
    """

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}. {cure}")
        self.cause = cause
        self.cure = cure


def find_host_compiler() -> list[str] | None:
    """Returns the C++ compiler as the first words of a command: ``$CXX``, or else the first one on the path."""
    text = os.environ.get("CXX", "")
    try:
        from_environment = shlex.split(text)
    except ValueError:  # a quotation mark without its counterpart: no command has such a name
        from_environment = [text]
    for command in [from_environment] if from_environment else [["c++"], ["g++"], ["clang++"]]:
        path = shutil.which(command[0])
        if path:
            return [path, *command[1:]]
    return None


def find_ninja() -> str | None:
    """Returns Ninja from the path, or from the scripts of this Python, which need not be on the path."""
    return shutil.which("ninja") or shutil.which("ninja", path=sysconfig.get_path("scripts"))


def find_nvcc() -> str | None:
    """Returns the path of nvcc, or None.

    If ``CUDA_HOME`` is set, only that folder is searched. Otherwise Python packages come first, because pip selects
    them to match PyTorch, then the path, then ``/usr/local/cuda``.
    """
    home = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if home:
        return shutil.which("nvcc", path=str(Path(home) / "bin"))
    spec = importlib.util.find_spec("nvidia")  # a namespace package: its folders are those of all CUDA packages
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    major = (torch.version.cuda or "").split(".")[0]
    for root in roots:
        # cu13, cu14, ... since CUDA 13, that of PyTorch's own version first; cuda_nvcc before.
        for folder in sorted([*root.glob("cu[0-9]*"), root / "cuda_nvcc"], key=lambda p: p.name != f"cu{major}"):
            found = shutil.which("nvcc", path=str(folder / "bin"))
            if found:
                return found
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def device_architecture() -> str:
    """Returns the compute capability of the current GPU without its dot, e.g. ``"90"``.

    Raises:
        BuildError: PyTorch finds no GPU.
    """
    if not torch.cuda.is_available():
        raise BuildError("PyTorch finds no GPU, so the architecture is unknown", "Set it, e.g. `--arch 90`.")
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}"


def cpu_description() -> str:
    """Returns what ``-march=native`` depends on, because different machines may share a home folder."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = {line.split(":")[0].strip(): line for line in reversed(text.splitlines())}  # of the first core
    return "\n".join(lines.get(key, "") for key in ("vendor_id", "model name", "flags", "Features"))


@functools.cache
def compiler_version(compiler: tuple[str, ...]) -> str:
    """Returns the output of ``--version``.

    Raises:
        BuildError: The compiler does not run.
    """
    try:
        done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        cure = "Set CXX to a working C++ compiler, or CUDA_HOME to a working CUDA toolkit."
        raise BuildError(f"{compiler[0]} does not run ({error})", cure) from error
    return done.stdout
