"""What a synthesis network is given besides its weights: codes and noise maps, checked."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError


def check_codes(w: Tensor, num_ws: int, w_dim: int) -> None:
    """Raise a `UserError` unless ``w`` is ``(B, num_ws, w_dim)``."""
    if w.ndim != 3 or w.shape[1:] != (num_ws, w_dim):
        raise UserError(
            f"codes must have shape (B, {num_ws}, {w_dim}), got {tuple(w.shape)}; "
            f"one w per image becomes that by w[:, None].expand(-1, {num_ws}, -1)"
        )


def noise_inputs(layers: Sequence[Any], noise: str | Sequence[Tensor], batch: int, like: Tensor) -> list[Tensor | None]:
    """One noise map for each layer, ``(1 or B, 1, r, r)``, or None for none.

    Args:
        layers: modules with ``resolution`` and ``noise_const`` (r, r).
        noise: "const", "random", "none", or a list of maps, one for each layer.
        batch: number of images.
        like: random maps get its dtype and device.

    Raises:
        UserError: another word, another number of maps, or maps of another shape.
    """
    if isinstance(noise, str):
        if noise == "const":
            return [layer.noise_const[None, None] for layer in layers]
        if noise == "none":
            return [None] * len(layers)
        if noise == "random":
            return [
                torch.randn(batch, 1, layer.resolution, layer.resolution, dtype=like.dtype, device=like.device)
                for layer in layers
            ]
        raise UserError(f'noise must be "const", "random", "none" or a list of maps, got {noise!r}')
    maps = list(noise)
    if len(maps) != len(layers):
        raise UserError(f"expected {len(layers)} noise maps, one per layer, got {len(maps)}")
    for layer, given in zip(layers, maps, strict=True):
        r = layer.resolution
        if given.ndim != 4 or given.shape[0] not in (1, batch) or given.shape[1:] != (1, r, r):
            raise UserError(f"expected a noise map of shape (1 or {batch}, 1, {r}, {r}), got {tuple(given.shape)}")
    return list(maps)
