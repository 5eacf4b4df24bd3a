"""Style mixing: one image with some layers of the others (Karras et al. 2019, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.base import EditInputs, ImageTable, check_count
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.latents.mixing import mixing_matrix
from stylegan_inv.utils.checks import whole_number


class Mix:
    """A table with a row for each source image and a column for each range of layers that is taken from it.

    Args:
        kept: Index of the image that keeps its other layers.
        ranges: Ranges of layers, see `layer_range`.
    """

    name = "mix"
    ping_pong = True
    has_animation = True

    def __init__(self, kept: int = 0, ranges: Sequence[str | Sequence[int]] = ("coarse", "middle", "fine")) -> None:
        self.kept, self.ranges = whole_number("edit.kept", kept, 0), list(ranges)
        if not self.ranges:
            raise UserError("edit.ranges=[]: expected at least one range, such as coarse")

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Checks the number of images, ``kept`` and the ranges."""
        check_count(self.name, count, 2)
        whole_number("edit.kept", self.kept, 0, count - 1, hint=f"there are {count} images")
        for one in self.ranges:
            layer_range(one, generator.num_ws)

    def tables(self, inputs: EditInputs) -> list[ImageTable]:
        """Returns one table."""
        sources = self._sources(inputs)
        layers = [layer_range(one, inputs.generator.num_ws) for one in self.ranges]
        codes = mixing_matrix(inputs.w[[self.kept]], inputs.w[sources], layers)
        kept = [self.kept] * len(sources)
        columns = {
            "kept": inputs.render(inputs.w[kept], kept),
            "source": inputs.render(inputs.w[sources], sources),
        }
        for number, one in enumerate(self.ranges):
            text = one if isinstance(one, str) else "layers " + ", ".join(map(str, one))
            columns[f"{text} of source"] = inputs.render(codes[:, number], kept)
        return [ImageTable(columns, [inputs.names[row] for row in sources])]

    def frames(self, inputs: EditInputs, count: int) -> Tensor:
        """Returns an animation that takes one more layer of the source in each step."""
        sources, total = self._sources(inputs), inputs.generator.num_ws
        steps = mixing_matrix(inputs.w[[self.kept]], inputs.w[sources], [range(k) for k in range(total + 1)])
        repeats = max(1, round(count / (total + 1)))
        images = [inputs.render(codes, [self.kept] * len(sources)) for codes in steps.transpose(0, 1)]
        return torch.stack([frame for frame in images for _ in range(repeats)])

    def _sources(self, inputs: EditInputs) -> list[int]:
        return [row for row in range(len(inputs)) if row != self.kept]
