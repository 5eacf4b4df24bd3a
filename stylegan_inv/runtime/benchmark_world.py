"""``python -m stylegan_inv.benchmark`` alone: the parts of the embedded world."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch
from torch.utils.benchmark import Timer

from stylegan_inv.data.synthfaces import SynthFaces
from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.generators import load_generator

BATCH = 8


def cases() -> dict[str, Callable[[], object]]:
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


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Time every case for about ``options.seconds``; milliseconds for one image, median and interquartile range."""
    rows: list[dict[str, Any]] = []
    reference = None
    for name, call in cases().items():
        timer = Timer("call()", globals={"call": call}, num_threads=options.threads)
        timing = timer.blocked_autorange(min_run_time=options.seconds)
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
