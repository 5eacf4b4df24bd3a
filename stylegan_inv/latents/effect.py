"""What a direction does: how far the wanted attribute moves, how far the others and the identity do."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stylegan_inv.encoders.face_network import FaceNetwork
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


@dataclass(frozen=True)
class Changes:
    """The same of each picture.

    Attributes:
        attributes: attribute -> change (N,), likewise in standard deviations.
        identity: cosines (N,).
    """

    attributes: dict[str, Tensor]
    identity: Tensor

    def others(self, attribute: str) -> Tensor:
        """Mean size (N,) of the changes of all other attributes."""
        return torch.stack([change.abs() for name, change in self.attributes.items() if name != attribute]).mean(0)


class EffectMeter:
    """Measures directions on the same pictures.

    Args:
        generator: frozen.
        networks: name -> network that gives read-outs and identity embeddings. For a fair result one that neither the
            directions nor the inversions were made with.
        w: (N, D) or (N, L, D) codes of the pictures.
        render: makes the pictures (N, 3, R, R) of codes (N, L, D); None: the generator with its own noise.
        scale: network -> attribute -> what counts as one standard deviation; None: that of the read-outs over the
            pictures. Given, the changes of different sets of pictures compare.
    """

    def __init__(
        self,
        generator: Generator,
        networks: Mapping[str, FaceNetwork],
        w: Tensor,
        render: Callable[[Tensor], Tensor] | None = None,
        scale: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.networks, self._render = dict(networks), render or partial(pictures, generator)
        self.ws = w if w.ndim == 3 else w[:, None].expand(-1, generator.num_ws, -1)
        images = self._render(self.ws)
        self.before = {name: read_out_scores(network, images) for name, network in self.networks.items()}
        self._scale = scale or {
            name: {attribute: values.std() for attribute, values in before.items()}
            for name, before in self.before.items()
        }
        self._embeddings = {name: _embed(network, images) for name, network in self.networks.items()}

    def measure(self, direction: Direction, strength: float, sign: Tensor | None = None) -> dict[str, Effect]:
        """Edit all pictures and read them again; one effect a network.

        Args:
            direction: which.
            strength: how much.
            sign: (N,) of 1 and -1, for attributes that are there or not: take glasses off where there are some. Changes
                count in this sense.
        """
        return {
            name: Effect(
                {attribute: float(value.mean()) for attribute, value in changes.attributes.items()},
                {attribute: float(value.abs().mean()) for attribute, value in changes.attributes.items()},
                float(changes.identity.mean()),
                strength,
            )
            for name, changes in self.changes(direction, strength, sign).items()
        }

    def changes(self, direction: Direction, strength: float, sign: Tensor | None = None) -> dict[str, Changes]:
        """The same for each picture, see `measure`."""
        sign = torch.ones(len(self.ws)) if sign is None else sign
        images = self._render(direction.apply(self.ws, strength * sign))
        found = {}
        for name, network in self.networks.items():
            after = read_out_scores(network, images)
            moved = {
                attribute: (after[attribute] - before) * sign / self._scale[name][attribute].clamp_min(1e-6)
                for attribute, before in self.before[name].items()
            }
            found[name] = Changes(moved, (_embed(network, images) * self._embeddings[name]).sum(1))
        return found


@torch.no_grad()
def _embed(network: FaceNetwork, images: Tensor) -> Tensor:
    return torch.cat([network.embed(part) for part in images.split(50)])
