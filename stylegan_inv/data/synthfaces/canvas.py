"""Drawing tools of the SynthFaces renderer: parameters, canvas, antialiased edges and colours, in float32."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from stylegan_inv.data.synthfaces.pixels import Maps, Pixels

Array = np.ndarray
F32 = np.float32


class Params(Maps):
    """Parameters of each image as attributes, each an array (B, 1, 1) float32.

    Args:
        values: Arrays (B,) by name.
    """

    def __init__(self, values: dict[str, Array]) -> None:
        for name, value in values.items():
            setattr(self, name, np.asarray(value, dtype=F32).reshape(-1, 1, 1))


def coverage(distance: Array, px: float) -> Array:
    """Returns the fraction of a pixel that is inside an edge, for antialiasing.

    Args:
        distance: Signed distance to the edge, positive inside.
        px: Side of a pixel, in the unit of ``distance``.
    """
    inside = distance * F32(1.0 / px)
    inside += F32(0.5)
    return np.clip(inside, 0, 1, out=inside)


# With a scalar, np.clip is several times as fast as np.maximum and np.minimum. So are products, compared to np.where.


def at_least(value: Array, low: float) -> Array:
    """Returns ``max(value, low)``."""
    return np.clip(value, low, np.inf)


def at_most(value: Array, high: float) -> Array:
    """Returns ``min(value, high)``."""
    return np.clip(value, -np.inf, high)


def choose(mask: Array, a: Array | float, b: Array | float) -> Array:
    """Returns ``a`` where the mask is set and ``b`` elsewhere; both must be finite."""
    on = mask.astype(F32)
    return on * a + (1 - on) * b


def smooth(value: Array, low: float, high: float) -> Array:
    """Returns the smoothstep function from 0 at ``low`` to 1 at ``high``."""
    t = value - low
    t *= F32(1.0 / (high - low))
    np.clip(t, 0, 1, out=t)
    slope = 2 * t
    np.subtract(3, slope, out=slope)
    t *= t
    t *= slope
    return t


def bell(u: Array, v: Array) -> Array:
    """Returns exp(-u^2 - v^2)."""
    power = u * u + v * v
    np.negative(power, out=power)
    return np.exp(power, out=power)


def mix(a: Array, b: Array, t: Array) -> Array:
    """Interpolates linearly from ``a`` at t = 0 to ``b`` at t = 1."""
    return a + (b - a) * t


def rgb(*hexes: str) -> Array:
    """Returns the linear-light colours (N, 3) of sRGB hex codes."""
    srgb = np.array([[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in hexes], dtype=F32)
    return (srgb**2.2).astype(F32)


def ramp(anchors: Array, t: Array) -> Array:
    """Interpolates colours (3, B, 1, 1) at t in [0, 1] between evenly spaced anchors (N, 3)."""
    flat = np.clip(t.reshape(-1), 0, 1)
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(flat, at, anchors[:, c]) for c in range(3)]).astype(F32)[:, :, None, None]


def hsv(hue: Array, saturation: Array | float, value: Array | float) -> Array:
    """Returns linear-light colours (3, B, 1, 1) from hue (periodic in [0, 1]), saturation and value."""
    k = np.array([0.0, 1 / 3, 2 / 3], dtype=F32).reshape(3, 1, 1, 1)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[None] - k))
    return np.asarray((np.asarray(value) * (1 - np.asarray(saturation) * (1 - wave))) ** 2.2, dtype=F32)


class Canvas(Maps):
    """The images while they are painted: linear-light colours (3, B, R, R), label map, mask and obstacle mask.

    Args:
        batch: Number of images B.
        resolution: Side R in pixels.
    """

    #: Names of the painted arrays.
    layers = frozenset({"colour", "label", "mask", "obstacle"})

    def __init__(self, batch: int, resolution: int) -> None:
        axis = ((np.arange(resolution, dtype=F32) + F32(0.5)) * F32(2.0 / resolution) - 1).astype(F32)
        self.x, self.y = axis[None, None, :], -axis[None, :, None]
        self.px = 2.0 / resolution
        shape = (batch, resolution, resolution)
        self.colour = np.zeros((3, *shape), dtype=F32)
        self.label = np.zeros(shape, dtype=np.uint8)
        self.mask = np.zeros(shape, dtype=F32)
        self.obstacle = np.zeros(shape, dtype=F32)

    def paint(
        self,
        alpha: Array,
        colour: Array,
        label: int | None = None,
        interest: float | None = None,
        threshold: float = 0.5,
    ) -> None:
        """Paints a layer over the images.

        Args:
            alpha: Opacity in [0, 1].
            colour: Linear-light colour.
            label: Label of the pixels whose opacity is above ``threshold``; None keeps the labels.
            interest: Value of the mask where the layer is opaque; None keeps the mask.
            threshold: Least opacity for the label.
        """
        step = colour - self.colour
        step *= alpha
        self.colour += step
        if label is not None:
            # Arithmetic modulo 256 is many times as fast as an assignment with a boolean index.
            change = np.uint8(label) - self.label
            change *= alpha > threshold
            self.label += change
        if interest is not None:
            self.mask += alpha * (F32(interest) - self.mask)


def paint_within(inside: Array, layer: Callable[..., None], canvas: Canvas, *inputs: Maps) -> None:
    """Paints a layer on some pixels, which saves the computation of the others.

    Args:
        inside: Pixels that the layer can change, (B, H, W) bool.
        layer: Function of a canvas and of ``inputs`` that paints on the canvas.
        canvas: Canvas to paint on.
        *inputs: Further arguments of ``layer``, which is called with their values at these pixels.
    """
    pixels = Pixels(inside)
    if not len(pixels):
        return
    part = canvas.part(pixels)
    layer(part, *(each.part(pixels) for each in inputs))
    for name in canvas.layers & vars(part).keys():  # the layer has not used the others
        pixels.put(getattr(part, name), getattr(canvas, name))
