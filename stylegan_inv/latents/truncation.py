"""Truncation trick and style scaling (Karras et al. 2019, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.latents.layer_ranges import layer_range


def truncate(w: Tensor, w_avg: Tensor, psi: float | Tensor, layers: str | Sequence[int] | None = None) -> Tensor:
    """Returns ``w_avg + psi * (w - w_avg)`` in some layers; the others are unchanged.

    ``psi`` below 1 makes images more typical, 0 gives the average image, above 1 exaggerates, below 0 inverts.

    Args:
        w: Codes (B, L, D).
        w_avg: Latent average, (D,) or (L, D), or of each image, (B, 1, D).
        psi: A number, or a factor for each layer, (L,) (style scaling).
        layers: See `layer_range`; None for all.

    Raises:
        UserError: The shapes do not match, ``psi`` is not finite, or a layer does not exist.
    """
    if w.ndim != 3 or w_avg.shape[-1] != w.shape[-1]:
        raise UserError(f"truncation: got codes {tuple(w.shape)} and a latent average {tuple(w_avg.shape)}")
    factor = torch.as_tensor(psi, dtype=w.dtype, device=w.device)
    if factor.shape not in ((), (w.shape[1],)) or not bool(torch.isfinite(factor).all()):
        raise UserError(f"truncation: got psi {psi}, expected a finite number, or {w.shape[1]} of them")
    rows = torch.ones(w.shape[1], dtype=w.dtype, device=w.device)
    selected = layer_range(layers, w.shape[1])
    rows[selected] = factor.expand(w.shape[1])[selected]
    return torch.lerp(w_avg.expand_as(w), w, rows[:, None])
