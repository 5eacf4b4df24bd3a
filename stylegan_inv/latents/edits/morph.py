"""Morphing: interpolation from each image to the next."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.base import EditInputs, ImageTable, check_count
from stylegan_inv.latents.interpolation import MODES, path
from stylegan_inv.latents.statistics import map_codes
from stylegan_inv.utils.checks import one_of, whole_number

SPACES = ("w+", "z")


class Morph:
    """A table with a row for each pair of consecutive images; the animation returns to the first image.

    Args:
        steps: Number of steps from one image to the next.
        mode: ``linear`` or ``spherical``.
        space: ``w+``, in which codes of W stay in W, or ``z`` for random samples.
    """

    name = "morph"
    ping_pong = False
    has_animation = True

    def __init__(self, steps: int = 6, mode: str = "linear", space: str = "w+") -> None:
        self.steps = whole_number("edit.steps", steps, most=1000)
        self.mode = one_of("edit.mode", mode, MODES)
        self.space = one_of("edit.space", space, SPACES)

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Checks the number of images and whether they have a z."""
        check_count(self.name, count, 2)
        if self.space == "z" and not random:
            raise UserError("edit.space=z: inversions have no z, only random samples have one; give edit.space=w+")
        classes = generator.mapping.classes
        if self.space == "z" and classes is not None and classes.label is None:
            raise UserError(
                "edit.space=z: the samples are of all classes, between which z has no path; give class=<number>"
            )

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns one table."""
        rows = []
        for row in range(len(inputs) - 1):
            sources = [row if 2 * k <= self.steps else row + 1 for k in range(self.steps + 1)]
            rows.append(inputs.render(self._interpolate(inputs, [row, row + 1], self.steps), sources))
        columns = torch.stack(rows, dim=1)
        names = [f"{a} - {b}" for a, b in zip(inputs.names[:-1], inputs.names[1:], strict=True)]
        return [ImageTable({f"{k / self.steps:.2f}": column for k, column in enumerate(columns)}, names)]

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Returns an animation through all images and back to the first, which is not shown twice."""
        order = [*range(len(inputs)), 0]
        steps = max(1, round(count / len(inputs)))
        codes = self._interpolate(inputs, order, steps)[:-1]
        return inputs.render(codes, [order[k // steps] for k in range(len(codes))])[:, None]

    def _interpolate(self, inputs: EditInputs, order: list[int], steps: int) -> Tensor:
        if self.space == "z":
            assert inputs.z is not None  # see `check`
            w = map_codes(inputs.generator, path(inputs.z[order], steps, self.mode))
            return w[:, None].expand(-1, inputs.generator.num_ws, -1)
        return path(inputs.w[order], steps, self.mode, inputs.generator.w_avg)
