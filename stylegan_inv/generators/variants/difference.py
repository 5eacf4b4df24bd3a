"""What a tuned generator differs by from the shared one, in a fraction of its size."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.generator import Generator

Difference = dict[str, Tensor]
_LEFT, _RIGHT = ".left", ".right"


@torch.no_grad()
def compress(base: nn.Module, changed: nn.Module, rank: int) -> Difference:
    """The change of every parameter: matrices and convolutions by their ``rank`` largest singular values, in float16.

    Args:
        base: a synthesis network.
        changed: the same, tuned.
        rank: of each factorisation; where it would be no smaller than the change itself, the change is kept.

    Returns:
        ``<name>.left`` (O, rank) and ``<name>.right`` (rank, I) for a weight (O, I, ...), or ``<name>`` as it is.
    """
    difference: Difference = {}
    before = dict(base.named_parameters())
    for name, after in changed.named_parameters():
        change = (after - before[name]).detach()
        matrix = change.flatten(1) if change.ndim > 1 else change.reshape(1, -1)
        if rank * sum(matrix.shape) >= matrix.numel():
            difference[name] = change.half()
            continue
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        root = s[:rank].sqrt()  # shared between both, so that neither leaves the range of float16
        difference[name + _LEFT], difference[name + _RIGHT] = (
            (u[:, :rank] * root).half(),
            (root[:, None] * v[:rank]).half(),
        )
    return difference


@torch.no_grad()
def tuned(generator: Generator, difference: Mapping[str, Tensor]) -> Generator:
    """A frozen copy of a generator with a difference applied.

    Raises:
        UserError: the difference belongs to another network.
    """
    other: Any = copy.deepcopy(generator)
    own = dict(other.synthesis.named_parameters())
    names = {name.removesuffix(_LEFT).removesuffix(_RIGHT) for name in difference}
    if names != own.keys():
        wrong = sorted(names ^ own.keys())[0]
        raise UserError(f"a difference of another generator: {wrong} is on one side alone")
    for name, weight in own.items():
        if name in difference:
            change = difference[name].to(weight)
        else:
            change = difference[name + _LEFT].to(weight) @ difference[name + _RIGHT].to(weight)
        if change.numel() != weight.numel():
            raise UserError(
                f"a difference of another generator: {name} is {tuple(change.shape)}, not {tuple(weight.shape)}"
            )
        weight += change.view_as(weight)
    return other.freeze()
