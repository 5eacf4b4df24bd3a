"""The layout of the package: which folder may import which, how large folders are, and that importing costs little."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections import Counter, defaultdict
from collections.abc import Iterator
from graphlib import CycleError, TopologicalSorter
from importlib import import_module
from pathlib import Path

import pytest

PACKAGE = Path(__file__).resolve().parents[1] / "stylegan_inv"
FILES = sorted(PACKAGE.rglob("*.py"))

#: Every folder of the package, and every file at its top, from the ground up: each may import what stands before it.
#: Folders in one line are on one level and know nothing of each other.
LEVELS = """
errors
utils assets
weights
generators/ops
generators/frozen
generators
generators/io
generators/variants
data/images
data/sources
data/synthfaces data/augment data/tasks data/alignment
data/datamodules
encoders
encoders/official
optim visualization
losses
losses/paired losses/latent
metrics
latents
latents/edits latents/discovery
methods/common
methods
methods/generator
trust
runtime
callbacks
config
loading
evaluate invert directions prepare report sweeps train convert
edit sweeps/hydra_plugins
benchmark/speed
benchmark
cli
"""
LEVEL = {place: number for number, line in enumerate(LEVELS.split("\n")) for place in line.split()}
#: The packages that only gather what is below them: they hold no code of their own.
GATHERING = {"data"}
MOST_FILES = 16
FREE_NAMES = {"__init__", "__main__", "base"}
#: Besides the configuration: the commands.
HYDRA_FLOORS = {
    "config",
    "loading",
    "train",
    "convert",
    "directions",
    "invert",
    "edit",
    "evaluate",
    "benchmark",
} | {
    "prepare",
    "report",
    "sweeps",
}
LIGHTNING_FLOORS = {"methods", "callbacks", "runtime", "train"}


def place(path: Path) -> str:
    """The folder of a file, or the file itself at the top of the package, whose ``__main__`` runs ``cli``."""
    parts = path.relative_to(PACKAGE).with_suffix("").parts
    return "/".join(parts[:-1]) or {"__main__": "cli"}.get(parts[0], parts[0])


def is_front_door(path: Path) -> bool:
    return path.name == "__init__.py"


def module_file(module: str) -> Path | None:
    path = PACKAGE.parent.joinpath(*module.split("."))
    return next((p for p in (path.with_suffix(".py"), path / "__init__.py") if p.is_file()), None)


def home(module: str, name: str) -> Path | None:
    """The file that defines what ``from module import name`` imports, through lazy packages."""
    if file := module_file(f"{module}.{name}"):
        return file
    file = module_file(module)
    if file is None or not is_front_door(file):
        return file
    value = getattr(import_module(module), name, None)
    return module_file(getattr(value, "__module__", "")) or file


def imports(path: Path) -> Iterator[tuple[str, Path]]:
    """Every import of the package in a file, at any depth, with the file that it comes from."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            for alias in node.names:
                if alias.name.split(".")[0] == "stylegan_inv":
                    file = module_file(alias.name)
                    assert file is not None, f"{path}: there is no {alias.name}"
                    yield alias.name, file
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if (node.module or "").split(".")[0] == "stylegan_inv":
                for alias in node.names:
                    file = home(node.module or "", alias.name)
                    # Type checkers ignore modules that are missing, and imports for them alone are never executed.
                    assert file is not None, f"{path}: there is no {node.module}"
                    yield f"{node.module}.{alias.name}", file


def packages(path: Path) -> set[str]:
    """The top packages that a file imports, at any depth."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found.update(alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            found.add((node.module or "").split(".")[0])
    return found


def test_every_folder_has_a_level() -> None:
    places = {place(path) for path in FILES if path.parent != PACKAGE or path.stem not in FREE_NAMES}
    assert places - GATHERING == set(LEVEL)


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_go_downwards(path: Path) -> None:
    for name, file in imports(path):
        assert file != PACKAGE / "__init__.py", f"{path} imports the package that it is part of"
        here, there = place(path), place(file)
        if is_front_door(path):
            # A package's __init__ names what is inside its own folder, and nothing else.
            inside = file.is_relative_to(path.parent) or file == PACKAGE / "utils" / "lazy.py"
            assert inside, f"{path} names {name}, which is not in its folder"
        else:
            assert here == there or LEVEL[there] < LEVEL[here], f"{here} must not import {name}, which is in {there}"


def test_files_form_no_circle() -> None:
    graph = {path: {file for _, file in imports(path) if file != path} for path in FILES if not is_front_door(path)}
    try:
        TopologicalSorter(graph).prepare()
    except CycleError as error:
        raise AssertionError(" -> ".join(str(path.relative_to(PACKAGE)) for path in error.args[1])) from error


def test_file_names_occur_once() -> None:
    counts = Counter(path.stem for path in FILES if path.stem not in FREE_NAMES)
    assert [name for name, count in counts.items() if count > 1] == []


def test_folders_are_small_and_a_shared_prefix_is_a_folder() -> None:
    folders: dict[Path, list[str]] = defaultdict(list)
    for path in FILES:
        if path.stem not in FREE_NAMES:
            folders[path.parent].append(path.stem)
    for folder, stems in folders.items():
        assert len(stems) <= MOST_FILES, f"{folder} holds {len(stems)} files"
        prefixes = Counter(stem.split("_")[0] for stem in stems)
        shared = [prefix for prefix, count in prefixes.items() if count > 2]
        assert shared == [], f"{folder}: files that begin with {shared} are a folder of their own"


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_lightning_and_hydra_stay_in_their_places(path: Path) -> None:
    here, used = place(path), packages(path)
    if "hydra" in used:
        assert here.split("/")[0] in HYDRA_FLOORS, f"{path} imports Hydra"
    if {"pytorch_lightning", "lightning"} & used:
        allowed = here.split("/")[0] in LIGHTNING_FLOORS or here == "data/datamodules" or path.name == "compat.py"
        assert allowed, f"{path} imports Lightning"


@pytest.mark.parametrize("path", [p for p in FILES if is_front_door(p)], ids=lambda p: str(p.relative_to(PACKAGE)))
def test_front_doors_list_what_they_open(path: Path) -> None:
    module = import_module(".".join(path.parent.relative_to(PACKAGE.parent).parts))
    listed = {name.rpartition(".")[2] for name, file in imports(path) if file != PACKAGE / "utils" / "lazy.py"}
    if "lazy_exports" in path.read_text():
        assert listed == set(module.__all__)
        for name in module.__all__:
            assert getattr(module, name) is not None
            # Python sets a submodule as an attribute of its package, which would hide the object of the same name.
            assert not (path.parent / f"{name}.py").exists(), f"{name} has the name of its file"


def test_import_is_light_and_touches_nothing() -> None:
    lazy = [".".join(p.parent.relative_to(PACKAGE.parent).parts) for p in FILES if "lazy_exports" in p.read_text()]
    modules = ["stylegan_inv", *(name for name in lazy if not name.endswith("utils"))]
    code = (
        "import sys, time, importlib; start = time.perf_counter()\n"
        f"for name in {modules!r}: importlib.import_module(name)\n"
        "seconds = time.perf_counter() - start\n"
        "heavy = {'torch', 'pytorch_lightning', 'hydra', 'wandb', 'matplotlib'} & set(sys.modules)\n"
        "print(seconds); print(sorted(heavy))"
    )
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout.split("\n")
    assert float(out[0]) < 0.3
    assert out[1] == "[]"
