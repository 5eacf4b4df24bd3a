"""``python -m stylegan_inv.benchmark world``: speed of generator, renderer and encoder on SynthFaces."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from typing import Any

import torch

from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.losses.features import EmbeddedFeatures
from stylegan_inv.methods.common.per_image import InputImages
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.optim.optimization_state import Monitor, OptimizationState
from stylegan_inv.optim.per_image_optimization import optimize

BATCH = 8
_STEPS = 10


def cases() -> dict[str, Callable[[], object]]:
    """Returns name -> call; each call processes ``BATCH`` images."""
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

    step, networks = _optimization(generator)
    return {
        "reference: 3x3 convolution, 64 channels": lambda: torch.nn.functional.conv2d(x, kernel, padding=1),
        "SynthFaces: render": lambda: faces.__getitems__(list(range(BATCH))),
        "generator: forward": synthesis,
        "generator: forward + backward to W+": lambda: torch.autograd.grad(generator.synthesis(w).square().sum(), w),
        "encoder: forward": encode,
        f"image2stylegan: {_STEPS} steps of the networks alone": networks,
        f"image2stylegan: {_STEPS} steps of the method": step,
    }


def _optimization(generator: Generator) -> tuple[Callable[[], object], Callable[[], object]]:
    """Returns steps of per-image optimisation, and the same steps of the networks alone.

    The difference is the overhead of the optimisation loop, which should be at most 5 %.
    """
    features = EmbeddedFeatures()
    method = Image2StyleGAN(generator=generator, features=features, steps=_STEPS, lr=0.05)
    size = generator.resolution
    faces = torch.stack([item["image"] for item in SynthFaces(size, seed=2).__getitems__(list(range(BATCH)))])
    w = method.average_codes(BATCH).clone().requires_grad_()
    initial_image = method.reconstruct(method.initial_variables(faces))
    stage = method.stage(0, InputImages(faces), initial_image)
    targets = stage.targets

    def networks() -> None:
        for _ in range(_STEPS):
            image = generator.synthesis(w, noise="const")
            loss = features.distance(features.maps(image), targets.features).sum()
            torch.autograd.grad(loss + (image - faces).square().mean((1, 2, 3)).sum(), w)

    def steps() -> None:
        state = OptimizationState(method.initial_variables(faces))
        state.begin_stage(stage.variables, stage.steps)
        optimize(stage, state, Monitor())

    return steps, networks


def run(options: argparse.Namespace) -> list[dict[str, Any]]:
    """Measures every case for about ``options.seconds``: milliseconds per image, median and interquartile range."""
    rows: list[dict[str, Any]] = []
    from torch.utils.benchmark import Timer  # where nvcc is installed without a GPU, the import logs a warning

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
