"""Reports which kernels would run on this machine and what they lack, and builds them.

python -m stylegan_inv.generators.ops
python -m stylegan_inv.generators.ops --build cpu
python -m stylegan_inv.generators.ops --build cuda --arch 80,90
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
import time
from collections.abc import Sequence

import torch

from stylegan_inv.generators.ops import build, compilers, dispatch
from stylegan_inv.utils.command_line import ArgumentParser, run


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs the command line; exits with code 1 if the kernels cannot be built."""
    run(lambda: _build_or_report(_parse(arguments)))


def _parse(arguments: Sequence[str] | None) -> argparse.Namespace:
    parser = ArgumentParser(prog="python -m stylegan_inv.generators.ops", description=__doc__.splitlines()[0])
    parser.add_argument("--build", choices=build.KINDS, help="build these kernels now instead of at their first use")
    parser.add_argument(
        "--arch", help="GPU architectures to build for, e.g. 80,90; default: those of the GPUs of this machine"
    )
    options = parser.parse_args(arguments)
    if options.arch and options.build != "cuda":
        parser.error("--arch requires --build cuda")
    return options


def _build_or_report(options: argparse.Namespace) -> int:
    if options.build is None:
        _report()
        return 0
    try:
        for arch in _architectures(options.build, options.arch):
            start = time.monotonic()
            path = build.build(options.build, arch)
            build.open_library(path)
            print(f"{path} ({time.monotonic() - start:.1f} s)")
    except compilers.BuildError as error:
        print(error, file=sys.stderr)
        return 1
    return 0


def _architectures(kind: str, names: str | None) -> list[str | None]:
    if names:
        return [arch.strip() for arch in names.split(",")]
    if kind == "cuda" and torch.cuda.is_available():
        capabilities = {torch.cuda.get_device_capability(i) for i in range(torch.cuda.device_count())}
        return [f"{major}{minor}" for major, minor in sorted(capabilities)]
    return [None]


def _report() -> None:
    def line(name: str, text: str) -> None:
        print(f"{name:<14}{text}")

    host, nvcc = compilers.find_host_compiler(), compilers.find_nvcc()
    line("PyTorch", f"{torch.__version__}, CUDA {torch.version.cuda or 'none'}")
    count = torch.cuda.device_count()
    for i in range(count):
        major, minor = torch.cuda.get_device_capability(i)
        line("GPU", f"{torch.cuda.get_device_name(i)}, architecture {major}{minor}")
    if not count:
        line("GPU", "none visible to PyTorch")
    line("C++ compiler", _with_version(host))
    line("ninja", compilers.find_ninja() or "not found: run `pip install ninja`")
    line("nvcc", _with_version([nvcc] if nvcc else None))
    line("CUDA_HOME", os.environ.get("CUDA_HOME") or os.environ.get("CUDA_PATH") or "not set")
    try:
        line("cache", str(build.cache_folder()))
    except RuntimeError as error:
        line("cache", str(error))
    cpu = _state("cpu", None)
    cuda = [_state("cuda", arch) for arch in _architectures("cuda", None)] if count else []
    line("CPU kernels", cpu)
    for state in cuda or ["not needed without a GPU; `--build cuda --arch 90` builds them for another machine"]:
        line("CUDA kernels", state)
    line(dispatch.VARIABLE, f" {os.environ.get(dispatch.VARIABLE) or 'not set'}")
    print()
    for device, states in [("CPU", [cpu]), ("GPU", cuda)][: 2 if count else 1]:
        available = all(state.startswith(("ready", "not built yet")) for state in states)
        print(f"On the {device}, {'the kernels run' if available else 'plain PyTorch runs'}.")


def _with_version(command: list[str] | None) -> str:
    if command is None:
        return "not found"
    try:
        lines = compilers.compiler_version(tuple(command)).strip().splitlines()
    except compilers.BuildError as error:
        return str(error)
    return f"{shlex.join(command)}: {next((text for text in lines if 'release' in text), lines[0] if lines else '?')}"


def _state(kind: str, arch: str | None) -> str:
    try:
        name = build.plan(kind, arch).name
        path = build.cache_folder() / f"{name}.so"
        if path.is_file():
            build.open_library(path)
            return f"ready ({path.name})"
        if compilers.find_ninja() is None:
            return "cannot be built: ninja is not installed"
    except (compilers.BuildError, RuntimeError) as error:
        return f"cannot be built: {error}"
    return "not built yet; built at their first use, or by `--build`"


if __name__ == "__main__":
    main()
