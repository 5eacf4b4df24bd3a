"""Backgrounds, neck and clothes of a SynthFaces portrait."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.canvas import F32, Array, Canvas, Params, at_most, choose, coverage, hsv, mix, smooth
from stylegan_inv.data.synthfaces.head import Head

#: Factors of the backgrounds.
_BACKGROUND_FACTORS = ("background_hue", "background_value", "background_a", "background_b")


def background(p: Params, x: Array, y: Array) -> Array:
    """Returns the colours (3, B, R, R) of the backgrounds; each kind has its own formula."""
    batch = p.background.shape[0]
    out = np.empty((3, batch, y.shape[1], x.shape[2]), dtype=F32)
    for kind in range(7):
        rows = np.flatnonzero(p.background.reshape(-1) == kind)
        if len(rows):
            q = Params({name: getattr(p, name)[rows] for name in _BACKGROUND_FACTORS})
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
    """Paints neck and clothes."""
    x, y, px = canvas.x, canvas.y, canvas.px
    lx, skin, neck_x = head.light.lx, head.colours.skin, head.neck_x
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
    # The neckline is round, or has straight sides for the V-neck and the collar.
    t = np.abs(xs) / half
    dip = choose((kind == 1) | (kind == 2), np.clip(1 - t, 0, 1), np.sqrt(np.clip(1 - t * t, 0, 1)))
    edge = np.minimum(top, -0.80 - depth * dip)
    distance = edge - y
    body = coverage(distance * 0.85, px)
    stripes = (kind == 3) * smooth(np.sin(26 * (y + 0.12 * ax)), -0.5, 0.5)
    tone = np.clip(0.78 + 0.4 * lx * np.sign(x) * smooth(ax, 0, 0.8) - 0.35 * smooth(-distance, -0.08, 0.02), 0.2, 1.3)
    cloth = head.colours.cloth
    canvas.paint(body, mix(cloth, head.colours.stripe, stripes) * tone, label=7, interest=0.0)
    # A collar has two lighter lapels along the V.
    lapel = coverage(0.075 - np.abs(distance - 0.06), px) * (kind == 1) * smooth(0.42 - np.abs(xs), 0.0, 0.05) * body
    canvas.paint(lapel, mix(cloth, np.ones_like(cloth), F32(0.35)) * (tone + 0.1), label=7, interest=0.0)
