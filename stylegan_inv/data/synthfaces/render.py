"""The SynthFaces renderer: orthographic rays against a warped ellipsoid head, in numpy float32.

Each pixel gets the 3-D surface point it sees in head coordinates (x right, y up, z to the front; the eyes at y = 0.06,
the chin near y = -0.76); what the face shows is drawn at those coordinates, so it turns with the head. Edges are
anti-aliased analytically (distance over the pixel size), so a picture at 128 px averaged by 2 is the one at 64 px.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from stylegan_inv.data.synthfaces.canvas import Canvas, Params, at_least, at_most
from stylegan_inv.data.synthfaces.facial_parts import paint_face, paint_glasses
from stylegan_inv.data.synthfaces.factors import Factors
from stylegan_inv.data.synthfaces.hair import hair_behind, hair_front
from stylegan_inv.data.synthfaces.head import Head
from stylegan_inv.data.synthfaces.obstacles import draw_obstacles
from stylegan_inv.data.synthfaces.region_painting import paint_within
from stylegan_inv.data.synthfaces.surroundings import background, clothes
from stylegan_inv.errors import UserError

RESOLUTIONS = (32, 512)
#: Pixels rendered together: what keeps the arrays in the cache.
CHUNK_PIXELS = 65536


@dataclass
class Rendered:
    """What `render` returns: uint8 image (B, R, R, 3) and label (B, R, R), float32 mask and obstacle (B, R, R)."""

    image: np.ndarray
    label: np.ndarray
    mask: np.ndarray
    obstacle: np.ndarray


def render(factors: Factors, resolution: int, obstacles: np.ndarray | None = None) -> Rendered:
    """Draws faces.

    Args:
        factors: of B faces.
        resolution: side in pixels, 32 to 512.
        obstacles: (B, 10) of `obstacle_parameters`, or None.

    Raises:
        UserError: for a resolution outside that range.
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
        *(np.concatenate([getattr(part, name) for part in parts]) for name in ("image", "label", "mask", "obstacle"))
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
    canvas.colour *= head.exposure
    if obstacles is not None:
        draw_obstacles(canvas, obstacles)
    # Linear light -> sRGB (gamma 2.2), with a soft shoulder instead of hard clipping.
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
    """Raises UserError for a side the renderer does not support."""
    low, high = RESOLUTIONS
    if int(resolution) != resolution or not low <= resolution <= high:
        raise UserError(f"SynthFaces: got resolution={resolution}, expected an integer from {low} to {high}.")
