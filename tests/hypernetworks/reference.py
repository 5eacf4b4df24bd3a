"""The reference's weights, inputs and ways of sampling large tensors, for the goldens of hypernetworks."""

from __future__ import annotations

import re

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.generators import Generator, from_nvidia, from_rosinality
from stylegan_inv.generators.io.network_geometry import infer_generator_config
from tests.golden import arrays, check, fill, filler, golden_dir, reference_state

#: The layers that the goldens of HyperStyle tune, of the 20 of a 256-px generator.
LAYERS = (0, 12, 13, 17, 18)
_ALIAS = re.compile(r"refinement_blocks\.\d+\.hypernet\.")


def photographs(rows: slice, step: int = 1) -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return fill().image(file["img256"][rows]).double()[..., ::step, ::step]


def state(keys: str) -> dict[str, Tensor]:
    """The filled state dict; not cached, as it may have a gigabyte."""
    return filler("fill_refiners_a").reference_state(golden_dir() / "keys" / f"{keys}.json")


def without_aliases(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    return {key: value for key, value in tensors.items() if not _ALIAS.match(key)}


def rosinality_256(w_avg: Tensor | None = None) -> Generator:
    average = torch.zeros(512) if w_avg is None else w_avg.float()
    return _built(from_rosinality({**reference_state("rosinality_g256_cm2"), "latent_avg": average}))


def nvidia_64() -> Generator:
    return _built(from_nvidia(reference_state("nvidia_g64_m8")))


def _built(tensors: dict[str, Tensor]) -> Generator:
    generator = Generator(**infer_generator_config(tensors))
    generator.load_state_dict(tensors)
    return generator.double().freeze()


def array(name: str, shape: tuple[int, ...], std: float = 1.0) -> Tensor:
    return filler("fill_refiners_a").array(name, shape, 0, std=std).double()


def sub(t: Tensor, n: int) -> Tensor:
    """``*_sub`` of the goldens with about n numbers."""
    return t.detach().reshape(-1)[:: max(1, t.numel() // n) | 1]


def stats(t: Tensor) -> Tensor:
    return filler("fill_refiners_a").stats(t)


def check_offsets(golden: str, name: str, delta: Tensor, n: int, axes: tuple[str, ...] = ("out", "in")) -> None:
    """Compare offsets (B, O, I, k, k) with their statistics, samples and sums."""
    b, out, inputs = delta.shape[:3]
    check(golden, f"{name}_sub", sub(delta, n))
    key = f"{name}_stats"
    if arrays(golden)[key].ndim == 1:
        check(golden, key, stats(delta))
    else:
        check(golden, key, torch.stack([stats(one) for one in delta]))
    flat = delta.reshape(b, out, inputs, -1)
    sums = {"out": flat.sum((2, 3)), "in": flat.sum((1, 3)), "tap": flat.sum((1, 2))}
    for axis in axes:
        want = arrays(golden)[f"{name}_sum_{axis}"]
        check(golden, f"{name}_sum_{axis}", sums[axis].reshape(want.shape))
