"""Nearest neighbours among latent codes."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


def nearest_codes(query: Tensor, codes: Tensor, count: int = 5) -> tuple[Tensor, Tensor]:
    """Returns the nearest codes of each query.

    Args:
        query: (Q, L, D) or (Q, D).
        codes: (N, L, D) or (N, D).
        count: Number of neighbours, at most N.

    Returns:
        Distances and indices, (Q, count) each, nearest first. A distance is the root mean square over the entries of a
        code, so that generators with different numbers of layers can be compared.

    Raises:
        UserError: The shapes do not match, or there are fewer codes than ``count``.
    """
    if query.shape[1:] != codes.shape[1:] or query.ndim < 2:
        raise UserError(
            f"neighbours of codes {tuple(query.shape)} among {tuple(codes.shape)}: expected codes of one shape"
        )
    whole_number("neighbours: count", count, 1, len(codes), "there are no more codes")
    # The expanded square loses precision for codes that are nearly equal.
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(query.flatten(1), codes.flatten(1), compute_mode=exact) / query[0].numel() ** 0.5
    found = distances.topk(count, largest=False)
    return found.values, found.indices
