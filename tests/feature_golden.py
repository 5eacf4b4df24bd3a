"""Reference numbers of the feature-space methods: weights and inputs by ``fill_features.py`` of the golden folder."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.generators import Generator, from_rosinality
from stylegan_inv.generators.io.network_geometry import infer_generator_config
from tests.golden import fill, filler, golden_dir


def feature_state(keys: str) -> dict[str, Tensor]:
    """Filled state dict in the reference's own key names."""
    state: dict[str, Tensor] = filler("fill_features").reference_state(golden_dir() / "keys" / f"{keys}.json")
    return state


def rnd(name: str, shape: tuple[int, ...], mean: float = 0.0, std: float = 1.0) -> Tensor:
    """An input that is rebuilt by its name, in double precision."""
    value: Tensor = filler("fill_features").rnd(name, shape, 0, mean, std)
    return value.double()


def latent_avg() -> Tensor:
    """The latent average of the goldens, (512,)."""
    value: Tensor = fill().tensor("latent_avg", (512,))
    return value.double()


def images(first: int, last: int, every: int = 1) -> Tensor:
    """Some of the four images of 256 px, or every n-th pixel of them, in [-1, 1]."""
    with np.load(golden_dir() / "images.npz") as file:
        found: Tensor = fill().image(file["img256"][first:last])
    return found[..., ::every, ::every].double()


def golden_generator(keys: str) -> Generator:
    """A generator with the reference's weights and the latent average of the goldens, frozen, in double precision."""
    weights = fill().reference_state(golden_dir() / "keys" / f"{keys}.json")
    state = from_rosinality({**weights, "latent_avg": torch.zeros(512)})
    generator = Generator(**infer_generator_config(state))
    generator.load_state_dict(state)
    generator.mapping.w_avg.copy_(latent_avg())
    generator.source_hash = keys
    return generator.double().freeze()


def official(network: Any, keys: str) -> Any:
    """A network that was built on the meta device with the reference's weights, in double precision, evaluating."""
    network.load_state_dict(feature_state(keys), strict=True, assign=True)
    return network.double().eval()


def channel_norms(maps: Tensor) -> Tensor:
    """L2 norm of each channel over images and positions."""
    norms: Tensor = maps.detach().transpose(0, 1).flatten(1).norm(dim=1)
    return norms
