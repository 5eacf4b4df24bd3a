"""Truncation and style scaling: codes drawn to the mean, or away from it (Karras et al. 2019, appendix B)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.latents.layer_ranges import layer_range


def truncate(w: Tensor, w_avg: Tensor, psi: float | Tensor, layers: str | Sequence[int] | None = None) -> Tensor:
    """``w_avg + psi * (w - w_avg)`` on chosen layers; the others stay.

    ``psi`` below 1 makes pictures more typical, 0 gives the average face, above 1 exaggerates, below 0 gives opposites.

    Args:
        w: (B, L, D).
        w_avg: (D,) or (L, D).
        psi: one number, or (L,) a factor for each layer (style scaling).
        layers: see `layer_range`; None: all.

    Raises:
        UserError: shapes that do not fit, a psi that is not finite, or a layer that does not exist.
    """
    if w.ndim != 3 or w_avg.shape[-1] != w.shape[-1]:
        raise UserError(f"truncation: got codes {tuple(w.shape)} and an average {tuple(w_avg.shape)}")
    factor = torch.as_tensor(psi, dtype=w.dtype, device=w.device)
    if factor.shape not in ((), (w.shape[1],)) or not bool(torch.isfinite(factor).all()):
        raise UserError(f"truncation: got psi {psi}, expected a finite number, or {w.shape[1]} of them")
    rows = torch.ones(w.shape[1], dtype=w.dtype, device=w.device)
    chosen = layer_range(layers, w.shape[1])
    rows[chosen] = factor.expand(w.shape[1])[chosen]
    return torch.lerp(w_avg.expand_as(w), w, rows[:, None])
