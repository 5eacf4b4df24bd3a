"""Effect of a direction: changes of the wanted attribute, of the other attributes and of the identity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial

import torch
from torch import Tensor

from stylegan_inv.encoders.face_network import FaceNetwork
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import Direction
from stylegan_inv.latents.discovery.scores import predict_attributes
from stylegan_inv.latents.discovery.scores import render as render_codes


@dataclass(frozen=True)
class Effect:
    """Effect of a direction at one strength, averaged over images.

    Attributes:
        mean: Attribute -> mean change of its predicted value, in standard deviations of that value over the images.
        absolute: Attribute -> mean absolute change of its predicted value, in the same unit.
        identity: Mean cosine similarity of the identity embeddings before and after the edit.
        strength: Strength of the edit.
    """

    mean: dict[str, float]
    absolute: dict[str, float]
    identity: float
    strength: float


@dataclass(frozen=True)
class Changes:
    """Effect of a direction on each image.

    Attributes:
        attributes: Attribute -> changes (N,) of its predicted value, in standard deviations.
        identity: Cosine similarities (N,) of the identity embeddings before and after the edit.
    """

    attributes: dict[str, Tensor]
    identity: Tensor

    def others(self, attribute: str) -> Tensor:
        """Returns the mean absolute change (N,) of all other attributes."""
        return torch.stack([change.abs() for name, change in self.attributes.items() if name != attribute]).mean(0)


class EffectMeter:
    """Measures the effects of directions on the same images.

    Args:
        generator: The generator, frozen.
        networks: Name -> network that predicts attributes and identity embeddings. For a fair comparison neither the
            directions nor the inversions should depend on these networks.
        w: Codes (N, D) or (N, L, D) of the images.
        render: Maps codes (N, L, D) to images (N, 3, R, R); None uses the generator with its stored noise.
        scale: Network -> attribute -> standard deviation of the predicted values, in which changes are expressed. None
            uses that over these images. With a common scale the changes of different sets of images can be compared.
    """

    def __init__(
        self,
        generator: Generator,
        networks: Mapping[str, FaceNetwork],
        w: Tensor,
        render: Callable[[Tensor], Tensor] | None = None,
        scale: Mapping[str, Mapping[str, Tensor]] | None = None,
    ) -> None:
        self.networks, self._render = dict(networks), render or partial(render_codes, generator)
        self.ws = w if w.ndim == 3 else w[:, None].expand(-1, generator.num_ws, -1)
        images = self._render(self.ws)
        self.before = {name: predict_attributes(network, images) for name, network in self.networks.items()}
        self._scale = scale or {
            name: {attribute: values.std() for attribute, values in before.items()}
            for name, before in self.before.items()
        }
        self._embeddings = {name: _embed(network, images) for name, network in self.networks.items()}

    def measure(self, direction: Direction, strength: float, sign: Tensor | None = None) -> dict[str, Effect]:
        """Edits all images and returns the effect by name of the network.

        Args:
            direction: The direction.
            strength: Strength of the edit.
            sign: Factors 1 or -1 of the strength of each image, (N,), by which the changes are multiplied as well. For
                attributes that are present or absent it allows to remove, for example, glasses that are present.
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
        """Edits all images and returns the changes of each image by name of the network.

        Args:
            direction: See `measure`.
            strength: See `measure`.
            sign: See `measure`.
        """
        sign = torch.ones(len(self.ws)) if sign is None else sign
        images = self._render(direction.apply(self.ws, strength * sign))
        result = {}
        for name, network in self.networks.items():
            after = predict_attributes(network, images)
            changes = {
                attribute: (after[attribute] - before) * sign / self._scale[name][attribute].clamp_min(1e-6)
                for attribute, before in self.before[name].items()
            }
            result[name] = Changes(changes, (_embed(network, images) * self._embeddings[name]).sum(1))
        return result


@torch.no_grad()
def _embed(network: FaceNetwork, images: Tensor) -> Tensor:
    return torch.cat([network.embed(part) for part in images.split(50)])
