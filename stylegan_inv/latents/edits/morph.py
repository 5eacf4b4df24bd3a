"""Morphing: from each picture to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.subjects import Sheet, Subjects, need, whole
from stylegan_inv.latents.interpolation import MODES, path
from stylegan_inv.latents.statistics import map_codes

SPACES = ("w+", "z")


class Morph:
    """A row for each pair of neighbours; the film goes through all pictures and back to the first.

    Args:
        steps: from one picture to the next.
        mode: linear or spherical.
        space: ``w+`` (in which codes of W stay in W), or ``z`` for random samples.
    """

    name = "morph"
    there_and_back = False
    films = True

    def __init__(self, steps: int = 6, mode: str = "linear", space: str = "w+") -> None:
        self.steps, self.mode, self.space = whole(steps, "edit.steps", 1), mode, space
        if mode not in MODES:
            raise UserError(f"edit.mode={mode}: expected {' or '.join(MODES)}")
        if space not in SPACES:
            raise UserError(f"edit.space={space}: expected {' or '.join(SPACES)}")

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """See `Edit`."""
        need(count, 2, self.name)
        if self.space == "z" and not random:
            raise UserError("edit.space=z: inversions have no z, only random samples do; give edit.space=w+")

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """One strip a pair."""
        rows = []
        for row in range(len(subjects) - 1):
            noise_of = [row if 2 * k <= self.steps else row + 1 for k in range(self.steps + 1)]
            rows.append(subjects.render(self._way(subjects, [row, row + 1], self.steps), noise_of))
        shown = torch.stack(rows, dim=1)
        names = [f"{a} - {b}" for a, b in zip(subjects.names[:-1], subjects.names[1:], strict=True)]
        return [Sheet({f"{k / self.steps:.2f}": column for k, column in enumerate(shown)}, names)]

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """Through all pictures and back, without showing the first twice."""
        order = [*range(len(subjects)), 0]
        steps = max(1, round(count / len(subjects)))
        way = self._way(subjects, order, steps)[:-1]
        return subjects.render(way, [order[k // steps] for k in range(len(way))])[:, None]

    def _way(self, subjects: Subjects, order: list[int], steps: int) -> Tensor:
        if self.space == "z":
            assert subjects.z is not None  # see `check`
            w = map_codes(subjects.generator, path(subjects.z[order], steps, self.mode))
            return w[:, None].expand(-1, subjects.generator.num_ws, -1)
        return path(subjects.w[order], steps, self.mode, subjects.generator.w_avg)
