"""Compare all methods in the embedded world; or time its parts, the generator, its operations, the reading of data.

    python -m stylegan_inv.benchmark                    # all methods: trained, scored, one table, figures
    python -m stylegan_inv.benchmark methods --quick    # the same in a minute, to see it run
    python -m stylegan_inv.benchmark world              # how long the parts of the embedded world take
    python -m stylegan_inv.benchmark generator --resolution 1024 --threads 2 --against path/to/stylegan2-ada-pytorch
    python -m stylegan_inv.benchmark ops --json ops.json
    python -m stylegan_inv.benchmark data --file-resolution 1024 --resolution 256
    python -m stylegan_inv.benchmark loader method=restyle dataset.num_workers=1

Of what is timed: a machine shared with others is never twice as fast as before, so every row also gives its ratio to
one reference that is timed in the same run: for the world a plain 3x3 convolution of 64 channels at 64 px, batch 8.
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

from stylegan_inv.benchmark import comparison as benchmark_methods
from stylegan_inv.benchmark.speed import decoding_speed as benchmark_data
from stylegan_inv.benchmark.speed import embedded_speed as benchmark_world
from stylegan_inv.benchmark.speed import loader_speed as benchmark_loader
from stylegan_inv.benchmark.speed import ops_speed as benchmark_ops
from stylegan_inv.benchmark.speed import synthesis_speed as benchmark_generator
from stylegan_inv.config import CONF_DIR, instantiate
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.allocator import tune_allocator
from stylegan_inv.utils import timing

PARTS = {"generator": benchmark_generator, "ops": benchmark_ops, "data": benchmark_data, "loader": benchmark_loader}
METHODS, WORLD = "methods", "world"


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=torch.get_num_threads())
    common.add_argument("--json", type=Path, help="write the figures to this file")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parts = parser.add_subparsers(dest="part", metavar=f"{{{','.join([METHODS, WORLD, *PARTS])}}}")
    methods = parts.add_parser(METHODS, help=(benchmark_methods.__doc__ or "").split(": ")[1])
    methods.add_argument("--threads", type=int, default=torch.get_num_threads())
    benchmark_methods.arguments(methods)
    world = parts.add_parser(WORLD, parents=[common], help=(benchmark_world.__doc__ or "").split(": ")[1])
    world.add_argument("--seconds", type=float, default=2.0, help="time spent on each row")
    for name, module in PARTS.items():
        part = parts.add_parser(name, parents=[common], help=(module.__doc__ or "").split(": ")[1])
        module.arguments(part)
        part.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
        part.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        part.add_argument("--repeats", type=int, default=part.get_default("repeats") or 5)
        part.add_argument("--allocator", action="store_true", help="keep freed memory in the process, for all sides")
    given = list(sys.argv[1:] if arguments is None else arguments)
    if not given or given[0] not in ("-h", "--help", METHODS, WORLD, *PARTS):
        given = [METHODS, *given]
    parsed = parser.parse_args(given)
    if min(parsed.threads, *(getattr(parsed, name, 1) for name in ("seconds", "repeats", "batch"))) <= 0:
        parser.error("--threads, --seconds, --repeats and --batch must be positive")
    if getattr(parsed, "device", "cpu") == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and, with ``--json``, write it."""
    parsed = options(arguments)
    if parsed.part in (METHODS, WORLD) or parsed.allocator:
        tune_allocator()
    torch.set_num_threads(parsed.threads)
    try:
        if parsed.part == METHODS:
            print(f"results:    {benchmark_methods.run(parsed, build_method)}")
            return
        if parsed.part == WORLD:
            rows = benchmark_world.run(parsed)
            result: Any = rows
            title = f"batch {benchmark_world.BATCH}, {parsed.threads} threads, torch {torch.__version__}"
            table = _world_table(rows, title)
        else:
            limits = timing.roofline(getattr(torch, parsed.dtype), parsed.device)
            rows = PARTS[parsed.part].run(parsed, limits)
            settings = {k: [str(v) for v in x] if isinstance(x, list) else x for k, x in vars(parsed).items()}
            machine = {**timing.machine(parsed.device), **vars(limits)}
            result = {"machine": machine, "options": {**settings, "json": str(parsed.json)}, "rows": rows}
            title = (
                f"{parsed.resolution} px, batch {parsed.batch}, {parsed.dtype}, {machine['processor']}, "
                f"{parsed.threads} threads, torch {torch.__version__}\n"
                f"copy {limits.bytes_per_second / 1e9:.1f} GB/s, product {limits.flops / 1e9:.0f} GFLOP/s"
            )
            table = _table(rows, title)
    except UserError as error:
        raise SystemExit(f"stylegan_inv.benchmark: {error}") from None
    console = Console()
    (console if console.is_terminal else Console(width=120)).print(table)
    if parsed.json:
        parsed.json.write_text(json.dumps(result, indent=2) + "\n")


def build_method(name: str, overrides: Sequence[str]) -> Any:
    """A method of ``conf/method`` that optimises each image, for the embedded generator."""
    with initialize_config_dir(version_base="1.3", config_dir=str(CONF_DIR)):
        cfg = compose("invert", overrides=["input=none", f"method={name}", *overrides])
    return instantiate(cfg.method)


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    columns = ["what", "pass", "ms", "spread", "CPU ms", "x reference", "of roofline", "peak MB"]
    columns += ["x frozen"] * ("times_frozen" in rows[0])
    columns += ["difference"] * ("difference" in rows[0])
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("what", "pass") else "right", no_wrap=True)
    for row in rows:
        cells = [row["what"], row["pass"]]
        cells += [f"{row[key] * 1e3:.2f}" for key in ("seconds", "spread", "cpu_seconds")]
        cells += [f"{row['times_reference']:.2f}", f"{row['of_roofline']:.0%}"]
        cells.append("-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}")
        if "times_frozen" in row:
            cells.append("-" if row["times_frozen"] is None else f"{row['times_frozen']:.2f}")
        cells += [f"{row['difference']:.0e}"] if "difference" in row else []
        table.add_row(*cells)
    return table


def _world_table(rows: list[dict[str, Any]], title: str) -> Table:
    table = Table(title=title, title_justify="left")
    for column in ("what", "ms/image", "spread", "images/s", "x reference"):
        table.add_column(column, justify="left" if column == "what" else "right")
    for row in rows:
        table.add_row(
            str(row["name"]),
            f"{row['ms_per_image']:.2f}",
            f"±{row['iqr_ms']:.2f}",
            f"{row['images_per_second']:.0f}",
            f"{row['ratio_to_reference']:.1f}",
        )
    return table


if __name__ == "__main__":
    main()
