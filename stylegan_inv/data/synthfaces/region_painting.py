"""Painting a layer of a SynthFaces portrait on the pixels that it can change, and on no others."""

from __future__ import annotations

from collections.abc import Callable

from stylegan_inv.data.synthfaces.canvas import Array, Canvas, Params
from stylegan_inv.data.synthfaces.head import Head
from stylegan_inv.data.synthfaces.pixels import Pixels


def paint_within(
    inside: Array, layer: Callable[[Canvas, Params, Head], None], canvas: Canvas, p: Params, head: Head
) -> None:
    """Runs `layer` on the pixels `inside` (B, H, W); it must leave the others as they are."""
    pixels = Pixels(inside)
    if not len(pixels):
        return
    part = canvas.part(pixels)
    layer(part, p.part(pixels), head.part(pixels))
    for name in canvas.layers & vars(part).keys():  # the others have not been asked for
        pixels.put(getattr(part, name), getattr(canvas, name))
