"""Show that a restructuring changes no number: run every method before and after, and compare what comes out.

``record`` takes every method of ``conf/method`` through its command line for 20 steps on one thread and keeps, in one
JSON for each run, the exact metrics and a hash of every tensor, picture and counter that is left behind. ``compare``
lists the differences of two such folders::

    python tests/compare_revisions.py record /tmp/before            # in a checkout of the old revision
    python tests/compare_revisions.py record /tmp/after             # in one of the new revision
    python tests/compare_revisions.py compare /tmp/before /tmp/after

The package is the one that ``import stylegan_inv`` finds (``PYTHONPATH`` chooses a checkout). Only command lines are
used, so modules may move. Keys of state dicts count: a renamed parameter is a difference. ``record`` takes about three
minutes of one core. Both folders must come from the same machine and the same versions of packages.

An option that is spelled in another way in one of the revisions: ``--renamed method.stages.every=method.stages.step``,
or an entry in `RENAMED`, which is tried where the spelling of `METHODS` is refused.
"""

from __future__ import annotations

import argparse
import csv
import hashlib
import importlib.util
import json
import math
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

STEPS = 20

#: Options of every training.
TRAIN = (
    f"trainer.max_steps={STEPS}",
    "trainer.accelerator=cpu",
    "trainer.log_every_n_steps=1",
    "dataset.num_workers=0",
    "callbacks.progress=null",
    "logger=csv",
    "seed=0",
)
#: Further options of a training on SynthFaces.
FACES = (
    "dataset.batch_size=2",
    "dataset.val_size=6",
    "dataset.val_batch_size=4",
    "callbacks.panels.images=2",
)
#: Options of every inversion without a training.
INVERT = ("input=synthfaces:0-2", "output=out", "batch_size=2", "device=cpu", "seed=0")

#: Method -> the module of its command line and its own options.
METHODS: dict[str, tuple[str, tuple[str, ...]]] = {
    "psp": ("train", FACES),
    "e4e": ("train", (*FACES, "method.stages.start=6", "method.stages.every=2", "method.adversary.pool_size=5")),
    "restyle": ("train", (*FACES, "method.iterations=3")),
    "restyle_e4e": ("train", (*FACES, "method.iterations=2", "method.stages.start=6", "method.stages.every=2")),
    "interestyle": ("train", (*FACES, "dataset.obstacles=0.5")),
    "interestyle_released": ("train", FACES),
    "interestyle_dual": ("train", (*FACES, "dataset.obstacles=0.5")),
    "fse": ("train", FACES),
    "sfe": ("train", (*FACES, "method.editor_first_step=10")),
    "hyperstyle": ("train", (*FACES, "method.iterations=2")),
    "hyperinverter": ("train", FACES),
    "stylegan2": (
        "train",
        (
            "dataset.train_size=32",
            "dataset.val_size=8",
            "dataset.batch_size=4",
            "dataset.val_batch_size=8",
            f"trainer.val_check_interval={STEPS}",
            "callbacks.panels.every_n_steps=20",
            "method.w_avg_samples=4",
            "augment=ada",
            "+augment.initial_p=0.2",
        ),
    ),
    "face_network": (
        "train",
        ("dataset.people=16", "dataset.val_people=8", "dataset.batch_size=4", "dataset.val_batch_size=8"),
    ),
    "projector": ("invert", (f"method.steps={STEPS}", "method.w_avg_samples=500")),
    "image2stylegan": ("invert", (f"method.steps={STEPS}",)),
    "image2stylegan_pp": ("invert", (f"method.stages.w.steps={STEPS}", f"method.stages.noise.steps={STEPS}")),
    "pti": ("invert", (f"method.start.steps={STEPS}", f"method.steps={STEPS}", "method.distance_threshold=null")),
}

#: Commands that go on from a training above: name -> (method, module, options). ``run=`` is added.
AFTERWARDS: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "restyle_invert": ("restyle", "invert", INVERT),
    "restyle_edit": ("restyle", "edit", ("input=synthfaces:0-1", "edit=smile", "output=out", "device=cpu")),
    "restyle_evaluate": ("restyle", "evaluate", ("max_images=4", "output=out", "speed.seconds=0", "device=cpu")),
    "interestyle_evaluate": (
        "interestyle",
        "evaluate",
        ("max_images=4", "output=out", "speed.seconds=0", "device=cpu", "dataset.obstacles=1.0"),
    ),
}

#: Option -> its spelling in another revision; tried where the first one is refused.
RENAMED: dict[str, str] = {
    "method.stages.w.steps": "method.parts.w.steps",
    "method.stages.noise.steps": "method.parts.noise.steps",
    "method.distance_threshold": "method.goal",
    "method.w_avg_samples": "method.samples",
}

#: Figures that depend on the clock.
_TIMES = ("perf/", "seconds", "images_per_second", "waiting_share")
#: Hash of a checkpoint's file, which holds the path of its run and the name of a temporary file.
_FILE_HASH = re.compile(r", checkpoint sha256 [0-9a-f]+")
#: Files that say where, when and with what something was made; what they say of numbers is in the others.
_NO_MATTER = ("config.yaml", "run.json", "versions.json", "overrides.yaml", "hydra.yaml", "table.md")


def main() -> int:
    """The command line; returns the exit code."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter, allow_abbrev=False
    )
    commands = parser.add_subparsers(dest="command", required=True)
    recording = commands.add_parser("record", help="run everything and keep what comes out in FOLDER")
    recording.add_argument("folder", type=Path)
    recording.add_argument("--only", nargs="+", metavar="NAME", help="of METHODS and AFTERWARDS; default: all")
    recording.add_argument("--renamed", action="append", default=[], metavar="OLD=NEW", help="another spelling")
    comparing = commands.add_parser("compare", help="list every difference; exit code 1 if there is any")
    comparing.add_argument("first", type=Path)
    comparing.add_argument("second", type=Path)
    arguments = parser.parse_args()
    if arguments.command == "compare":
        return compare(arguments.first, arguments.second)
    renamed = dict(pair.split("=", 1) for pair in arguments.renamed)
    return record(arguments.folder, arguments.only, renamed)


def record(folder: Path, only: Sequence[str] | None = None, renamed: Mapping[str, str] | None = None) -> int:
    """Run the methods and write ``<name>.json`` for each run.

    Args:
        folder: Where to; made if it is missing.
        only: Names of the runs; None: all. A command that goes on from a training needs that training, too.
        renamed: Option -> its spelling in this revision.

    Returns:
        0, or 1 if a run fails or a method of ``conf/method`` is not in `METHODS`.
    """
    root = _checkout()
    print(f"package: {root}", flush=True)
    missing = sorted(_methods(root) - METHODS.keys())
    if missing:
        print(f"no options in METHODS for {', '.join(missing)}; add an entry for each", file=sys.stderr)
        return 1
    folder.mkdir(parents=True, exist_ok=True)
    failed, started = [], time.perf_counter()
    with tempfile.TemporaryDirectory(prefix="compare_revisions_") as work:
        runs = Path(work).resolve()
        for name, module, options, wanted in _runs(runs, only):
            place = runs / name
            place.mkdir()
            begun = time.perf_counter()
            error = _launch(root, module, options, place, renamed or {})
            seconds = time.perf_counter() - begun
            if error is not None:
                print(f"{name}: failed\n{error}", file=sys.stderr, flush=True)
                failed.append(name)
                continue
            if wanted:
                content = dict(sorted(describe(place).items()))
                (folder / f"{name}.json").write_text(json.dumps(content, indent=1) + "\n")
                print(f"{name}: {len(content)} values, {seconds:.0f} s", flush=True)
    print(f"{time.perf_counter() - started:.0f} s in all; {len(failed)} failed", flush=True)
    return 1 if failed else 0


def compare(first: Path, second: Path) -> int:
    """Print every difference of two folders that `record` has made.

    Returns:
        0 if there is none, 1 otherwise.
    """
    files = {path.name for folder in (first, second) for path in folder.glob("*.json")}
    differences, values = 0, 0
    for name in sorted(files):
        contents = []
        for folder in (first, second):
            path = folder / name
            if path.is_file():
                contents.append(json.loads(path.read_text()))
            else:
                print(f"{name}: only in {second if folder == first else first}")
                differences += 1
        if len(contents) < 2:
            continue
        before, after = contents
        values += len(before)
        for key in sorted(before.keys() | after.keys()):
            if key not in after:
                text = f"only in {first}: {before[key]}"
            elif key not in before:
                text = f"only in {second}: {after[key]}"
            elif before[key] != after[key]:
                text = f"{before[key]} -> {after[key]}"
            else:
                continue
            differences += 1
            print(f"{Path(name).stem}: {key}: {text}")
    if not files:
        print(f"no records in {first} and {second}", file=sys.stderr)
        return 1
    print(f"{len(files)} runs, {values} values, {differences} differences")
    return 1 if differences else 0


def describe(folder: Path) -> dict[str, str]:
    """Everything that a run has left in its folder, as exact text by name.

    Numbers are written so that each bit counts, tensors and pictures as a hash of shape, type and content.
    """
    content: dict[str, str] = {}
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder).as_posix()
        if not path.is_file() or path.name in _NO_MATTER or "/.hydra/" in f"/{name}":
            continue
        if path.suffix == ".json":
            content |= dict(_flat(name, json.loads(path.read_text()), folder))
        elif path.suffix == ".csv":
            content |= dict(_table(name, path, folder))
        elif path.suffix == ".ckpt":
            content |= dict(_checkpoint(name, path, folder))
        elif path.suffix == ".safetensors":
            content |= dict(_safetensors(name, path))
        elif path.suffix == ".png":
            content[name] = _picture(path)
    return content


def _runs(work: Path, only: Sequence[str] | None) -> Iterator[tuple[str, str, list[str], bool]]:
    """Name, module and options of each command, and whether its result is asked for."""
    known = [*METHODS, *AFTERWARDS]
    if only is not None and (unknown := set(only) - set(known)):
        raise SystemExit(f"{', '.join(sorted(unknown))}: expected some of {', '.join(known)}")
    wanted = set(known if only is None else only)
    needed = wanted | {AFTERWARDS[name][0] for name in wanted & AFTERWARDS.keys()}
    for name, (module, options) in METHODS.items():
        if name in needed:
            common = (*TRAIN, "hydra.run.dir=run") if module == "train" else INVERT
            yield name, module, [f"method={name}", *common, *options], name in wanted
    for name, (method, module, options) in AFTERWARDS.items():
        if name in wanted:
            more = [f"+{o}" if module == "evaluate" and o.startswith("dataset.") else o for o in options]
            yield name, module, [f"run={work / method / 'run'}", *more], True


def _launch(root: Path, module: str, options: Sequence[str], place: Path, renamed: Mapping[str, str]) -> str | None:
    """Run a command line in ``place``; returns what went wrong, or None."""
    environment = dict(
        os.environ,
        PYTHONPATH=os.pathsep.join([str(root), *filter(None, [os.environ.get("PYTHONPATH")])]),
        OMP_NUM_THREADS="1",
        MKL_NUM_THREADS="1",
        CUDA_VISIBLE_DEVICES="",
        PYTHONHASHSEED="0",
        STYLEGAN_INV_CACHE=str(place.parent / "cache"),
        STYLEGAN_INV_OFFLINE="1",
        COLUMNS="120",
    )
    environment.pop("WANDB_API_KEY", None)
    spellings = [[_respelled(option, renamed) for option in options]]
    other = [_respelled(option, RENAMED) for option in spellings[0]]
    for spelling in spellings if other == spellings[0] else [spellings[0], other]:
        command = [sys.executable, "-m", f"stylegan_inv.{module}", *spelling]
        result = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, stdin=subprocess.DEVNULL
        )
        if result.returncode != 2:  # 2: an option or input is refused
            break
    if result.returncode == 0:
        return None
    return f"{' '.join(command)}\nexit code {result.returncode}\n{result.stdout[-2000:]}{result.stderr[-4000:]}"


def _respelled(option: str, renamed: Mapping[str, str]) -> str:
    key, equals, value = option.partition("=")
    plus = key[: len(key) - len(key.lstrip("+~"))]
    key = key[len(plus) :]
    for old, new in renamed.items():
        if key == old or key.startswith(f"{old}."):
            key = new + key[len(old) :]
    return f"{plus}{key}{equals}{value}"


def _checkout() -> Path:
    """The folder that holds the package that Python finds."""
    found = importlib.util.find_spec("stylegan_inv")
    if found is None or found.origin is None:
        raise SystemExit("no package stylegan_inv is installed or on PYTHONPATH")
    return Path(found.origin).resolve().parents[1]


def _methods(root: Path) -> set[str]:
    """Names of all methods in the package's config."""
    folders = [root / "conf" / "method", root / "stylegan_inv" / "conf" / "method"]
    names = {path.stem for folder in folders for path in folder.glob("*.yaml")}
    if not names:
        raise SystemExit(f"{root}: no conf/method/*.yaml in it")
    return names


def _flat(name: str, value: Any, folder: Path) -> Iterator[tuple[str, str]]:
    """Every leaf of nested containers, without those that depend on the clock."""
    import torch

    if name.rpartition("|")[2].startswith(_TIMES):
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flat(f"{name}|{key}", inner, folder)
    elif isinstance(value, (list, tuple)):
        for number, inner in enumerate(value):
            yield from _flat(f"{name}|{number}", inner, folder)
    elif isinstance(value, torch.Tensor):
        yield name, _tensor(value)
    elif isinstance(value, float):
        yield name, "nan" if math.isnan(value) else value.hex()
    else:
        yield name, _FILE_HASH.sub("", repr(value).replace(str(folder.parent), "WORK"))


def _table(name: str, path: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """The cells of a CSV as they are written, by line and column."""
    with path.open(newline="") as file:
        for number, row in enumerate(csv.DictReader(file)):
            for column, cell in row.items():
                if cell and not str(column).startswith(_TIMES):
                    yield f"{name}|{number}|{column}", str(cell).replace(str(folder.parent), "WORK")


def _checkpoint(name: str, path: Path, folder: Path) -> Iterator[tuple[str, str]]:
    """Weights, state of the optimisers and all counters of a checkpoint."""
    import torch

    content = torch.load(path, map_location="cpu", weights_only=True)
    content.pop("pytorch-lightning_version", None)
    yield from _flat(name, content, folder)


def _safetensors(name: str, path: Path) -> Iterator[tuple[str, str]]:
    from safetensors.torch import load_file

    for key, value in load_file(path).items():
        yield f"{name}|{key}", _tensor(value)


def _picture(path: Path) -> str:
    from PIL import Image

    with Image.open(path) as image:
        pixels = image.convert("RGBA")
        return f"{image.size[0]}x{image.size[1]} {hashlib.sha256(pixels.tobytes()).hexdigest()}"


def _tensor(value: Any) -> str:
    """Type, shape and a hash of the content."""
    import torch

    raw = value.detach().cpu().contiguous().reshape(-1).view(torch.uint8)
    return f"{value.dtype} {tuple(value.shape)} {hashlib.sha256(raw.numpy().tobytes()).hexdigest()}"


if __name__ == "__main__":
    sys.exit(main())
