"""Nearest neighbours among codes."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError


def nearest_codes(query: Tensor, codes: Tensor, count: int = 5) -> tuple[Tensor, Tensor]:
    """The codes that lie nearest to each query.

    Args:
        query: (Q, L, D) or (Q, D).
        codes: (N, L, D) or (N, D), likewise.
        count: how many, at most N.

    Returns:
        Distances (Q, count), root mean square over the numbers of a code so that 64-px and 1024-px generators compare,
        nearest first; and their positions (Q, count).

    Raises:
        UserError: shapes that do not fit, or more neighbours than codes.
    """
    if query.shape[1:] != codes.shape[1:] or query.ndim < 2:
        raise UserError(
            f"neighbours of codes {tuple(query.shape)} among {tuple(codes.shape)}: expected codes of one shape"
        )
    if not 1 <= count <= len(codes):
        raise UserError(f"neighbours: got count={count}, expected 1 to {len(codes)}, as many as there are codes")
    # Not by the expanded square, which cancels where codes nearly agree.
    exact = "donot_use_mm_for_euclid_dist"
    distances = torch.cdist(query.flatten(1), codes.flatten(1), compute_mode=exact) / query[0].numel() ** 0.5
    found = distances.topk(count, largest=False)
    return found.values, found.indices
