"""Compares all methods on SynthFaces, or measures the speed of a part.

    python -m stylegan_inv.benchmark                       # train and score all methods; tables and figures
    python -m stylegan_inv.benchmark methods --quick       # a test run of the same in about a minute
    python -m stylegan_inv.benchmark matrix                # every embedder with every refiner
    python -m stylegan_inv.benchmark render FOLDER         # tables and figures of stored results again
    python -m stylegan_inv.benchmark world                 # speed of generator, renderer and encoder on SynthFaces
    python -m stylegan_inv.benchmark generator --resolution 1024 --threads 2 --against path/to/stylegan2-ada-pytorch
    python -m stylegan_inv.benchmark ops --json ops.json
    python -m stylegan_inv.benchmark data --file-resolution 1024 --resolution 256
    python -m stylegan_inv.benchmark gan dataset.resolution=32 --against path/to/stylegan2-ada-pytorch
    python -m stylegan_inv.benchmark loader method=restyle dataset.num_workers=1

The speed of a shared machine varies, so every row also gives the ratio to a reference that is measured in the same run;
for ``world`` it is a 3x3 convolution of 64 channels at 64 px, batch 8.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from hydra import compose, initialize_config_dir
from rich.console import Console
from rich.table import Table

from stylegan_inv.benchmark.matrix import scored_pairs
from stylegan_inv.benchmark.quality import comparison
from stylegan_inv.benchmark.quality.comparison_report import render_again
from stylegan_inv.benchmark.speed import (
    decoding_speed,
    embedded_speed,
    gan_speed,
    loader_speed,
    ops_speed,
    synthesis_speed,
)
from stylegan_inv.benchmark.speed.speed_tables import speed_table, world_table
from stylegan_inv.config import CONF_DIR, instantiate_method
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.allocator import tune_allocator
from stylegan_inv.utils import timing
from stylegan_inv.utils.command_line import ArgumentParser, real, run, whole
from stylegan_inv.utils.files import atomic_write, check_output_file
from stylegan_inv.utils.plain_data import MOST_BYTES
from stylegan_inv.utils.regular_files import read_bytes
from stylegan_inv.utils.text import json_text

METHODS, MATRIX, RENDER, WORLD = "methods", "matrix", "render", "world"
#: Subcommand -> module and description.
SPEED = {
    "generator": (synthesis_speed, "the synthesis network in its forms, and other implementations"),
    "ops": (ops_speed, "the operations of the generator"),
    "data": (decoding_speed, "reading and decoding images, and torchvision"),
    "gan": (gan_speed, "training steps of StyleGAN2, and other implementations"),
    "loader": (loader_speed, "training steps with the data loader, and with a batch in memory"),
}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Parses the command line; ``methods`` is the default subcommand.

    Raises:
        UserError: If an option is unknown or invalid.
    """
    common = ArgumentParser(add_help=False)
    common.add_argument("--threads", **whole(1, 1024), default=torch.get_num_threads())
    common.add_argument("--json", type=Path, help="also write the measurements to this file")
    common.add_argument("--overwrite", action="store_true", help="replace a file that holds no measurements")
    parser = ArgumentParser(prog="python -m stylegan_inv.benchmark", description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", metavar=f"{{{','.join([METHODS, MATRIX, RENDER, WORLD, *SPEED])}}}")
    methods = parts.add_parser(METHODS, help="train and score all methods; write tables and figures")
    methods.add_argument("--threads", **whole(1, 1024), default=torch.get_num_threads())
    comparison.arguments(methods)
    pairs = parts.add_parser(MATRIX, help="score every embedder with every refiner; write tables and figures")
    pairs.add_argument("--threads", **whole(1, 1024), default=torch.get_num_threads())
    scored_pairs.arguments(pairs)
    render = parts.add_parser(RENDER, help="write tables and figures again from stored results")
    render.add_argument("folder", type=Path, help="folder of benchmark.json and edits.csv")
    world = parts.add_parser(WORLD, parents=[common], help="speed of generator, renderer and encoder on SynthFaces")
    world.add_argument("--seconds", **real(0.001, 86_400), default=2.0, help="duration of each measurement")
    for name, (module, description) in SPEED.items():
        part = parts.add_parser(name, parents=[common], help=f"speed of {description}")
        module.arguments(part)
        part.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
        part.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        part.add_argument("--repeats", **whole(1, 100_000), default=part.get_default("repeats") or 5)
        part.add_argument("--allocator", action="store_true", help="keep freed memory in the process, for all rows")
    values = list(sys.argv[1:] if arguments is None else arguments)
    if not values or values[0] not in ("-h", "--help", METHODS, MATRIX, RENDER, WORLD, *SPEED):
        values = [METHODS, *values]
    parsed = parser.parse_args(values)
    if parsed.part in SPEED and parsed.device == "cuda" and not torch.cuda.is_available():
        raise UserError("--device cuda: PyTorch does not find a GPU")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Runs a subcommand and prints its table or the folder of its results.

    Args:
        arguments: The command line; ``sys.argv[1:]`` if None.

    Raises:
        SystemExit: With code 2 for bad input.
    """
    run(lambda: _run(options(arguments)))


def _run(parsed: argparse.Namespace) -> None:
    if parsed.part in (METHODS, MATRIX):
        tune_allocator()
        torch.set_num_threads(parsed.threads)
        part = comparison if parsed.part == METHODS else scored_pairs
        print(f"results:    {part.run(parsed, build_method)}")
    elif parsed.part == RENDER:
        render_again(parsed.folder)
        print(f"results:    {parsed.folder}")
    else:
        _measure_speed(parsed)


def build_method(name: str, overrides: Sequence[str]) -> Any:
    """Builds a method of ``conf/method`` that optimises each image with the embedded generator."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("invert", overrides=["input=none", f"method={name}", *overrides])
    return instantiate_method(cfg.method)


def _measure_speed(parsed: argparse.Namespace) -> None:
    if parsed.part == WORLD or parsed.allocator:
        tune_allocator()
    if parsed.json:
        check_output_file(f"--json {parsed.json}", parsed.json, _holds_rows, parsed.overwrite, "--overwrite")
    torch.set_num_threads(parsed.threads)
    result, table = _world(parsed) if parsed.part == WORLD else _speed(parsed)
    console = Console()
    (console if console.is_terminal else Console(width=140)).print(table)
    if parsed.json:
        parsed.json.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(parsed.json) as temporary:
            temporary.write_text(json_text(result), encoding="utf-8")


def _holds_rows(file: Path) -> bool:
    """Returns whether a file holds measurements of this command."""
    try:
        content = json.loads(read_bytes(file, MOST_BYTES))
    except (ValueError, RecursionError):
        return False
    rows = content.get("rows") if isinstance(content, dict) else content
    return isinstance(rows, list) and all(isinstance(row, dict) for row in rows)


def _world(parsed: argparse.Namespace) -> tuple[Any, Table]:
    rows = embedded_speed.run(parsed)
    title = f"batch {embedded_speed.BATCH}, {parsed.threads} threads, torch {torch.__version__}"
    return rows, world_table(rows, title)


def _speed(parsed: argparse.Namespace) -> tuple[Any, Table]:
    limits = timing.roofline(getattr(torch, parsed.dtype), parsed.device)
    rows = SPEED[parsed.part][0].run(parsed, limits)
    settings = {k: [str(v) for v in x] if isinstance(x, list) else x for k, x in vars(parsed).items()}
    machine = {**timing.machine(parsed.device), **vars(limits)}
    title = (
        f"{parsed.resolution} px, batch {parsed.batch}, {parsed.dtype}, {machine['processor']}, "
        f"{parsed.threads} threads, torch {torch.__version__}\n"
        f"copy {limits.bytes_per_second / 1e9:.1f} GB/s, matrix product {limits.flops / 1e9:.0f} GFLOP/s"
    )
    result = {"machine": machine, "options": {**settings, "json": str(parsed.json)}, "rows": rows}
    return result, speed_table(rows, title)


if __name__ == "__main__":
    main()
