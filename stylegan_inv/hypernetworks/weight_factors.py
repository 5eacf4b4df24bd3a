"""Predicted changes of weights as factors, and their sum over the iterations of a refinement.

The factors are those of `generators.variants.low_rank_difference`. Sums are taken of what an image determines; the
right factors are weights of the hypernetwork itself.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor

from stylegan_inv.generators.variants.low_rank_difference import LEFT, RIGHT

Factors = dict[str, Tensor]


def with_constant(left: Tensor) -> Tensor:
    """Appends a column of ones to left factors ``(B, m, rank)``, whose right factor ends with a row of biases."""
    return torch.cat([left, left.new_ones(*left.shape[:2], 1)], dim=2)


def with_bias(right: Tensor, bias: Tensor, batch: int) -> Tensor:
    """Returns the right factor ``(rank, n)`` with a last row of biases ``(n,)``, for each image, a view."""
    return torch.cat([right, bias[None]]).expand(batch, -1, -1)


def accumulated(previous: Mapping[str, Tensor] | None, predicted: Mapping[str, Tensor]) -> Factors:
    """Returns the sum of the predictions so far, ``D_t = D_{t-1} + H(x, y_{t-1})``, without a history.

    Args:
        previous: The sum before; None for 0.
        predicted: Factors of the last prediction.
    """
    if previous is None:
        return {key: value.detach() for key, value in predicted.items()}
    return {
        key: value.detach() if key.endswith(RIGHT) else previous[key] + value.detach()
        for key, value in predicted.items()
    }


def with_gradient(previous: Mapping[str, Tensor] | None, predicted: Mapping[str, Tensor]) -> Factors:
    """Returns the same sum with the gradient of the last prediction alone.

    The right factor gets its gradient from the last prediction too: ``sg(L_{t-1} R) + L_t R`` is the product of
    ``[sg(L_{t-1}), L_t]`` and ``[sg(R); R]``.

    Args:
        previous: The sum before, without a history; None for 0.
        predicted: Factors of the last prediction.
    """
    if previous is None:
        return dict(predicted)
    found: Factors = {}
    for key, value in predicted.items():
        if key.endswith(RIGHT):
            found[key] = torch.cat([value.detach(), value], dim=1)
        elif key.endswith(LEFT):
            found[key] = torch.cat([previous[key], value], dim=2)
        else:
            found[key] = previous[key] + value
    return found
