"""What a direction does: how far the wanted attribute moves, how far the others and the identity do."""

from __future__ import annotations

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
    """Measures directions on the same pictures with one network.

    Args:
        generator: frozen.
        network: gives read-outs and identity embeddings; for a fair result one that nothing here was made with.
        w: (N, D) or (N, L, D) codes of the pictures.
    """

    def __init__(self, generator: Generator, network: FaceNetwork, w: Tensor) -> None:
        self.generator, self.network, self.w = generator, network, w
        images = pictures(generator, w)
        self.before = read_out_scores(network, images)
        self.embedding = self._embed(images)

    def measure(self, direction: Direction, strength: float | Tensor, sign: Tensor | None = None) -> Effect:
        """Edit all pictures and read them again.

        Args:
            direction: which.
            strength: how much.
            sign: (N,) of 1 and -1, for attributes that are there or not: take glasses off where there are some. Changes
                count in this sense.
        """
        sign = torch.ones(len(self.w)) if sign is None else sign
        ws = self.w if self.w.ndim == 3 else self.w[:, None].expand(-1, self.generator.num_ws, -1)
        images = pictures(self.generator, direction.apply(ws, strength * sign))
        after = read_out_scores(self.network, images)
        change = {name: (after[name] - old) * sign / old.std().clamp_min(1e-6) for name, old in self.before.items()}
        return Effect(
            {name: float(value.mean()) for name, value in change.items()},
            {name: float(value.abs().mean()) for name, value in change.items()},
            float((self._embed(images) * self.embedding).sum(1).mean()),
            float(strength),
        )

    @torch.no_grad()
    def _embed(self, images: Tensor) -> Tensor:
        return torch.cat([self.network.embed(part) for part in images.split(50)])
