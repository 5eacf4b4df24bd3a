"""What a direction does: how far the wanted attribute moves, how far the others and the identity do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

from stylegan_inv.encoders.face import FaceNetwork
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import Direction
from stylegan_inv.latents.scores import pictures, read_out_scores


@dataclass(frozen=True)
class Effect:
    """Of one direction at one strength, over many pictures.

    Attributes:
        mean: attribute -> mean change of its read-out, in standard deviations of that read-out over the pictures.
        absolute: attribute -> mean size of the change of a picture, likewise.
        identity: mean cosine of identity embeddings before and after.
        strength: the strength.
    """

    mean: dict[str, float]
    absolute: dict[str, float]
    identity: float
    strength: float


class EffectMeter:
    """Measures directions on the same pictures.

    Args:
        generator: frozen.
        networks: name -> network that gives read-outs and identity embeddings. For a fair result one that neither the
            directions nor the inversions were made with.
        w: (N, D) or (N, L, D) codes of the pictures.
    """

    def __init__(self, generator: Generator, networks: Mapping[str, FaceNetwork], w: Tensor) -> None:
        self.generator, self.networks = generator, dict(networks)
        self.ws = w if w.ndim == 3 else w[:, None].expand(-1, generator.num_ws, -1)
        images = pictures(generator, self.ws)
        self.before = {name: read_out_scores(network, images) for name, network in self.networks.items()}
        self._embeddings = {name: _embed(network, images) for name, network in self.networks.items()}

    def measure(self, direction: Direction, strength: float, sign: Tensor | None = None) -> dict[str, Effect]:
        """Edit all pictures and read them again; one effect a network.

        Args:
            direction: which.
            strength: how much.
            sign: (N,) of 1 and -1, for attributes that are there or not: take glasses off where there are some. Changes
                count in this sense.
        """
        sign = torch.ones(len(self.ws)) if sign is None else sign
        images = pictures(self.generator, direction.apply(self.ws, strength * sign))
        effects = {}
        for name, network in self.networks.items():
            after = read_out_scores(network, images)
            change = {
                attribute: (after[attribute] - before) * sign / before.std().clamp_min(1e-6)
                for attribute, before in self.before[name].items()
            }
            effects[name] = Effect(
                {attribute: float(value.mean()) for attribute, value in change.items()},
                {attribute: float(value.abs().mean()) for attribute, value in change.items()},
                float((_embed(network, images) * self._embeddings[name]).sum(1).mean()),
                strength,
            )
        return effects


@torch.no_grad()
def _embed(network: FaceNetwork, images: Tensor) -> Tensor:
    return torch.cat([network.embed(part) for part in images.split(50)])
