"""Truncation and style scaling: images moved towards the latent average, or away from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.base import EditInputs, ImageTable, distinct_numbers
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.latents.truncation import truncate


class Truncate:
    """A table with a column for each psi.

    Args:
        psi: One truncation factor or several.
        layers: Layers that are scaled, see `layer_range`; None for all.
    """

    name = "truncate"
    ping_pong = True

    def __init__(self, psi: Any = (1, 0.7, 0.5, 0, -0.5), layers: str | Sequence[int] | None = None) -> None:
        self.psi, self.layers = distinct_numbers("edit.psi", psi), layers

    @property
    def has_animation(self) -> bool:
        """Whether there are two factors to interpolate between."""
        return len(self.psi) > 1

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Checks the layers."""
        layer_range(self.layers, generator.num_ws)

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns one table."""
        columns = {} if inputs.images is None else {"input": inputs.images}
        columns.update({f"psi {psi:g}": inputs.render(self.codes(inputs, psi)) for psi in self.psi})
        return [ImageTable(columns, inputs.names)]

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Returns an animation from the largest psi to the smallest."""
        factors = torch.linspace(max(self.psi), min(self.psi), max(count, 2))
        return torch.stack([inputs.render(self.codes(inputs, float(psi))) for psi in factors])

    def codes(self, inputs: EditInputs, psi: float) -> Tensor:
        """Returns the scaled latent codes (N, L, D)."""
        return truncate(inputs.w, inputs.w_avg, psi, self.layers)
