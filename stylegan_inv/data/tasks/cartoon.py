"""Cartoons of pictures: the other domain of the embedded world."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.data.tasks.translation import Randoms, SketchToFace, Task, grey
from stylegan_inv.errors import UserError


class Cartoon(Task):
    """Picture -> cartoon, which becomes the ``image``: a few soft steps of brightness, strong colours, dark outlines.

    A fixed filter and no artist's hand. What trains with it learns a domain that is plainly another than photographs
    and still has a known answer for each face.

    Args:
        steps: levels of brightness.
        colour: factor of the colours' distance from grey.
    """

    def __init__(self, steps: int = 4, colour: float = 1.6) -> None:
        if isinstance(steps, bool) or not isinstance(steps, int) or steps < 2 or not colour >= 0:
            raise UserError(f"task.steps={steps!r}, task.colour={colour}: expected at least 2, and at least 0")
        self.steps, self.colour, self._sketch = steps, colour, SketchToFace(strength=0.8, threshold=0.2)

    def translate(self, batch: Mapping[str, Any], randoms: Randoms, training: bool) -> dict[str, Tensor]:  # noqa: D102
        image = batch["image"]
        luma = grey(image)
        level = (luma + 1) / 2 * (self.steps - 1)
        for _ in range(2):  # flat near whole levels, steep between them; hard steps are beyond a small generator
            level = level - (2 * math.pi * level).sin() / (2 * math.pi)
        flat = level / (self.steps - 1) * 2 - 1
        colours = (flat + self.colour * (image - luma)).clamp(-1, 1)
        paper = self._sketch.translate(batch, randoms, training)["source"]
        return {"image": (colours + 1) * paper - 1, "source": image}
