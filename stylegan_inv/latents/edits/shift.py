"""Attribute edits: codes moved along one direction or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import Direction, load_direction
from stylegan_inv.latents.edits.subjects import Sheet, Subjects, numbers
from stylegan_inv.latents.layer_ranges import layer_range

Layers = str | Sequence[int] | None


class Shift:
    """One direction at several strengths, others added at a fixed one, or a second one against it.

    Args:
        direction: embedded name or file.
        strength: one or several; each is a column.
        layers: of the code; None: those that the direction says.
        also: direction -> strength, added to every picture but the first column, which is unchanged then.
        grid: one direction -> strengths: a table for each picture, with a row for each of these.
        any_generator: see `load_direction`.
    """

    there_and_back = True

    def __init__(
        self,
        direction: str,
        strength: Any = (-3, 0, 3),
        layers: Layers = None,
        also: Mapping[str, float] | None = None,
        grid: Mapping[str, Any] | None = None,
        any_generator: bool = False,
    ) -> None:
        self.strength, self.layers, self.any_generator = numbers(strength, "edit.strength"), layers, any_generator
        self.direction = load_direction(direction)
        self.also = [(load_direction(name), _one(value, f"edit.also.{name}")) for name, value in (also or {}).items()]
        if len(grid or {}) > 1:
            raise UserError(f"edit.grid={dict(grid or {})}: expected one direction and its strengths")
        self.grid = [
            (load_direction(name), numbers(value, f"edit.grid.{name}")) for name, value in (grid or {}).items()
        ]
        self.name = self.direction.name

    @property
    def films(self) -> bool:
        """From one strength to another, so with two of them."""
        return len(self.strength) > 1 and not self.grid

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """See `Edit`; directions of another generator or space are found here."""
        self.direction = self._on_layers(self.direction, generator)
        for direction in (self.direction, *(other for other, _ in (*self.also, *self.grid))):
            if self.any_generator:
                direction.check_shape((generator.num_ws, generator.w_dim))
            else:
                direction.check_generator(generator)

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """A strip with a row for each picture; with ``grid`` a table for each picture."""
        if not self.grid:
            columns = {} if subjects.images is None else {"input": subjects.images}
            if self.also:
                columns["unchanged"] = subjects.render(subjects.w)
            columns.update({self._caption(s): subjects.render(self.codes(subjects.w, s)) for s in self.strength})
            return [Sheet(columns, subjects.names)]
        other, strengths = self.grid[0]
        sheets = []
        for row, name in enumerate(subjects.names):
            w = torch.cat([other.apply(subjects.w[row : row + 1], s) for s in strengths])
            same = [row] * len(w)
            columns = {self._caption(s): subjects.render(self.codes(w, s), same) for s in self.strength}
            sheets.append(Sheet(columns, [f"{other.name} {s:+g}" for s in strengths], f"grid_{row:03d}_{name}"))
        return sheets

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """From the least strength to the greatest."""
        way = torch.linspace(min(self.strength), max(self.strength), max(count, 2))
        return torch.stack([subjects.render(self.codes(subjects.w, float(s))) for s in way])

    def codes(self, w: Tensor, strength: float) -> Tensor:
        """Edited codes (B, L, D)."""
        for direction, fixed in self.also:
            w = direction.apply(w, fixed)
        return self.direction.apply(w, strength)

    def _on_layers(self, direction: Direction, generator: Generator) -> Direction:
        return direction.on_layers(None if self.layers is None else layer_range(self.layers, generator.num_ws))

    def _caption(self, strength: float) -> str:
        if self.also:  # what is the same in all columns would leave no room for what is not
            return f"also {self.name} {strength:+g}"
        return f"{self.name} {strength:+g}" if strength else "unchanged"


def _one(value: Any, key: str) -> float:
    found = numbers(value, key)
    if len(found) != 1:
        raise UserError(f"{key}={value}: expected one number; several belong into edit.strength or edit.grid")
    return found[0]
