"""Cartoons of photographs: the second image domain that works without any download."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.data.tasks.base import Generators, Task, grey
from stylegan_inv.data.tasks.sketch import SketchToFace
from stylegan_inv.utils.checks import real_number, whole_number


class Cartoon(Task):
    """Cartoon from photograph: a few soft levels of brightness, saturated colours and dark outlines.

    The cartoon becomes ``image`` and the photograph ``source``. The cartoon is a fixed filter of the photograph, so
    that the correct answer is known for each face.

    Args:
        levels: Number of brightness levels, at least 2.
        colour: Factor of the distance of the colours from grey, at least 0.
    """

    def __init__(self, levels: int = 4, colour: float = 1.6) -> None:
        self.levels, self.colour = (
            whole_number("style.levels", levels, 2),
            real_number("style.colour", colour, 0),
        )
        self._sketch = SketchToFace(strength=0.8, threshold=0.2)

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        image = batch["image"]
        luma = grey(image)
        level = (luma + 1) / 2 * (self.levels - 1)
        # Each pass makes the curve flatter near whole levels and steeper between them. Hard steps would be too
        # difficult for a small generator.
        for _ in range(2):
            level = level - (2 * math.pi * level).sin() / (2 * math.pi)
        flat = level / (self.levels - 1) * 2 - 1
        colours = (flat + self.colour * (image - luma)).clamp(-1, 1)
        paper = self._sketch.translate(batch, generators, training)["source"]
        return {"image": (colours + 1) * paper - 1, "source": image}
