"""What every layer of a SynthFaces portrait draws with: parameters, canvas, edges, colours (analytic, float32)."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.pixels import Maps

Array = np.ndarray
F32 = np.float32


class Params(Maps):
    """Attribute access to per-image parameters, each as a (B, 1, 1) float32 array."""

    def __init__(self, values: dict[str, Array]) -> None:
        for name, value in values.items():
            setattr(self, name, np.asarray(value, dtype=F32).reshape(-1, 1, 1))


def coverage(distance: Array, px: float) -> Array:
    """Part of a pixel inside an edge at signed `distance` (positive inside): the anti-aliasing."""
    inside = distance * F32(1.0 / px)
    inside += F32(0.5)
    return np.clip(inside, 0, 1, out=inside)


# np.clip is several times as fast as np.maximum or np.minimum with a number, and products as np.where.


def at_least(value: Array, low: float) -> Array:
    """The greater of the two."""
    return np.clip(value, low, np.inf)


def at_most(value: Array, high: float) -> Array:
    """The lesser of the two."""
    return np.clip(value, -np.inf, high)


def choose(mask: Array, a: Array | float, b: Array | float) -> Array:
    """Finite `a` where the mask is set, finite `b` elsewhere."""
    on = mask.astype(F32)
    return on * a + (1 - on) * b


def smooth(value: Array, low: float, high: float) -> Array:
    """Smoothstep from 0 at `low` to 1 at `high`."""
    t = value - low
    t *= F32(1.0 / (high - low))
    np.clip(t, 0, 1, out=t)
    slope = 2 * t
    np.subtract(3, slope, out=slope)
    t *= t
    t *= slope
    return t


def bell(u: Array, v: Array) -> Array:
    """exp(-u^2 - v^2)."""
    power = u * u + v * v
    np.negative(power, out=power)
    return np.exp(power, out=power)


def mix(a: Array, b: Array, t: Array) -> Array:
    """Linear interpolation."""
    return a + (b - a) * t


def rgb(*hexes: str) -> Array:
    """Linear-light (N, 3) of sRGB hex colours."""
    srgb = np.array([[int(h[i : i + 2], 16) / 255 for i in (0, 2, 4)] for h in hexes], dtype=F32)
    return (srgb**2.2).astype(F32)


def ramp(anchors: Array, t: Array) -> Array:
    """Colours (3, B, 1, 1) at t in [0, 1] along evenly spaced anchors (N, 3)."""
    flat = np.clip(t.reshape(-1), 0, 1)
    at = np.linspace(0, 1, len(anchors))
    return np.stack([np.interp(flat, at, anchors[:, c]) for c in range(3)]).astype(F32)[:, :, None, None]


def hsv(hue: Array, saturation: Array | float, value: Array | float) -> Array:
    """Linear-light colours (3, B, 1, 1) from hue (circular), saturation, value."""
    k = np.array([0.0, 1 / 3, 2 / 3], dtype=F32).reshape(3, 1, 1, 1)
    wave = 0.5 + 0.5 * np.cos(2 * np.pi * (hue[None] - k))
    return np.asarray((np.asarray(value) * (1 - np.asarray(saturation) * (1 - wave))) ** 2.2, dtype=F32)


class Canvas(Maps):
    """The picture under way: linear-light colour (3, B, R, R), labels, interest and obstacle masks."""

    #: What is painted.
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
        """Lays a layer over the picture (back to front)."""
        step = colour - self.colour
        step *= alpha
        self.colour += step
        if label is not None:
            # arithmetic modulo 256: many times as fast as an assignment by mask
            change = np.uint8(label) - self.label
            change *= alpha > threshold
            self.label += change
        if interest is not None:
            self.mask += alpha * (F32(interest) - self.mask)
