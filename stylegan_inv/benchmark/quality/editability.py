"""Edits of inversions: the change of the target attribute, the change of the other attributes, and the identity.

Each direction is applied to the codes, and the image is synthesised with the noise maps and weights of the inversion.
The evaluation network, which neither the methods nor the directions have used, then estimates all attributes. This is
possible because the factors of SynthFaces are known.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.edit.joined_inversions import from_inversions
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import embedded_directions, load_direction
from stylegan_inv.latents.discovery.effect import EffectMeter
from stylegan_inv.latents.discovery.scores import predict_attributes
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.metrics.frechet import FrechetDistance

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
#: Measures of each face: change of the target attribute and mean absolute change of the other attributes, both in
#: standard deviations, and the cosine similarity of the identity before and after the edit.
TARGET, OTHERS, IDENTITY = MEASURES = ("target", "others", "identity")
#: Stands for the mean over all attributes.
ALL_ATTRIBUTES = "all"
_EVALUATION_NETWORK = "face_eval"

#: Attribute, or ``all`` for the mean over the attributes -> measure -> values (strengths, N).
Edits = dict[str, dict[str, np.ndarray]]


class EditedFaces:
    """Held-out faces whose inversions are edited by every embedded direction.

    A face is moved to the other end of the range of the attribute: old faces become younger, glasses are removed. Range
    and standard deviation are those of the attribute over the originals.

    Args:
        generator: Generator of the codes.
        inversions: Inversions of the faces in their order.
        count: Number of faces N to edit, from the first.
        originals: Faces (at least N, 3, H, W), in the order of the inversions.
        method: Method that inverted the faces; needed if it edits with networks of its own.
    """

    def __init__(
        self,
        generator: Generator,
        inversions: Sequence[Inversion],
        count: int,
        originals: Tensor,
        method: InversionMethod | None = None,
    ) -> None:
        self.generator, self.count = generator, count
        self._network = load_face_network(_EVALUATION_NETWORK)
        self._before = predict_attributes(self._network, originals)
        names = [str(n) for n in range(sum(len(one.w) for one in inversions))]
        self._inputs = from_inversions(generator, inversions, names, method=method)

    def sign(self, attribute: str) -> Tensor:
        """Returns the direction of the edit of each face, 1 or -1, (N,)."""
        before = self._before[attribute]
        middle = (before.min() + before.max()) / 2
        return torch.where(before[: self.count] > middle, -1.0, 1.0)

    def images(self, attribute: str, strength: float) -> Tensor:
        """Returns the edited faces (N, 3, R, R)."""
        direction = load_direction(attribute, self.generator)
        codes = direction.apply(self._inputs.w[: self.count], strength * self.sign(attribute))
        return self._inputs.render(codes)

    def measure(self) -> Edits:
        """Applies every embedded direction at every strength.

        Changes towards the other end of the range are positive.

        Returns:
            Values for each attribute and measure, and for ``all`` the mean over the attributes.
        """
        scale = {_EVALUATION_NETWORK: {name: values.std() for name, values in self._before.items()}}
        networks = {_EVALUATION_NETWORK: self._network}
        meter = EffectMeter(self.generator, networks, self._inputs.w[: self.count], self._inputs.render, scale)
        edits: Edits = {}
        for attribute in embedded_directions():
            direction, sign = load_direction(attribute, self.generator), self.sign(attribute)
            changes = [meter.changes(direction, strength, sign)[_EVALUATION_NETWORK] for strength in STRENGTHS]
            edits[attribute] = {
                TARGET: torch.stack([change.attributes[attribute] for change in changes]).numpy(),
                OTHERS: torch.stack([change.others(attribute) for change in changes]).numpy(),
                IDENTITY: torch.stack([change.identity for change in changes]).numpy(),
            }
        means = {measure: np.mean([edit[measure] for edit in edits.values()], axis=0) for measure in MEASURES}
        return {**edits, ALL_ATTRIBUTES: means}

    def frechet(self, faces: Tensor, strength: float) -> float:
        """Returns the Frechet distance of all edited faces to faces (M, 3, H, W) (LSAP's FID of edits)."""
        distance = FrechetDistance(_EVALUATION_NETWORK)
        for part in faces.split(50):
            distance.update(part, real=True)
        for attribute in embedded_directions():
            for part in self.images(attribute, strength).split(50):
                distance.update(part.clamp(-1, 1), real=False)
        return float(distance.compute())
