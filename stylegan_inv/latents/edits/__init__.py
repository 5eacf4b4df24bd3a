"""Edits of latent codes: each is one way to change an inverted image."""

from __future__ import annotations

from typing import TYPE_CHECKING

from stylegan_inv.utils.lazy import lazy_exports

if TYPE_CHECKING:
    from stylegan_inv.latents.edits.mix import Mix as Mix
    from stylegan_inv.latents.edits.morph import Morph as Morph
    from stylegan_inv.latents.edits.neighbours import Neighbours as Neighbours
    from stylegan_inv.latents.edits.noise import Noise as Noise
    from stylegan_inv.latents.edits.shift import Shift as Shift
    from stylegan_inv.latents.edits.truncate import Truncate as Truncate

__getattr__, __dir__, __all__ = lazy_exports(
    __name__,
    {
        "mix": ["Mix"],
        "morph": ["Morph"],
        "neighbours": ["Neighbours"],
        "noise": ["Noise"],
        "shift": ["Shift"],
        "truncate": ["Truncate"],
    },
)
