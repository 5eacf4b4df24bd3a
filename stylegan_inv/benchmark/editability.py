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

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
#: Measures of each face: change of the target attribute and mean absolute change of the other attributes, both in
#: standard deviations, and the cosine similarity of the identity before and after the edit.
TARGET, OTHERS, IDENTITY = MEASURES = ("target", "others", "identity")
#: Stands for the mean over all attributes.
ALL_ATTRIBUTES = "all"
_EVALUATION_NETWORK = "face_eval"

#: Attribute, or ``all`` for the mean over the attributes -> measure -> values (strengths, N).
Edits = dict[str, dict[str, np.ndarray]]


def measure_edits(
    generator: Generator,
    inversions: Sequence[Inversion],
    count: int,
    originals: Tensor,
    method: InversionMethod | None = None,
) -> Edits:
    """Applies every embedded direction at every strength.

    A face is moved to the other end of the range of the attribute: old faces become younger, glasses are removed.
    Changes in this direction are positive. Range and standard deviation are those of the attribute over the originals.

    Args:
        generator: Generator of the codes.
        inversions: Inversions of the faces in their order.
        count: Number of faces N to edit, from the first.
        originals: Faces (at least N, 3, H, W), in the order of the inversions.
        method: Method that inverted the faces; needed if it edits with networks of its own.

    Returns:
        Values for each attribute and measure, and for ``all`` the mean over the attributes.
    """
    network = load_face_network(_EVALUATION_NETWORK)
    before = predict_attributes(network, originals)
    names = [str(n) for n in range(sum(len(one.w) for one in inversions))]
    inputs = from_inversions(generator, inversions, names, method=method)
    scale = {_EVALUATION_NETWORK: {name: values.std() for name, values in before.items()}}
    meter = EffectMeter(generator, {_EVALUATION_NETWORK: network}, inputs.w[:count], inputs.render, scale)
    edits: Edits = {}
    for attribute in embedded_directions():
        middle = (before[attribute].min() + before[attribute].max()) / 2
        sign = torch.where(before[attribute][:count] > middle, -1.0, 1.0)
        direction = load_direction(attribute, generator)
        changes = [meter.changes(direction, strength, sign)[_EVALUATION_NETWORK] for strength in STRENGTHS]
        edits[attribute] = {
            TARGET: torch.stack([change.attributes[attribute] for change in changes]).numpy(),
            OTHERS: torch.stack([change.others(attribute) for change in changes]).numpy(),
            IDENTITY: torch.stack([change.identity for change in changes]).numpy(),
        }
    means = {measure: np.mean([edit[measure] for edit in edits.values()], axis=0) for measure in MEASURES}
    return {**edits, ALL_ATTRIBUTES: means}
