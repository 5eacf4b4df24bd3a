"""Time the parts of the embedded world: ``python -m stylegan_inv.benchmark``.

A machine shared with others is never twice as fast as before, so every row also gives its ratio to one reference that
is timed in the same run: a plain 3x3 convolution of 64 channels at 64 px in torch, batch 8.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import torch
from rich.console import Console
from rich.table import Table
from torch.utils.benchmark import Timer

from stylegan_inv.data.synthfaces import SynthFaces
from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_generator
from stylegan_inv.runtime.allocator import tune_allocator

BATCH = 8


def cases(threads: int) -> dict[str, Callable[[], object]]:
    """What is timed, by name; each call handles ``BATCH`` images."""
    generator = load_generator("synthfaces64")
    encoder = SmallEncoder(num_ws=generator.num_ws, w_dim=generator.w_dim, in_channels=6).eval()
    faces = SynthFaces(resolution=generator.resolution)
    w = generator.mapping(torch.randn(BATCH, generator.z_dim)).requires_grad_()
    pair = torch.randn(BATCH, 6, generator.resolution, generator.resolution)
    x, kernel = torch.randn(BATCH, 64, 64, 64), torch.randn(64, 64, 3, 3)

    def synthesis() -> torch.Tensor:
        with torch.no_grad():
            return generator.synthesis(w)

    def encode() -> torch.Tensor:
        with torch.no_grad():
            return encoder(pair)

    return {
        "reference: 3x3 convolution, 64 channels": lambda: torch.nn.functional.conv2d(x, kernel, padding=1),
        "SynthFaces: render": lambda: faces.__getitems__(list(range(BATCH))),
        "generator: forward": synthesis,
        "generator: forward + backward to W+": lambda: torch.autograd.grad(generator.synthesis(w).square().sum(), w),
        "encoder: forward": encode,
    }


def measure(seconds: float, threads: int) -> list[dict[str, float | str]]:
    """Time every case for about ``seconds``; milliseconds for one image, median and interquartile range."""
    rows: list[dict[str, float | str]] = []
    reference = None
    for name, call in cases(threads).items():
        timing = Timer("call()", globals={"call": call}, num_threads=threads).blocked_autorange(min_run_time=seconds)
        median = timing.median * 1e3 / BATCH
        reference = reference or median
        rows.append(
            {
                "name": name,
                "ms_per_image": median,
                "iqr_ms": timing.iqr * 1e3 / BATCH,
                "images_per_second": 1e3 / median,
                "ratio_to_reference": median / reference,
            }
        )
    return rows


def main() -> None:
    """Print the table and, with ``--json``, write it."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--seconds", type=float, default=2.0, help="time spent on each row")
    parser.add_argument("--threads", type=int, default=torch.get_num_threads())
    parser.add_argument("--json", type=Path, help="write the figures to this file")
    arguments = parser.parse_args()
    if arguments.seconds <= 0 or arguments.threads < 1:
        parser.error("--seconds must be positive and --threads at least 1")
    try:
        tune_allocator()
        rows = measure(arguments.seconds, arguments.threads)
    except UserError as error:
        parser.error(str(error))
    table = Table(title=f"batch {BATCH}, {arguments.threads} threads, torch {torch.__version__}", title_justify="left")
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
    Console().print(table)
    if arguments.json:
        arguments.json.write_text(json.dumps(rows, indent=2) + "\n")


if __name__ == "__main__":
    main()
