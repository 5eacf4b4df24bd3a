"""Truncation and style scaling: pictures drawn to the average face, or away from it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.subjects import Sheet, Subjects, numbers
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.latents.truncation import truncate


class Truncate:
    """A column for each psi.

    Args:
        psi: one or several.
        layers: which are scaled, see `layer_range`; None: all.
    """

    name = "truncate"
    there_and_back = True

    def __init__(self, psi: Any = (1, 0.7, 0.5, 0, -0.5), layers: str | Sequence[int] | None = None) -> None:
        self.psi, self.layers = numbers(psi, "edit.psi"), layers

    @property
    def films(self) -> bool:
        """From one psi to another, so with two of them."""
        return len(self.psi) > 1

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """See `Edit`."""
        layer_range(self.layers, generator.num_ws)

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """One strip."""
        columns = {} if subjects.images is None else {"input": subjects.images}
        columns.update({f"psi {psi:g}": subjects.render(self.codes(subjects, psi)) for psi in self.psi})
        return [Sheet(columns, subjects.names)]

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """From the greatest psi to the least."""
        way = torch.linspace(max(self.psi), min(self.psi), max(count, 2))
        return torch.stack([subjects.render(self.codes(subjects, float(psi))) for psi in way])

    def codes(self, subjects: Subjects, psi: float) -> Tensor:
        """Scaled codes (N, L, D)."""
        return truncate(subjects.w, subjects.generator.w_avg, psi, self.layers)
