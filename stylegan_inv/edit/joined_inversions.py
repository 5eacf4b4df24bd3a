"""Inversions of several batches as the inputs of an edit."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor

from stylegan_inv.generators import Generator
from stylegan_inv.generators.feature_maps import join_changes
from stylegan_inv.latents.edits.base import EditInputs
from stylegan_inv.methods.common.base import Inversion, InversionMethod


def from_inversions(
    generator: Generator,
    inversions: Sequence[Inversion],
    names: list[str],
    images: Tensor | None = None,
    batch_size: int = 16,
    method: InversionMethod | None = None,
) -> EditInputs:
    """Returns the concatenated inversions of several batches.

    Args:
        generator: Generator of the codes.
        inversions: Inversion of each batch.
        names: Name of each image.
        images: Inverted images (N, 3, S, S), for tables.
        batch_size: Number of images that are rendered at once.
        method: Method that inverted the images; needed if it edits with networks of its own.
    """
    weights: list[Mapping[str, Tensor]] = []
    for one in inversions:
        if one.weights is not None:
            weights += [{name: part[row] for name, part in one.weights.items()} for row in range(len(one.w))]
    features = [one.features for one in inversions if one.features is not None]
    return EditInputs(
        generator,
        torch.cat([one.w.detach() for one in inversions]),
        names,
        images,
        noise=concatenate_noise([one.noise for one in inversions if one.noise is not None], generator),
        features={layer: join_changes([one[layer] for one in features]) for layer in features[0]} if features else None,
        weights=weights or None,
        batch_size=batch_size,
        own_rule=None if method is None or not method.edits_with_networks else own_rule(method, inversions),
    )


def own_rule(
    method: InversionMethod, inversions: Sequence[Inversion]
) -> Callable[[Tensor, Tensor, list[Tensor] | None], Tensor]:
    """Returns what renders edited codes by the networks of a method, see `EditInputs`.

    Args:
        method: A method with ``edits_with_networks``.
        inversions: Its inversions of all images, in the order of the inputs.
    """
    batch_of = torch.tensor([number for number, one in enumerate(inversions) for _ in range(len(one.w))])
    row_in_batch = torch.tensor([row for one in inversions for row in range(len(one.w))])

    def render(w: Tensor, rows: Tensor, noise: list[Tensor] | None) -> Tensor:
        images = torch.empty(len(w), 3, method.generator.resolution, method.generator.resolution)
        for number in batch_of[rows].unique():
            own = batch_of[rows] == number
            part = inversions[int(number)].select(row_in_batch[rows[own]].to(w.device))
            images[own] = method.render_edited(part, w[own.to(w.device)], noise).detach().float().cpu()
        return images

    return render


def concatenate_noise(noise: Sequence[Sequence[Tensor]], generator: Generator) -> list[Tensor] | None:
    """Returns the noise maps of several batches, concatenated layer by layer; None without batches."""
    layers = zip(*noise, strict=True)
    return [torch.cat([maps.detach() for maps in layer]).to(generator.w_avg) for layer in layers] or None
