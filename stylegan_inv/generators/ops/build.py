"""Builds the native kernels at their first use, with ninja and without PyTorch's headers.

The sources in ``csrc/<kind>`` export plain C functions that take pointers. :func:`load` compiles them into one shared
library and opens it with ctypes. The cache folder (``$STYLEGAN_INV_CACHE/kernels``, by default
``~/.cache/stylegan_inv/kernels``) keeps a library under a name that contains a hash of everything it depends on, so
that an outdated one is never loaded. A library is built in a temporary folder and then moved into place, under a lock
that the operating system releases when its owner ends. An interrupted build or two concurrent ones therefore leave
nothing that has to be removed by hand.

A source sets further compiler flags with a line such as ``// flags: -ffast-math``.
"""

from __future__ import annotations

import contextlib
import ctypes
import functools
import hashlib
import logging
import os
import platform
import re
import shlex
import shutil
import stat
import subprocess
import tempfile
import time
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import compilers
from stylegan_inv.generators.ops.compilers import BuildError
from stylegan_inv.utils.checks import one_of

_log = logging.getLogger(__name__)
KINDS = ("cpu", "cuda")
SOURCES = Path(__file__).with_name("csrc")
WAIT_SECONDS = 600.0  # for another process that builds the same library
COMPILE_SECONDS = 900.0


@functools.cache
def load(kind: str, arch: str | None = None) -> ctypes.CDLL | None:
    """Returns the library of one kind, built if necessary; None if that fails, with one warning for each process.

    Args:
        kind: ``cpu`` or ``cuda``.
        arch: For ``cuda``, the compute capability without its dot, e.g. ``"90"``. None takes that of the current GPU.
    """
    try:
        return open_library(build(kind, arch))
    except BuildError as error:
        warnings.warn(
            f"no {kind} kernels: {error.cause}. The plain PyTorch operations run instead, which is slower. "
            f"{error.cure} (`python -m stylegan_inv.generators.ops` shows what was found.)",
            RuntimeWarning,
            stacklevel=2,
        )
        return None


def open_library(path: Path) -> ctypes.CDLL:
    """Loads a built library.

    Raises:
        BuildError: The system's loader refuses it.
    """
    try:
        return ctypes.CDLL(str(path))
    except OSError as error:
        raise BuildError(f"the built library does not load: {error}", f"Delete {path} and try again.") from error


def build(
    kind: str, arch: str | None = None, *, sources: Path | None = None, wait_seconds: float = WAIT_SECONDS
) -> Path:
    """Compiles and links the kernels unless the cache has them.

    Args:
        kind: ``cpu`` or ``cuda``.
        arch: See :func:`load`.
        sources: Folder of the sources; None takes those of the package.
        wait_seconds: Longest time to wait for another process that builds the same library.

    Returns:
        The path of the shared library.

    Raises:
        BuildError: No compiler or no ninja, a compiler that fails, a cache that cannot be written, or a lock that is
            not released in time.
    """
    recipe = plan(kind, arch, sources)
    try:
        folder = cache_folder()
    except RuntimeError as error:  # pathlib's, for a user without a home folder
        raise BuildError("this user has no home folder", "Set STYLEGAN_INV_CACHE to a folder for caches.") from error
    library = folder / f"{recipe.name}.so"
    if _is_usable(library):
        return library
    ninja = compilers.find_ninja()
    if ninja is None:
        raise BuildError("ninja is not installed", "Run `pip install ninja`.")
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        _keep_others_out(folder)
        with _lock(folder / f"{recipe.name}.lock", wait_seconds) as locked:
            if not _is_usable(library):
                if library.exists():
                    _log.warning("%s: another user owns it or may have changed it; building it anew", library)
                # An interrupted build leaves its folder. Under the lock no other process works in one.
                for unfinished in folder.glob(f"{recipe.name}.tmp-*") if locked else ():
                    shutil.rmtree(unfinished, ignore_errors=True)
                with tempfile.TemporaryDirectory(prefix=f"{recipe.name}.tmp-", dir=folder) as work:
                    _compile(recipe, Path(work), ninja)
                    (Path(work) / "kernels.so").chmod(0o755)  # whatever the umask is
                    os.replace(Path(work) / "kernels.so", library)
    except OSError as error:
        cure = "Set STYLEGAN_INV_CACHE to a writable folder with free space."
        raise BuildError(f"cannot write to the cache folder {folder} ({error.strerror or error})", cure) from error
    return library


def _is_usable(library: Path) -> bool:
    """Returns whether a library exists and no other user can have written it; loading it executes it."""
    return library.is_file() and not library.is_symlink() and _is_own(library) and _is_own(library.parent)


def _is_own(path: Path) -> bool:
    """Returns whether a file or folder is of this user, or of root, and others cannot write to it."""
    if os.name == "nt":  # no owners as numbers; the cache is in the user's own folder
        return True
    found = path.stat()
    return found.st_uid in (os.getuid(), 0) and not found.st_mode & (stat.S_IWGRP | stat.S_IWOTH)


def _keep_others_out(folder: Path) -> None:
    """Takes the right to write to the cache folder from other users.

    Raises:
        BuildError: It belongs to another user.
    """
    if _is_own(folder):
        return
    if folder.stat().st_uid != os.getuid():
        raise BuildError(
            f"the cache folder {folder} belongs to another user, whose libraries would be executed",
            "Set STYLEGAN_INV_CACHE to a folder of your own.",
        )
    # What others have written into it so far is theirs, or is writable by them, which `_is_usable` sees.
    folder.chmod(folder.stat().st_mode & ~(stat.S_IWGRP | stat.S_IWOTH))


def cache_folder() -> Path:
    """Returns the folder of built libraries."""
    root = os.environ.get("STYLEGAN_INV_CACHE")
    return (Path(root).expanduser() if root else Path.home() / ".cache" / "stylegan_inv") / "kernels"


@dataclass(frozen=True)
class Plan:
    """The commands that build a library.

    Attributes:
        name: Name of the library, with a hash of everything that it depends on.
        compile: A compiler command for each source.
        link: The linker command.
    """

    name: str
    compile: tuple[tuple[str, ...], ...]
    link: tuple[str, ...]


@dataclass(frozen=True)
class _Toolchain:
    """A compiler with its flags; ``machine`` is what the generated code depends on."""

    compiler: list[str]
    host: list[str]
    machine: str
    compile_flags: list[str]
    link_flags: list[str]


def plan(kind: str, arch: str | None = None, sources: Path | None = None) -> Plan:
    """Finds the compiler and returns the commands of a build.

    Args:
        kind: ``cpu`` or ``cuda``.
        arch: See :func:`load`.
        sources: See :func:`build`.

    Raises:
        BuildError: No compiler, or no GPU that tells the architecture to compile for.
    """
    one_of("kind of kernels", kind, KINDS)
    folder = sources or SOURCES / kind
    suffix = {"cpu": ".cpp", "cuda": ".cu"}[kind]
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    units = [path for path in files if path.suffix == suffix]
    if not units:
        raise BuildError(f"no {suffix} files in {folder}", "The installation is incomplete: install the package again.")
    tools = _cpu_toolchain() if kind == "cpu" else _cuda_toolchain(arch)
    digest = hashlib.sha256()
    parts = [*tools.compiler, *tools.host, *tools.compile_flags, *tools.link_flags, tools.machine]
    parts += [compilers.compiler_version(tuple(tools.compiler)), compilers.compiler_version(tuple(tools.host))]
    parts += [torch.__version__, str(torch.version.cuda), platform.machine()]
    for path in files:
        parts += [str(path.relative_to(folder)), path.read_text()]
    for part in parts:
        digest.update(part.encode() + b"\0")
    objects = [f"{i}.o" for i in range(len(units))]
    commands = []
    for unit, result in zip(units, objects, strict=True):
        extra = shlex.split(" ".join(re.findall(r"^// flags: (.+)$", unit.read_text(), re.M)))
        commands.append((*tools.compiler, *tools.compile_flags, *extra, "-c", str(unit), "-o", result))
    return Plan(
        name=f"{kind}{'-sm' + tools.machine if kind == 'cuda' else ''}-{digest.hexdigest()[:16]}",
        compile=tuple(commands),
        link=(*tools.compiler, *objects, *tools.link_flags, "-o", "kernels.so"),
    )


def _host_compiler() -> list[str]:
    host = compilers.find_host_compiler()
    if host is None:
        raise BuildError("no C++ compiler was found", "Install one (`apt install g++`), or set CXX.")
    return host


def _cpu_toolchain() -> _Toolchain:
    host = _host_compiler()
    flags = ["-O3", "-march=native", "-std=c++17", "-fPIC", "-fopenmp", "-fvisibility=hidden"]
    return _Toolchain(host, host, compilers.cpu_description(), flags, ["-shared", "-fopenmp"])


def _cuda_toolchain(arch: str | None) -> _Toolchain:
    host = _host_compiler()
    nvcc = compilers.find_nvcc()
    if nvcc is None:
        raise BuildError(
            "no CUDA compiler (nvcc) was found",
            "Run `pip install stylegan_inv[cuda]`, which installs nvcc, or set CUDA_HOME to a CUDA toolkit.",
        )
    arch = arch or compilers.device_architecture()
    if not re.fullmatch(r"\d{2,3}[a-z]?", arch):
        raise UserError(f"{arch!r} is not a GPU architecture: expected the compute capability without its dot, e.g. 90")
    # The static runtime: the library needs no libcudart, in particular not the version that PyTorch installed.
    target = ["-gencode", f"arch=compute_{arch},code=sm_{arch}", "-cudart", "static", "-ccbin", host[0]]
    target += [f"-L{path}" for path in Path(nvcc).parents[1].glob("lib*") if path.is_dir()]
    flags = ["-O3", "-std=c++17", "-Xcompiler", "-fPIC,-fvisibility=hidden", *target]
    return _Toolchain([nvcc], host, arch, flags, ["-shared", *target])


def _compile(recipe: Plan, work: Path, ninja: str) -> None:
    def escaped(command: Sequence[str]) -> str:
        return shlex.join(command).replace("$", "$$")

    lines = ["rule run", "  command = $line", "  description = $out"]
    objects = [command[-1] for command in recipe.compile]
    for unit, result in zip(recipe.compile, objects, strict=True):
        lines += [f"build {result}: run", f"  line = {escaped(unit)}"]
    lines += [f"build kernels.so: run {' '.join(objects)}", f"  line = {escaped(recipe.link)}", ""]
    (work / "build.ninja").write_text("\n".join(lines))
    command = [ninja, "-C", str(work), "kernels.so"]
    try:
        done = subprocess.run(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=COMPILE_SECONDS
        )
    except subprocess.TimeoutExpired as error:
        raise BuildError(f"the compiler did not finish within {COMPILE_SECONDS:.0f} s", "Try again.") from error
    if done.returncode:
        raise _compiler_error(Path(recipe.link[0]).name, done.stdout)


def _compiler_error(compiler: str, output: str) -> BuildError:
    # Ninja prints the command line first; the compiler's own first error says more.
    lines = output.strip().splitlines()
    errors = [line for line in lines if re.search(r"\b(error|fatal)\b", line, re.I)] or lines[-3:]
    if "unsupported gpu architecture" in output.lower():
        cure = "This nvcc does not support your GPU: install a CUDA toolkit that does, and set CUDA_HOME to it."
    else:
        cure = "Set CXX to another C++ compiler, or CUDA_HOME to another CUDA toolkit."
    return BuildError(f"{compiler} failed: " + " | ".join(line.strip() for line in errors[:3]), cure)


@contextlib.contextmanager
def _lock(path: Path, wait_seconds: float) -> Iterator[bool]:
    """Holds an exclusive lock on ``path``; yields False where locks are not supported.

    Windows and some network file systems have none. Two processes may then build the same library, each in a folder of
    its own, and the second result replaces the first. The lock belongs to the process, not to the existence of the
    file, and ends with the process.
    """
    with path.open("a+") as file:
        deadline = time.monotonic() + wait_seconds
        while (locked := _try_lock(file)) is False:
            if time.monotonic() > deadline:
                file.seek(0)
                owner = file.read().strip() or "unknown"
                raise BuildError(
                    f"process {owner} has been building the same kernels for more than {wait_seconds:.0f} s",
                    "If it hangs, end it; this releases its lock.",
                )
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"{os.getpid()} on {platform.node()}")
        file.flush()
        yield locked is True


def _try_lock(file: IO[str]) -> bool | None:
    """Returns True if the lock was acquired, False if another process holds it, None if locks are not supported."""
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
