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
encoders/feature_space
hypernetworks
encoders/refinement
encoders/official
optim visualization
losses
losses/paired losses/latent losses/faces
metrics
latents
latents/edits latents/discovery
methods/common/discriminators
methods/common
methods/regions
methods/feature_space methods
methods/generator
trust
runtime
callbacks
config
loading
evaluate invert directions prepare report sweeps train convert
edit sweeps/hydra_plugins
benchmark/speed
benchmark/quality
benchmark/matrix
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


#: Functions that open the file of a path, and methods of paths and folders that do.
OPENERS = {
    "open", "io.open", "os.open", "Image.open", "np.load", "np.fromfile", "np.loadtxt", "np.genfromtxt", "np.memmap",
    "torch.load", "torch.jit.load", "zipfile.ZipFile", "zipfile.is_zipfile", "tarfile.open", "tarfile.is_tarfile",
    "gzip.open", "lmdb.open", "lmdb.Environment", "safe_open", "load_file", "OmegaConf.load", "sqlite3.connect",
    "linecache.getlines", "shutil.copyfile", "shutil.copy", "shutil.copy2", "dlib.shape_predictor", "mmap.mmap",
}  # fmt: skip
OPENING_METHODS = {"open", "read_text", "read_bytes", "fromfile"}
REGULAR_FILES = "utils/regular_files.py"
#: Openings outside of that module -> why they read no file of somebody else, or no pipe.
OWN_FILES = {
    "evaluate/partial_scores.py torch.load(file)": "`regular_files` has checked it in the line before",
    "utils/safetensors_files.py safe_open(name)": "`regular_files` holds it open",
    "config/search_storage.py sqlite3.connect(f'file:{quote(str(path.absolute()))}?mode=ro')": "opened before",
    "data/alignment/landmarks.py dlib.shape_predictor(str(predictor))": "checked by `check_regular` before",
    "data/datamodules/cached_synthfaces.py np.load(self.paths[0])": "a cache that this class writes",
    "data/datamodules/cached_synthfaces.py np.load(self.paths[1])": "a cache that this class writes",
    "data/datamodules/cached_synthfaces.py path.read_bytes()": "source text of the package",
    "data/sources/packing.py open(content)": "the unfinished file of `prepare pack`, in a folder of its own",
    "data/sources/packing.py lmdb.open(str(content))": "the unfinished LMDB of `prepare pack`, in a folder of its own",
    "generators/ops/build.py path.read_text()": "source text of the package",
    "generators/ops/build.py unit.read_text()": "source text of the package",
    "generators/ops/build.py path.open('a+')": "the lock in the cache of kernels, whose owner is checked",
    "generators/ops/compilers.py Path('/proc/cpuinfo').read_text()": "of the system",
    "utils/timing.py Path('/proc/self/status').read_text()": "of the system",
    "utils/timing.py Path('/proc/cpuinfo').read_text()": "of the system",
    "utils/files.py open(temporary)": "just written",
    "utils/files.py os.open(folder)": "a folder, to flush it",
    "runtime/atomic_checkpoints.py zipfile.ZipFile(path)": "just written",
    "runtime/atomic_checkpoints.py shutil.copyfile(path)": "a checkpoint of this run; refuses pipes by itself",
    "weights/download.py open(part)": "a partial download, which is continued",
    "weights/download.py opener.open(urllib.request.Request(url, headers=headers))": "an address",
}  # fmt: skip


def test_files_are_opened_by_regular_files_only() -> None:
    """Pipes and devices have any name in a folder of a stranger; what opens them otherwise waits, or reads for ever."""
    found = {f"{path.relative_to(PACKAGE)} {call}": path for path in FILES for call in openings(path)}
    assert not (unknown := sorted(set(found) - set(OWN_FILES))), f"use {REGULAR_FILES} for {unknown}"
    assert not (gone := sorted(set(OWN_FILES) - set(found))), f"{gone}: no longer there"


def test_openings_are_seen(tmp_path: Path) -> None:
    (tmp_path / "a.py").write_text(
        "def one(path, file: BinaryIO):\n"
        "    with open_regular(path) as opened, zipfile.ZipFile(opened) as archive: archive.open(entry)\n"
        "    open('x', 'w')\n"
        "    return Image.open(io.BytesIO(b'')), np.load(file), tarfile.open(fileobj=opened, mode='r:')\n"
        "def two(opened, archive):\n"
        "    np.load(opened); archive.open(entry); opened.read_text(); open(opened, 'rb'); path.open()\n"
    )
    assert list(openings(tmp_path / "a.py")) == [
        "np.load(opened)", "archive.open(entry)", "opened.read_text()", "open(opened)", "path.open()"
    ]  # fmt: skip


def openings(path: Path) -> Iterator[str]:
    """The calls in a file that open the file of a path to read it, by their first argument."""
    if path == PACKAGE / REGULAR_FILES:
        return
    waiting: list[tuple[ast.AST, frozenset[str]]] = [(ast.parse(path.read_text()), frozenset())]
    while waiting:
        node, opened = waiting.pop(0)
        if isinstance(node, ast.FunctionDef):
            opened = opened | opened_names(node)
        if isinstance(node, ast.Call) and is_opening(node, opened):
            first = ast.unparse(node.args[0]) if node.args else ""
            yield f"{ast.unparse(node.func)}({first})"
        waiting[:0] = [(child, opened) for child in ast.iter_child_nodes(node)]


def opened_names(function: ast.FunctionDef) -> frozenset[str]:
    """The names of open files and archives in a function."""
    names = {one.arg for one in function.args.args if one.annotation and "BinaryIO" in ast.unparse(one.annotation)}
    names |= {one.arg for one in function.args.args if one.annotation and "ZipFile" in ast.unparse(one.annotation)}
    for node in ast.walk(function):
        if isinstance(node, ast.withitem) and node.optional_vars is not None:
            names |= {ast.unparse(node.optional_vars)} if opens(node.context_expr) else set()
        elif isinstance(node, ast.Assign) and opens(node.value):
            names |= {ast.unparse(target) for target in node.targets}
    return frozenset(names)


def opens(value: ast.expr) -> bool:
    return any(name in ast.unparse(value) for name in ("open_regular(", "zipfile.ZipFile("))


def is_opening(call: ast.Call, opened: frozenset[str]) -> bool:
    name = ast.unparse(call.func)
    if isinstance(call.func, ast.Attribute) and call.func.attr in OPENING_METHODS and name not in OPENERS:
        return ast.unparse(call.func.value) not in {*opened, "regular_files"} and not only_writes(call, 0)
    if name not in OPENERS or only_writes(call, 1):
        return False
    given = [*call.args[:1], *(keyword.value for keyword in call.keywords if keyword.arg == "fileobj")]
    return not any(
        ast.unparse(one).removesuffix(".fileno()") in opened or "BytesIO(" in ast.unparse(one) for one in given
    )


def only_writes(call: ast.Call, position: int) -> bool:
    given = [*call.args[position : position + 1], *(one.value for one in call.keywords if one.arg == "mode")]
    mode = given[0] if given else None
    return isinstance(mode, ast.Constant) and bool(set(str(mode.value)) & set("wxa")) and "+" not in str(mode.value)
