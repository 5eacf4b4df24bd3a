"""The SynthFaces renderer: orthographic rays against a deformed ellipsoid head, in NumPy float32.

For each pixel the renderer computes the surface point that it sees, in head coordinates: x to the right, y up, z to the
front, with the eyes at y = 0.06 and the chin near y = -0.76. Facial features are drawn in these coordinates, so that
they turn with the head. Edges are antialiased analytically (distance over pixel size), so that a 128 px image,
downsampled by 2, is equal to the 64 px image.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_inv.data.synthfaces.canvas import Canvas, Params, at_least, at_most, paint_within
from stylegan_inv.data.synthfaces.eyes_and_glasses import paint_glasses
from stylegan_inv.data.synthfaces.facial_parts import paint_face
from stylegan_inv.data.synthfaces.factors import Factors
from stylegan_inv.data.synthfaces.hair import hair_behind, hair_front
from stylegan_inv.data.synthfaces.head import Head
from stylegan_inv.data.synthfaces.obstacles import draw_obstacles
from stylegan_inv.data.synthfaces.surroundings import background, clothes
from stylegan_inv.utils.checks import whole_number

#: Smallest and largest resolution.
RESOLUTIONS = (32, 512)
#: Number of pixels to render together, so that the arrays fit into the processor's cache.
CHUNK_PIXELS = 65536


@dataclass
class Rendered:
    """The result of :func:`render`.

    Attributes:
        image: RGB levels (B, R, R, 3) uint8.
        label: Label map (B, R, R) uint8, see ``dataset.LABELS``.
        mask: Mask of head and hair without obstacles, (B, R, R) float32 in [0, 1].
        obstacle: Mask of the obstacle, (B, R, R) float32 in [0, 1].
    """

    image: np.ndarray
    label: np.ndarray
    mask: np.ndarray
    obstacle: np.ndarray


def render(factors: Factors, resolution: int, obstacles: np.ndarray | None = None) -> Rendered:
    """Renders faces.

    Args:
        factors: Factors of B faces.
        resolution: Side in pixels, 32 to 512.
        obstacles: Result (B, 10) of :func:`.obstacle_parameters`, or None for no obstacles.

    Raises:
        UserError: The resolution is out of range.
    """
    check_resolution(resolution)
    count = len(factors)
    step = max(1, CHUNK_PIXELS // (resolution * resolution))
    parts = []
    for first in range(0, count, step):
        rows = slice(first, first + step)
        parts.append(_render(factors.take(rows), resolution, None if obstacles is None else obstacles[rows]))
    if not parts:
        shape = (0, resolution, resolution)
        return Rendered(
            np.zeros((*shape, 3), np.uint8),
            np.zeros(shape, np.uint8),
            np.zeros(shape, np.float32),
            np.zeros(shape, np.float32),
        )
    return Rendered(
        np.concatenate([part.image for part in parts]),
        np.concatenate([part.label for part in parts]),
        np.concatenate([part.mask for part in parts]),
        np.concatenate([part.obstacle for part in parts]),
    )


def _render(factors: Factors, resolution: int, obstacles: np.ndarray | None) -> Rendered:
    p = Params(factors.values)
    canvas = Canvas(len(factors), resolution)
    canvas.colour[:] = background(p, canvas.x, canvas.y)
    head = Head(p, canvas)
    hair_behind(canvas, p, head)
    dressed = (canvas.y < -0.7) | (canvas.y < 0.1) & (np.abs(canvas.x - head.neck_x) < 0.5)
    paint_within(dressed, clothes, canvas, p, head)
    paint_face(canvas, p, head)
    hair_front(canvas, p, head)
    paint_glasses(canvas, p, head)

    if obstacles is not None:
        draw_obstacles(canvas, obstacles)
    # Converts linear light to sRGB (gamma 2.2), with a soft shoulder instead of clipping.
    colour = at_least(canvas.colour, 0)
    colour = colour * (1 + 0.12 * colour) / (1 + 0.30 * colour)
    image = at_most(colour, 1) ** np.float32(1 / 2.2) * 255
    return Rendered(
        np.ascontiguousarray(np.rint(image).astype(np.uint8).transpose(1, 2, 3, 0)),
        canvas.label,
        np.clip(canvas.mask, 0, 1),
        canvas.obstacle,
    )


def check_resolution(resolution: int) -> None:
    """Checks that the renderer supports a resolution.

    Raises:
        UserError: The resolution is out of range.
    """
    whole_number("SynthFaces: resolution", resolution, *RESOLUTIONS)
