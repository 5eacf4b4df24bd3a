"""Inpainting of a hole in a face."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from PIL import Image, ImageDraw
from torch import Tensor

from stylegan_inv.data.tasks.base import Generators, Task, choose
from stylegan_inv.utils.checks import one_of, real_number


class Inpainting(Task):
    """Whole image from one with a hole. The authors of pSp show results, but do not publish their holes.

    ``triangle`` is E2Style's, with the corners (35 or 220, 35), (x, 220) and (x + 150, 220), x = 35 or 70, in pixels of
    a 256 px image, scaled to the image's size. ``rectangle`` has sides of a fifth to one half of the image. ``strokes``
    are one to four thick polylines.

    Args:
        hole: ``triangle``, ``rectangle`` or ``strokes``; ``any`` draws one of them for each image.
        fill: Level of the pixels in the hole, in [-1, 1]; -1 is black.
    """

    SHAPES = ("triangle", "rectangle", "strokes")

    def __init__(self, hole: str = "triangle", fill: float = -1.0) -> None:
        one_of("dataset.task.hole", hole, (*self.SHAPES, "any"))
        self.shapes = self.SHAPES if hole == "any" else (hole,)
        self.fill = real_number("dataset.task.fill", fill, -1, 1)

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        image = batch["image"]
        holes = torch.stack([self.hole(image.shape[-1], generator) for generator in generators]).to(image.device)
        return {"source": image.masked_fill(holes, self.fill)}

    def hole(self, size: int, generator: np.random.Generator) -> Tensor:
        """Returns a random hole, (1, size, size) bool."""
        # Pillow rounds corners to whole pixels, so holes of small images are drawn large and reduced.
        side = max(size, 256)
        canvas = Image.new("L", (side, side))
        _DRAW[choose(generator, self.shapes)](ImageDraw.Draw(canvas), side, generator)
        return torch.from_numpy(np.array(canvas.resize((size, size), Image.Resampling.BOX)) > 127)[None]


def _draw_triangle(draw: ImageDraw.ImageDraw, size: int, generator: np.random.Generator) -> None:
    top, left = choose(generator, (35, 220)), choose(generator, (35, 70))
    draw.polygon([(x * size / 256, y * size / 256) for x, y in ((top, 35), (left, 220), (left + 150, 220))], 255)


def _draw_rectangle(draw: ImageDraw.ImageDraw, size: int, generator: np.random.Generator) -> None:
    sides = generator.uniform(0.2, 0.5, 2)
    corner = generator.uniform(0, 1 - sides)
    draw.rectangle([*(corner * size), *((corner + sides) * size - 1)], 255)


def _draw_strokes(draw: ImageDraw.ImageDraw, size: int, generator: np.random.Generator) -> None:
    for _ in range(int(generator.integers(1, 5))):
        points = [tuple(point * size) for point in generator.uniform(0.1, 0.9, (int(generator.integers(2, 6)), 2))]
        draw.line(points, 255, width=max(1, round(size * generator.uniform(0.04, 0.12))), joint="curve")


_DRAW = {"triangle": _draw_triangle, "rectangle": _draw_rectangle, "strokes": _draw_strokes}
