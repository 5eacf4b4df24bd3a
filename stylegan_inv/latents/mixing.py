"""Style mixing: codes that combine layers of different images (Karras et al. 2019, section 3.1)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError


def mix_styles(w: Tensor, other: Tensor, layers: Sequence[int], strength: float = 1.0) -> Tensor:
    """Returns codes ``w`` with ``(1 - strength) * w + strength * other`` in some layers, (B, L, D).

    pSp's multi-modal synthesis uses layers 8-17 of random codes (``latent_mask``, ``inject_latent`` and ``alpha`` in
    its ``models/psp.py``).

    Args:
        w: (B, L, D).
        other: (B, L, D) or (1, L, D).
        layers: Indices from 0 to L - 1.
        strength: 1 replaces the layers, 0 changes nothing.

    Raises:
        UserError: The shapes do not match, or a layer does not exist.
    """
    if w.ndim != 3 or other.ndim != 3 or other.shape[1:] != w.shape[1:] or other.shape[0] not in (1, w.shape[0]):
        raise UserError(f"mixing codes of shape {tuple(w.shape)} with {tuple(other.shape)}: expected equal shapes")
    wrong = [layer for layer in layers if not 0 <= layer < w.shape[1]]
    if wrong:
        raise UserError(
            f"layer {wrong[0]} of codes with {w.shape[1]} layers: expected numbers from 0 to {w.shape[1] - 1}"
        )
    chosen = torch.zeros(w.shape[1], dtype=w.dtype, device=w.device)
    chosen[list(layers)] = strength
    return torch.lerp(w, other.expand_as(w), chosen[:, None])


def mixing_matrix(w: Tensor, sources: Tensor, ranges: Sequence[Sequence[int]]) -> Tensor:
    """Returns a code with each range of layers replaced by that of each source.

    Args:
        w: Code (1, L, D) that provides the other layers.
        sources: Codes (S, L, D).
        ranges: Ranges of layers.

    Returns:
        (S, len(ranges), L, D).
    """
    kept = w.expand_as(sources)
    return torch.stack([mix_styles(kept, sources, layers) for layers in ranges], dim=1)
