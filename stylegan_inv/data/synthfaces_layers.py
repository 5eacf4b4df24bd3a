"""What surrounds a SynthFaces head: the canvas, backgrounds, clothes and obstacles (all analytic, float32)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from stylegan_inv.data.synthfaces_pixels import Maps

if TYPE_CHECKING:
    from stylegan_inv.data.synthfaces_head import Head

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


_PLACE = ("background_hue", "background_value", "background_a", "background_b")


def background(p: Params, x: Array, y: Array) -> Array:
    """(3, B, R, R) background colours; one formula a kind, applied to the images of that kind."""
    batch = p.background.shape[0]
    out = np.empty((3, batch, y.shape[1], x.shape[2]), dtype=F32)
    for kind in range(7):
        rows = np.flatnonzero(p.background.reshape(-1) == kind)
        if len(rows):
            q = Params({name: getattr(p, name)[rows] for name in _PLACE})
            out[:, rows] = _BACKGROUNDS[kind](q, x, y)
    return out


def _plain(p: Params, x: Array, y: Array) -> Array:
    base = hsv(p.background_hue, 0.18 + 0.2 * p.background_a, 0.25 + 0.7 * p.background_value)
    return base * (0.92 + 0.12 * y + 0.10 * p.background_b * x)


def _gradient(p: Params, x: Array, y: Array) -> Array:
    top = hsv(p.background_hue, 0.45, 0.45 + 0.5 * p.background_value)
    low = hsv(p.background_hue + 0.18 * p.background_a, 0.55, 0.18 + 0.45 * p.background_value)
    return mix(low, top, smooth(y + 0.7 * p.background_b * x, -1.2, 1.2))


def _studio(p: Params, x: Array, y: Array) -> Array:
    u, v = x - 0.6 * p.background_a, y - 0.15 - 0.3 * p.background_b
    spot = np.exp(-(u * u + v * v) * F32(0.9))
    base = hsv(p.background_hue, 0.35, 0.35 + 0.6 * p.background_value)
    return base * (0.12 + 0.95 * spot)


_DISCS = (
    (-0.85, 0.75, 0.24),
    (0.80, 0.70, 0.30),
    (-0.72, -0.05, 0.28),
    (0.86, -0.1, 0.22),
    (0.1, 0.98, 0.26),
    (-0.95, -0.7, 0.3),
    (0.95, 0.3, 0.2),
)


def _bokeh(p: Params, x: Array, y: Array) -> Array:
    base = hsv(p.background_hue, 0.55, 0.16 + 0.3 * p.background_value)
    out = base * (0.8 + 0.35 * y)
    for k, (cx, cy, r) in enumerate(_DISCS):
        a, b = (p.background_a, p.background_b) if k % 2 else (-p.background_b, p.background_a)
        u, v = x - cx - 0.16 * a, y - cy - 0.14 * b
        d2 = (u * u + v * v) * F32(1 / (r * r))
        disc = 1 - smooth(d2, 0.65, 1.15)
        colour = hsv(p.background_hue + 0.09 * (k % 3) + 0.05, 0.5, 0.45 + 0.5 * p.background_value)
        out = out + (disc * (0.45 + 0.25 * at_most(d2, 1))) * colour
    return out


def _outdoor(p: Params, x: Array, y: Array) -> Array:
    horizon = (
        -0.05
        + 0.35 * p.background_a
        + 0.07 * np.sin(3.1 * x + 3 * p.background_b)
        + 0.04 * np.sin(6.3 * x - 2 * p.background_b + 1)
    )
    sky_value = 0.55 + 0.42 * p.background_value
    zenith = hsv(0.60 + 0.0 * p.background_hue, 0.55, sky_value)
    haze = hsv(0.06 + 0.08 * p.background_hue, 0.22, np.minimum(sky_value + 0.12, 1))
    sky = mix(haze, zenith, smooth(y - horizon, 0.0, 0.9))
    ground = hsv(0.14 + 0.22 * p.background_hue, 0.55, 0.22 + 0.4 * p.background_value)
    ground = ground * (0.75 - 0.35 * (y - horizon))
    return mix(ground, sky, smooth(y - horizon, -0.06, 0.06))


def _wall(p: Params, x: Array, y: Array) -> Array:
    base = hsv(p.background_hue, 0.3, 0.35 + 0.5 * p.background_value)
    stripes = np.sin((9 + 2.5 * p.background_a) * x + 3 * p.background_b)
    return base * (0.9 + 0.1 * y + 0.22 * np.tanh(2.2 * stripes))


def _window(p: Params, x: Array, y: Array) -> Array:
    base = hsv(p.background_hue, 0.25, 0.2 + 0.35 * p.background_value)
    side = np.where(p.background_a > 0, 1, -1).astype(F32)
    u = x * side - 0.55 - 0.25 * (np.abs(p.background_a) - 0.5)
    v = y - 0.35 - 0.15 * p.background_b
    pane = smooth(0.36 - np.abs(u), -0.05, 0.05) * smooth(0.55 - np.abs(v), -0.05, 0.05)
    bars = np.maximum(1 - smooth(np.abs(u), 0.015, 0.06), 1 - smooth(np.abs(v - 0.02), 0.015, 0.06))
    light = hsv(0.58 + 0.0 * p.background_hue, 0.12, 0.8 + 0.2 * p.background_value) * (0.85 + 0.15 * v)
    wall = base * (1.0 + 0.25 * y - 0.35 * np.abs(u))
    return mix(wall, light, pane * (1 - 0.75 * bars))


_BACKGROUNDS = (_plain, _gradient, _studio, _bokeh, _outdoor, _wall, _window)


def clothes(canvas: Canvas, p: Params, head: Head) -> None:
    """Neck and shoulders."""
    x, y, px = canvas.x, canvas.y, canvas.px
    lx, skin, neck_x = head.lx, head.skin, head.neck_x
    xs = x - neck_x
    width = 0.265 + 0.035 * p.gender + 0.02 * p.face_width
    u = xs / width
    cylinder = np.sqrt(np.clip(1 - u * u, 0.02, 1))
    flare = smooth(-y, 0.72, 1.05) * 0.14
    alpha = coverage(width + flare - np.abs(xs), px) * coverage(0.05 - y, px)
    shade = np.clip(0.45 * cylinder + 0.55 * lx * np.clip(u, -1, 1) + 0.25, 0.08, 1.2)
    under_chin = 0.38 + 0.62 * smooth(-y - 0.15 * np.abs(u), 0.66, 1.0)
    canvas.paint(alpha, skin * (shade * under_chin), label=1, interest=0.0)

    slope = 0.62 + 0.06 * p.gender
    ax = np.abs(x - 0.5 * neck_x)
    top = -0.80 - slope * 0.32 * smooth(ax, 0.18, 1.15) * ax
    kind = p.clothes
    depth = np.where(kind == 2, 0.32, np.where(kind == 1, 0.20, 0.13)).astype(F32)
    half = np.where(kind == 1, 0.20, 0.30).astype(F32)
    # the neckline: a round dip, or straight sides for the V and the collar
    t = np.abs(xs) / half
    dip = choose((kind == 1) | (kind == 2), np.clip(1 - t, 0, 1), np.sqrt(np.clip(1 - t * t, 0, 1)))
    edge = np.minimum(top, -0.80 - depth * dip)
    distance = edge - y
    body = coverage(distance * 0.85, px)
    stripes = (kind == 3) * smooth(np.sin(26 * (y + 0.12 * ax)), -0.5, 0.5)
    tone = np.clip(0.78 + 0.4 * lx * np.sign(x) * smooth(ax, 0, 0.8) - 0.35 * smooth(-distance, -0.08, 0.02), 0.2, 1.3)
    cloth = head.cloth
    canvas.paint(body, mix(cloth, head.stripe, stripes) * tone, label=7, interest=0.0)
    # collar: two lighter lapels along the V
    lapel = coverage(0.075 - np.abs(distance - 0.06), px) * (kind == 1) * smooth(0.42 - np.abs(xs), 0.0, 0.05) * body
    canvas.paint(lapel, mix(cloth, np.ones_like(cloth), F32(0.35)) * (tone + 0.1), label=7, interest=0.0)


def draw_obstacles(canvas: Canvas, obstacles: Array) -> None:
    """Objects in front of the face; they leave the interest mask and enter the obstacle mask."""
    kinds = obstacles[:, 0].astype(int)
    for kind in range(5):
        rows = np.flatnonzero(kinds == kind)
        if not len(rows):
            continue
        n = np.tanh(obstacles[rows, 1:] / 2)[:, :, None, None].transpose(1, 0, 2, 3).astype(F32)
        alpha, colour = _OBSTACLES[kind](n, canvas.x, canvas.y, canvas.px)
        canvas.colour[:, rows] += alpha * (colour - canvas.colour[:, rows])
        canvas.mask[rows] *= 1 - alpha
        canvas.obstacle[rows] = alpha
        label = canvas.label[rows]
        label[np.broadcast_to(alpha > 0.5, label.shape)] = 0  # what hides the face is none of its parts
        canvas.label[rows] = label


def _microphone(n: Array, x: Array, y: Array, px: float) -> tuple[Array, Array]:
    cx, cy = 0.45 * n[0], -0.62 + 0.15 * n[1]
    u, v = x - cx, y - cy
    r = np.sqrt(u * u + v * v)
    ball = coverage(0.2 + 0.03 * n[2] - r, px)
    su = u - 0.35 * n[3] * (cy - y)
    stick = coverage(0.075 - np.abs(su), px) * coverage(-v, px)
    shade = 0.25 + 0.5 * bell((u + 0.07) / 0.09, (v - 0.07) / 0.09)
    grey = np.maximum(ball * shade, (1 - ball) * stick * (0.07 + 0.2 * bell((su + 0.03) / 0.03, 0 * v)))
    return np.maximum(ball, stick), np.stack([grey] * 3) * np.array([1, 1, 1.08], dtype=F32).reshape(3, 1, 1, 1)


def _hand(n: Array, x: Array, y: Array, px: float) -> tuple[Array, Array]:
    cx, cy, turn = 0.55 * n[0], -0.7 + 0.3 * n[1], 0.6 * n[2] - 0.5 * n[0]
    c, s = np.cos(turn), np.sin(turn)
    u, v = c * (x - cx) + s * (y - cy), -s * (x - cx) + c * (y - cy)
    best = 0.26 - np.sqrt((u / 1.0) ** 2 + (v / 1.15) ** 2)
    shade = np.zeros_like(best)
    for k, (fx, length) in enumerate(((-0.2, 0.42), (-0.068, 0.52), (0.068, 0.5), (0.2, 0.4))):
        lean = fx * 0.35
        fu = u - fx - lean * np.clip(v / 0.5, 0, 1)
        d = 0.07 - np.sqrt(fu**2 + np.maximum(np.maximum(v - length, -v), 0) ** 2)
        shade = np.where(d > best, d, shade)
        best = np.maximum(best, d)
        del k
    arm = 0.2 - np.sqrt(u**2 + np.maximum(v, 0) ** 2)
    best = np.maximum(best, arm)
    tone = ramp(rgb("f3cdb2", "d99f7a", "a86d48", "5d3822"), 0.5 + 0.5 * n[3])
    return coverage(best, px), tone * (0.5 + 0.45 * smooth(best, 0.0, 0.08))


def _scarf(n: Array, x: Array, y: Array, px: float) -> tuple[Array, Array]:
    top = -0.27 + 0.14 * n[0] + 0.12 * x * x + 0.15 * n[1] * x
    alpha = coverage(top - y, px) * coverage(0.66 + 0.1 * n[2] - np.abs(x) + 0.5 * (top - y), px)
    folds = 0.72 + 0.28 * np.sin(13 * (top - y) + 2.5 * x * (1 + n[4]))
    return alpha, hsv(0.5 + 0.5 * n[3], 0.6, 0.55 + 0.3 * n[5]) * folds


def _text(n: Array, x: Array, y: Array, px: float) -> tuple[Array, Array]:
    v, u = y + 0.4 - 0.5 * n[0], x - 0.25 * n[1]
    cell = np.floor(u / 0.22)
    f = u / 0.22 - cell
    inside = (np.abs(cell + 0.5) < 4).astype(F32)
    e = px / 0.22
    post = coverage(0.10 - np.abs(f - 0.22), e)
    post2 = coverage(0.10 - np.abs(f - 0.72), e) * (np.mod(cell, 3) != 1)
    bar = coverage(0.5 - np.abs(f - 0.47) - 0.16, e)
    level = np.where(np.mod(cell, 2) == 0, 0.0, -0.09)
    across = coverage(0.028 - np.abs(np.where(np.mod(cell, 3) == 2, v - level, np.abs(v - level) - 0.1)), px) * bar
    tall = coverage(0.13 - np.abs(v), px)
    alpha = np.maximum(np.maximum(post, post2) * tall, across * tall) * inside
    return alpha.astype(F32), hsv(0.5 + 0.5 * n[2], 0.35 + 0.3 * n[3], 0.9)


def _flat(n: Array, x: Array, y: Array, px: float) -> tuple[Array, Array]:
    turn = 0.8 * n[2]
    c, s = np.cos(turn), np.sin(turn)
    u, v = c * (x - 0.45 * n[0]) + s * (y - 0.55 * n[1]), -s * (x - 0.45 * n[0]) + c * (y - 0.55 * n[1])
    d = np.minimum(0.3 + 0.12 * n[3] - np.abs(u), 0.24 + 0.12 * n[4] - np.abs(v))
    return coverage(d, px), hsv(0.5 + 0.5 * n[5], 0.5 + 0.4 * n[6], 0.55 + 0.4 * n[7]) + 0 * d


_OBSTACLES = (_microphone, _hand, _scarf, _text, _flat)
