"""Style mixing: one picture with some layers of the others (Karras et al. 2019, figure 3)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.edits.subjects import Sheet, Subjects, need, whole
from stylegan_inv.latents.layer_ranges import layer_range
from stylegan_inv.latents.mixing import mixing_matrix


class Mix:
    """A row for each source, a column for each range of layers that is taken from it.

    Args:
        kept: number of the picture whose other layers stay.
        ranges: see `layer_range`.
    """

    name = "mix"
    there_and_back = True
    films = True

    def __init__(self, kept: int = 0, ranges: Sequence[str | Sequence[int]] = ("coarse", "middle", "fine")) -> None:
        self.kept, self.ranges = whole(kept, "edit.kept", 0), list(ranges)
        if not self.ranges:
            raise UserError("edit.ranges=[]: expected at least one, such as coarse")

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """See `Edit`."""
        need(count, 2, self.name)
        if self.kept >= count:
            raise UserError(
                f"edit.kept={self.kept}: expected a number from 0 to {count - 1}, there are {count} pictures"
            )
        for one in self.ranges:
            layer_range(one, generator.num_ws)

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """One table."""
        sources = [row for row in range(len(subjects)) if row != self.kept]
        layers = [layer_range(one, subjects.generator.num_ws) for one in self.ranges]
        codes = mixing_matrix(subjects.w[[self.kept]], subjects.w[sources], layers)
        kept = [self.kept] * len(sources)
        columns = {
            "kept": subjects.render(subjects.w[kept], kept),
            "source": subjects.render(subjects.w[sources], sources),
        }
        for number, one in enumerate(self.ranges):
            text = one if isinstance(one, str) else "layers " + ", ".join(map(str, one))
            columns[f"{text} of source"] = subjects.render(codes[:, number], kept)
        return [Sheet(columns, [subjects.names[row] for row in sources])]

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """Layer after layer from the source: what each layer brings."""
        sources = [row for row in range(len(subjects)) if row != self.kept]
        total = subjects.generator.num_ws
        steps = mixing_matrix(subjects.w[[self.kept]], subjects.w[sources], [range(k) for k in range(total + 1)])
        hold = max(1, round(count / (total + 1)))
        shown = [subjects.render(codes, [self.kept] * len(sources)) for codes in steps.transpose(0, 1)]
        return torch.stack([frame for frame in shown for _ in range(hold)])
