"""Builds the native kernels at their first use, with ninja and without PyTorch's headers.

The sources under ``csrc/<kind>`` export plain C functions on pointers; :func:`load` compiles them into one shared
library and opens it with ctypes. A library lies in the cache folder (``$STYLEGAN_INV_CACHE/kernels``, by default
``~/.cache/stylegan_inv/kernels``) under a name that stands for everything it depends on, so a stale one is never
loaded. It is built in a temporary folder, under a lock that the operating system takes back when its owner dies, and
moved in place as a whole: neither a killed build nor two at once leave anything that must be cleaned by hand.

A source may ask for more flags of the compiler with a line ``// flags: -ffast-math``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import importlib.util
import os
import platform
import re
import shlex
import shutil
import subprocess
import sysconfig
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from stylegan_inv.errors import UserError

KINDS = ("cpu", "cuda")
SOURCES = Path(__file__).with_name("csrc")
WAIT_SECONDS = 600.0  # for another process that builds the same library
COMPILE_SECONDS = 900.0


class BuildError(RuntimeError):
    """The kernels cannot be built or loaded here.

    Attributes:
        cause: what is missing or went wrong.
        cure: what the user can do about it.
    """

    def __init__(self, cause: str, cure: str) -> None:
        super().__init__(f"{cause}. {cure}")
        self.cause = cause
        self.cure = cure


@functools.cache
def load(kind: str, arch: str | None = None) -> ctypes.CDLL | None:
    """The library of one kind, built if need be; None, after one warning for the process, when that is impossible.

    Args:
        kind: ``cpu`` or ``cuda``.
        arch: for ``cuda`` the compute capability without its dot, e.g. ``"90"``; None for that of the current device.
    """
    try:
        return open_library(build(kind, arch))
    except BuildError as error:
        warnings.warn(
            f"no {kind} kernels: {error.cause}. The plain PyTorch operations run instead, slower. {error.cure} "
            "(`python -m stylegan_inv.generators.ops` shows what was found.)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def open_library(path: Path) -> ctypes.CDLL:
    """Load a built library.

    Raises:
        BuildError: the system's loader refuses it.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the built library does not load: {error}", f"Delete {path} and try again.") from error


def build(
    kind: str, arch: str | None = None, *, sources: Path | None = None, wait_seconds: float = WAIT_SECONDS
) -> Path:
    """Compile and link the kernels unless the cache has them.

    Args:
        kind: ``cpu`` or ``cuda``.
        arch: as for :func:`load`.
        sources: another folder of sources.
        wait_seconds: longest time to wait for another process that builds the same.

    Returns:
        The shared library.

    Raises:
        BuildError: no compiler, no ninja, a failing compiler, an unwritable cache, a lock that nobody gives back.
    """
    recipe = plan(kind, arch, sources)
    try:
        folder = cache_folder()
    except RuntimeError as error:  # pathlib's, for a user without a home
        raise BuildError("this user has no home folder", "Set STYLEGAN_INV_CACHE to a folder for caches.") from error
    library = folder / f"{recipe.name}.so"
    if library.is_file():
        return library
    ninja = find_ninja()
    if ninja is None:
        raise BuildError("ninja is not installed", "Run `pip install ninja`.")
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with _lock(folder / f"{recipe.name}.lock", wait_seconds) as alone:
            if not library.is_file():
                # Whoever was killed in the middle left its folder; under the lock nobody else works in one.
                for left in folder.glob(f"{recipe.name}.tmp-*") if alone else ():
                    shutil.rmtree(left, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=f"{recipe.name}.tmp-", dir=folder) as work:
                    _compile(recipe, Path(work), ninja)
                    os.replace(Path(work) / "kernels.so", library)
    except OSError as error:
        cure = "Set STYLEGAN_INV_CACHE to a folder that you can write to and that has room."
        raise BuildError(f"cannot write to the cache folder {folder} ({error.strerror or error})", cure) from error
    return library


def cache_folder() -> Path:
    """Where built libraries lie."""
    root = os.environ.get("STYLEGAN_INV_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "stylegan_inv") / "kernels"


@dataclass(frozen=True)
class Plan:
    """A compiler command for each source and one to link, and a name that stands for all that they depend on."""

    name: str
    compile: tuple[tuple[str, ...], ...]
    link: tuple[str, ...]


def plan(kind: str, arch: str | None = None, sources: Path | None = None) -> Plan:
    """Find the compiler and lay out its commands.

    Raises:
        BuildError: no compiler, or no architecture to compile for.
    """
    if kind not in KINDS:
        raise UserError(f"unknown kind of kernels {kind!r}: use one of {', '.join(KINDS)}")
    folder = sources or SOURCES / kind
    suffix = {"cpu": ".cpp", "cuda": ".cu"}[kind]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    units = [path for path in files if path.suffix == suffix]
    if not units:
        raise BuildError(f"no {suffix} files in {folder}", "The installation is incomplete: install the package again.")
    host = find_host_compiler()
    if host is None:
        raise BuildError("no C++ compiler was found", "Install one (`apt install g++`), or name it in CXX.")
    if kind == "cpu":
        compiler, machine = host, _cpu()
        common = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-fvisibility=hidden"]
        link = ["-shared", "-fopenmp"]
    else:
        nvcc = find_nvcc()
        if nvcc is None:
            raise BuildError(
                "no CUDA compiler (nvcc) was found",
                "Run `pip install stylegan_inv[cuda]` (it brings nvcc), or set CUDA_HOME to a CUDA toolkit.",
            )
        arch = arch or _device_architecture()
        if not re.fullmatch(r"\d{2,3}[a-z]?", arch):
            raise UserError(f"{arch!r} is not a GPU architecture: give the compute capability without its dot, like 90")
        compiler, machine = [nvcc], arch
        # The static runtime: the result needs no libcudart, and not the version that PyTorch brought.
        target = ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-cudart", "static", "-ccbin", host[0]]
        target += [f"-L{path}" for path in Path(nvcc).parents[1].glob("lib*") if path.is_dir()]
        common = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", *target]
        link = ["-shared", *target]

    digest = hashlib.sha256()
    parts = [*compiler, *host, *common, *link, machine]
    parts += [compiler_version(tuple(compiler)), compiler_version(tuple(host))]
    parts += [torch.__version__, str(torch.version.cuda), platform.machine()]
    for path in files:
        parts += [str(path.relative_to(folder)), path.read_text()]
    for part in parts:
        digest.update(part.encode() + b"\0")
    objects = [f"{i}.o" for i in range(len(units))]
    commands = []
    for unit, result in zip(units, objects, strict=True):
        extra = shlex.split(" ".join(re.findall(r"^// flags: (.+)$", unit.read_text(), re.M)))
        commands.append((*compiler, *common, *extra, "-c", str(unit), "-o", result))
    return Plan(
        name=f"{kind}{'-sm' + machine if kind == 'cuda' else ''}-{digest.hexdigest()[:16]}",
        compile=tuple(commands),
        link=(*compiler, *objects, *link, "-o", "kernels.so"),
    )


def find_host_compiler() -> list[str] | None:
    """``$CXX``, else the first C++ compiler on the path, as the beginning of a command."""
    given = shlex.split(os.environ.get("CXX", ""))
    for command in [given] if given else [["c++"], ["g++"], ["clang++"]]:
        path = shutil.which(command[0])
        if path:
            return [path, *command[1:]]
    return None


def find_ninja() -> str | None:
    """Ninja on the path, or the one that the package ``ninja`` put beside Python, which need not be on the path."""
    return shutil.which("ninja") or shutil.which("ninja", path=sysconfig.get_path("scripts"))


def find_nvcc() -> str | None:
    """Find nvcc in ``CUDA_HOME`` alone where that is set, else in Python packages, on the path, in the usual place.

    Packages come before the path because pip chose them to match PyTorch.
    """
    given = os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH")
    if given:
        return shutil.which("nvcc", path=str(Path(given) / "bin"))
    spec = importlib.util.find_spec("nvidia")  # a namespace: its folders are those of all installed CUDA packages
    roots = [Path(root) for root in (spec.submodule_search_locations or [])] if spec else []
    major = (torch.version.cuda or "").split(".")[0]
    for root in roots:
        # cu13, cu14, ... from CUDA 13 on, the one of PyTorch's own version first; cuda_nvcc before
        for home in sorted([*root.glob("cu[0-9]*"), root / "cuda_nvcc"], key=lambda p: p.name != f"cu{major}"):
            found = shutil.which("nvcc", path=str(home / "bin"))
            if found:
                return found
    return shutil.which("nvcc") or shutil.which("nvcc", path="/usr/local/cuda/bin")


def _device_architecture() -> str:
    if not torch.cuda.is_available():
        raise BuildError("PyTorch sees no GPU, so the architecture is unknown", "Name it, e.g. `--arch 90`.")
    major, minor = torch.cuda.get_device_capability()
    return f"{major}{minor}"


@functools.cache
def compiler_version(compiler: tuple[str, ...]) -> str:
    """What ``--version`` prints.

    Raises:
        BuildError: it does not run.
    """
    try:
        done = subprocess.run([*compiler, "--version"], capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired) as error:
        cure = "Name a working compiler in CXX (C++) or CUDA_HOME (nvcc)."
        raise BuildError(f"{compiler[0]} does not run ({error})", cure) from error
    return done.stdout


def _cpu() -> str:
    """What ``-march=native`` depends on: a home folder is often shared by different machines."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return f"{platform.machine()} {platform.processor()}"
    lines = {line.split(":")[0].strip(): line for line in reversed(text.splitlines())}  # of the first core
    return "\n".join(lines.get(key, "") for key in ("vendor_id", "model name", "flags", "Features"))


def _compile(recipe: Plan, work: Path, ninja: str) -> None:
    def text(command: Sequence[str]) -> str:
        return shlex.join(command).replace("$", "$$")

    lines = ["rule run", "  command = $line", "  description = $out"]
    objects = [command[-1] for command in recipe.compile]
    for unit, result in zip(recipe.compile, objects, strict=True):
        lines += [f"build {result}: run", f"  line = {text(unit)}"]
    lines += [f"build kernels.so: run {' '.join(objects)}", f"  line = {text(recipe.link)}", ""]
    (work / "build.ninja").write_text("\n".join(lines))
    command = [ninja, "-C", str(work), "kernels.so"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMPILE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the compiler had not finished after {COMPILE_SECONDS:.0f} s", "Try again.") from error
    if done.returncode:
        # the compiler's own first complaint, where it has one: ninja repeats the command line before it
        output = done.stdout.strip().splitlines()
        errors = [line for line in output if re.search(r"\b(error|fatal)\b", line, re.I)] or output[-3:]
        compiler = Path(recipe.link[0]).name
        if "unsupported gpu architecture" in done.stdout.lower():
            cure = "This nvcc does not know your GPU: install the CUDA toolkit that does, and set CUDA_HOME to it."
        else:
            cure = "Name another C++ compiler in CXX, or another CUDA toolkit in CUDA_HOME."
        raise BuildError(f"{compiler} failed: " + " | ".join(line.strip() for line in errors[:3]), cure)


@contextlib.contextmanager
def _lock(path: Path, wait_seconds: float) -> Iterator[bool]:
    """Hold ``path`` alone, or yield False where locks do not exist (Windows, some network file systems).

    The lock is the system's, not the file's existence: it ends with the process that has it. Without one, two processes
    may do the same work, each in its own folder; the second result replaces the first as a whole.
    """
    with path.open("a+") as file:
        deadline = time.monotonic() + wait_seconds
        while (locked := _try_lock(file)) is False:
            if time.monotonic() > deadline:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise BuildError(
                    f"process {owner} has been building the same kernels for more than {wait_seconds:.0f} s",
                    "End it if it hangs; the lock goes with it.",
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield locked is True


def _try_lock(file: IO[str]) -> bool | None:
    """True when the lock is ours, False when somebody has it, None when there are no locks."""
    try:
        import fcntl
    except ImportError:
        return None
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError:
        return None
    return True
