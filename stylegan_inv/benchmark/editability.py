"""Edits of what an entrant of the benchmark found: how much of the wanted change arrives, how much else changes.

Only a world with known factors can tell. Each direction is applied to the codes, the picture is made by what the
inversion left (its noise maps, its tuned generator), and the evaluation network, which neither the methods nor the
directions have met, reads all attributes again.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import torch
from torch import Tensor

from stylegan_inv.edit.edit_sources import from_inversions
from stylegan_inv.encoders.face_network import load_face_network
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import embedded_directions, load_direction
from stylegan_inv.latents.discovery.effect import EffectMeter
from stylegan_inv.latents.discovery.scores import predict_attributes
from stylegan_inv.methods.common.base import Inversion

STRENGTHS = (0.5, 1.0, 1.5, 2.0, 3.0)
#: What is measured of each face: standard deviations by which the wanted attribute moves, the mean size of the others'
#: movements, and the cosine of the identity before and after.
MEASURES = ("wanted", "others", "identity")
_JUDGE = "face_eval"


def edit_columns(
    generator: Generator, found: Sequence[Inversion], count: int, originals: Tensor
) -> dict[str, np.ndarray]:
    """Apply every embedded direction at every strength.

    Each face is moved to the other end of the attribute's range, where there is room: the old become young, glasses
    are taken off. Changes count in that sense. Range and standard deviation are those of the attribute over the
    originals, the same for everyone.

    Args:
        generator: Of the codes.
        found: Inversions of faces in their order.
        count: The first so many, N, are edited.
        originals: Faces (at least N, 3, H, W), the first of which were inverted.

    Returns:
        ``edits/<attribute>/<measure>``: (strengths, N), and ``edits/all/<measure>``, its mean over the attributes.
    """
    network = load_face_network(_JUDGE)
    before = predict_attributes(network, originals)
    inputs = from_inversions(generator, found, [str(n) for n in range(sum(len(one.w) for one in found))])
    scale = {_JUDGE: {name: values.std() for name, values in before.items()}}
    meter = EffectMeter(generator, {_JUDGE: network}, inputs.w[:count], inputs.render, scale)
    columns: dict[str, np.ndarray] = {}
    for edit in embedded_directions():
        middle = (before[edit].min() + before[edit].max()) / 2
        sign = torch.where(before[edit][:count] > middle, -1.0, 1.0)
        direction = load_direction(edit, generator)
        changes = [meter.changes(direction, strength, sign)[_JUDGE] for strength in STRENGTHS]
        measured = {
            "wanted": [change.attributes[edit] for change in changes],
            "others": [change.others(edit) for change in changes],
            "identity": [change.identity for change in changes],
        }
        columns |= {f"edits/{edit}/{measure}": torch.stack(rows).numpy() for measure, rows in measured.items()}
    for measure in MEASURES:
        columns[f"edits/all/{measure}"] = np.mean(
            [columns[f"edits/{edit}/{measure}"] for edit in embedded_directions()], axis=0
        )
    return columns


def attributes(columns: Iterable[str]) -> list[str]:
    """The edited attributes among columns, and ``all``, in their order."""
    parts = [key.split("/") for key in columns]
    return [part[1] for part in parts if part[0] == "edits" and part[2:] == [MEASURES[0]]]
