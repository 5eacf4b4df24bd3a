"""Time the embedded world, the generator against other implementations, its operations, or the reading of images.

    python -m stylegan_inv.benchmark                    # the parts of the embedded world
    python -m stylegan_inv.benchmark generator --resolution 1024 --threads 2 --against path/to/stylegan2-ada-pytorch
    python -m stylegan_inv.benchmark ops --json ops.json
    python -m stylegan_inv.benchmark data --file-resolution 1024 --resolution 256

A machine shared with others is never twice as fast as before, so every row also gives its ratio to one reference that
is timed in the same run: for the embedded world a plain 3x3 convolution of 64 channels at 64 px in torch, batch 8.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console
from rich.table import Table

from stylegan_inv.errors import UserError
from stylegan_inv.runtime import benchmark_data, benchmark_generator, benchmark_ops, benchmark_world, timing
from stylegan_inv.runtime.allocator import tune_allocator

PARTS = {"generator": benchmark_generator, "ops": benchmark_ops, "data": benchmark_data}


def options(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    """Read the command line."""
    common = argparse.ArgumentParser(add_help=False)
    common.add_argument("--threads", type=int, default=torch.get_num_threads())
    common.add_argument("--json", type=Path, help="write the figures to this file")
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0], parents=[common])
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each row")
    parts = parser.add_subparsers(dest="part", metavar="{generator,ops,data}")
    for name, module in PARTS.items():
        part = parts.add_parser(name, parents=[common], help=(module.__doc__ or "").split(": ")[1])
        module.arguments(part)
        part.add_argument("--dtype", choices=("float32", "bfloat16"), default="float32")
        part.add_argument("--device", choices=("cpu", "cuda"), default="cpu")
        part.add_argument("--repeats", type=int, default=5)
        part.add_argument("--allocator", action="store_true", help="keep freed memory in the process, for all sides")
    parsed = parser.parse_args(arguments)
    if parsed.threads < 1 or parsed.seconds <= 0 or (parsed.part and min(parsed.repeats, parsed.batch) < 1):
        parser.error("--threads, --seconds, --repeats and --batch must be positive")
    if parsed.part and parsed.device == "cuda" and not torch.cuda.is_available():
        parser.error("PyTorch sees no GPU here")
    return parsed


def main(arguments: Sequence[str] | None = None) -> None:
    """Print the table and, with ``--json``, write it."""
    parsed = options(arguments)
    if parsed.part is None or parsed.allocator:
        tune_allocator()
    torch.set_num_threads(parsed.threads)
    try:
        if parsed.part is None:
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


def _table(rows: list[dict[str, Any]], title: str) -> Table:
    columns = ["what", "pass", "ms", "spread", "CPU ms", "x reference", "of roofline", "peak MB"]
    columns += ["difference"] * ("difference" in rows[0])
    table = Table(title=title, title_justify="left")
    for column in columns:
        table.add_column(column, justify="left" if column in ("what", "pass") else "right", no_wrap=True)
    for row in rows:
        cells = [row["what"], row["pass"]]
        cells += [f"{row[key] * 1e3:.2f}" for key in ("seconds", "spread", "cpu_seconds")]
        cells += [f"{row['times_reference']:.2f}", f"{row['of_roofline']:.0%}"]
        cells.append("-" if row["peak_mb"] is None else f"{row['peak_mb']:.0f}")
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
