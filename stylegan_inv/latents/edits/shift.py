"""Attribute edits: latent codes moved along one direction or several."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import Direction, load_direction
from stylegan_inv.latents.edits.base import EditInputs, ImageTable, distinct_numbers
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.utils.checks import real_number

Layers = str | Sequence[int] | None


class Shift:
    """One direction at several strengths, optionally with further directions at a fixed strength or in a grid.

    Args:
        direction: Name of an embedded direction, or a file.
        strength: One strength or several; each is a column.
        layers: Layers that are moved, see `layer_range`; None for those of the direction.
        also: Direction -> strength of further directions; a first column shows the images without any edit.
        grid: One direction -> strengths: a table for each image, with a row for each of these strengths.
        any_generator: See `load_direction`.
    """

    ping_pong = True

    def __init__(
        self,
        direction: str,
        strength: Any = (-3, 0, 3),
        layers: Layers = None,
        also: Mapping[str, float] | None = None,
        grid: Mapping[str, Any] | None = None,
        any_generator: bool = False,
    ) -> None:
        self.strength = distinct_numbers("edit.strength", strength)
        self.layers, self.any_generator = layers, any_generator
        self.direction = load_direction(direction)
        hint = "several strengths belong into edit.strength or edit.grid"
        self.also = [
            (load_direction(name), real_number(f"edit.also.{name}", value, hint=hint))
            for name, value in (also or {}).items()
        ]
        if len(grid or {}) > 1:
            raise UserError(f"edit.grid={dict(grid or {})}: expected one direction and its strengths")
        self.grid = [
            (load_direction(name), distinct_numbers(f"edit.grid.{name}", value)) for name, value in (grid or {}).items()
        ]
        self.name = self.direction.name

    @property
    def has_animation(self) -> bool:
        """Whether there are two strengths to interpolate between, and no grid."""
        return len(self.strength) > 1 and not self.grid

    @property
    def directions(self) -> tuple[Direction, ...]:
        """All directions, those of ``also`` and ``grid`` included."""
        return self.direction, *(other for other, _ in (*self.also, *self.grid))

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Checks that the directions are of this generator, and the layers."""
        layers = None if self.layers is None else layer_range(self.layers, generator.num_ws)
        self.direction = self.direction.on_layers(layers)
        for direction in self.directions:
            if self.any_generator:
                direction.check_shape((generator.num_ws, generator.w_dim))
            else:
                direction.check_generator(generator)

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns a table with a row for each image; with ``grid`` a table for each image."""
        if not self.grid:
            columns = {} if inputs.images is None else {"input": inputs.images}
            if self.also:
                columns["unchanged"] = inputs.render(inputs.w)
            columns.update({self._caption(s): inputs.render(self.codes(inputs.w, s)) for s in self.strength})
            return [ImageTable(columns, inputs.names)]
        other, strengths = self.grid[0]
        tables = []
        for row, name in enumerate(inputs.names):
            w = torch.cat([other.apply(inputs.w[row : row + 1], s) for s in strengths])
            sources = [row] * len(w)
            columns = {self._caption(s): inputs.render(self.codes(w, s), sources) for s in self.strength}
            tables.append(ImageTable(columns, [f"{other.name} {s:+g}" for s in strengths], f"grid_{row:03d}_{name}"))
        return tables

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Returns an animation from the smallest strength to the largest."""
        strengths = torch.linspace(min(self.strength), max(self.strength), max(count, 2))
        return torch.stack([inputs.render(self.codes(inputs.w, float(s))) for s in strengths])

    def codes(self, w: Tensor, strength: float) -> Tensor:
        """Returns edited latent codes (B, L, D)."""
        for direction, fixed in self.also:
            w = direction.apply(w, fixed)
        return self.direction.apply(w, strength)

    def _caption(self, strength: float) -> str:
        if self.also:  # the other directions are the same in all columns and would make the caption too long
            return f"also {self.name} {strength:+g}"
        return f"{self.name} {strength:+g}" if strength else "unchanged"
