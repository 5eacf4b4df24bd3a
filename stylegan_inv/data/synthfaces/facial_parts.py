"""Ears, skin, nose, mouth and beard of a SynthFaces head."""

from __future__ import annotations

from functools import partial

import numpy as np

from stylegan_inv.data.synthfaces.canvas import (
    F32,
    Array,
    Canvas,
    Params,
    at_least,
    at_most,
    bell,
    choose,
    coverage,
    mix,
    paint_within,
    rgb,
    smooth,
)
from stylegan_inv.data.synthfaces.eyes_and_glasses import paint_eyes_and_brows
from stylegan_inv.data.synthfaces.head import Head


def _colour(name: str) -> Array:
    return rgb(name).reshape(3, 1, 1, 1)


def paint_face(canvas: Canvas, p: Params, head: Head) -> None:
    """Paints the ears, then the head with all its features, from back to front."""
    for side in (-1, 1):
        cx, cy = head.ear(side)
        near = (np.abs(canvas.x - cx) < 0.11) & (np.abs(canvas.y - cy) < 0.24)
        paint_within(near, partial(_ear, side=side), canvas, p, head)
    paint_within(head.covers, _features, canvas, p, head)


def _features(canvas: Canvas, p: Params, head: Head) -> None:
    head.add_relief(p)
    _skin(canvas, p, head)
    height = head.y - head.eye_y
    paint_within(head.covers & (p.beard > 0) & (height < 0.1), _beard, canvas, p, head)
    paint_within(head.covers & (np.abs(head.y - head.mouth_y) < 0.25) & (head.ax < 0.42), _mouth, canvas, p, head)
    paint_within(head.covers & (height > -0.2) & (height < 0.4), paint_eyes_and_brows, canvas, p, head)


def _ear(canvas: Canvas, p: Params, head: Head, side: int) -> None:
    cx, cy = head.ear(side)
    u, v = (canvas.x - cx) * F32(1 / 0.075), (canvas.y - cy - 0.25 * side * (canvas.x - cx)) * F32(1 / 0.15)
    r2 = u * u + v * v
    alpha = coverage((1 - np.sqrt(r2)) * F32(0.085), head.px)
    inner = 0.62 + 0.38 * smooth(r2, 0.1, 0.75)
    lit = np.clip(0.62 + 0.5 * side * head.light.lx, 0.2, 1.1) * (0.5 + 0.45 * head.light.key)
    red = np.array([1.03, 0.86, 0.82], dtype=F32).reshape(3, 1, 1, 1)
    canvas.paint(alpha, head.colours.skin * red * head.light.tint * (inner * lit), label=1, interest=1.0)


def _skin(canvas: Canvas, p: Params, head: Head) -> None:
    alpha = head.alpha
    x, y, ax, old = head.x, head.y, head.ax, head.old
    blush = bell((ax - 0.30) / 0.15, (y + 0.17) / 0.12) + bell(x / 0.09, (y - head.tip_y) / 0.08)
    dark = 0.26 * bell((ax - head.eye_x + 0.02) / 0.13, (y - head.eye_y - 0.05) / 0.075)  # sockets
    dark = dark + 0.30 * bell((ax - head.eye_x * 0.50) / 0.055, (y - head.eye_y - 0.01) / 0.09)  # inner corners
    dark = dark + 0.30 * bell(x / 0.12, (y - head.tip_y + 0.105) / 0.035)  # below the nose
    dark = dark + 0.24 * bell(x / 0.13, (y - head.mouth_y + 0.115) / 0.04)  # below the lip
    bag = y - head.eye_y + 0.095 - 0.25 * (ax - head.eye_x) ** 2
    dark = dark + (0.05 + 0.24 * old) * bell((ax - head.eye_x) / 0.10, bag / 0.022)
    # Nasolabial folds run from the wings of the nose past the corners of the mouth; age and smile deepen them.
    t = (head.tip_y + 0.02 - y) / (head.tip_y - head.mouth_y)
    fold = ax - (head.nose_side + 0.035 + (0.14 + 0.03 * p.smile) * np.clip(t, 0, 1.4))
    dark = dark + (0.04 + 0.30 * old + 0.15 * p.smile) * bell(fold / 0.024, (t - 0.6) / 0.5)
    lines = np.cos((y - 0.36) * F32(2 * np.pi / 0.1))
    dark = dark + 0.17 * old * at_least(lines, 0) ** 2 * bell(ax / 0.26, (y - 0.36) / 0.13)
    crow = bell((ax - head.eye_x - 0.16) / 0.05, (y - head.eye_y) / 0.06) * (0.5 + 0.5 * np.cos(y * F32(110)))
    dark = dark + 0.28 * old * crow
    # The nose casts a soft shadow on the side away from the light.
    dark = dark + 0.42 * np.abs(head.light.lx) * bell(
        (x + np.sign(head.light.lx) * 0.115) / 0.055, (y - head.tip_y - 0.05) / 0.10
    )
    light = head.light.shade(head.normal, (0.38, 0.22, 0.15), at_least(1 - dark, 0.15))
    rim = 1 - at_least(head.normal[2], 0)
    light = light * (1 - 0.35 * rim * rim * rim)
    red = np.stack([0.02 * blush, -0.16 * blush, -0.15 * blush]) + F32(1)
    shadow = np.stack([0.10 * dark, -0.10 * dark, -0.12 * dark]) + F32(1)
    spec = head.light.half_cosine(head.normal)
    spec = spec**2
    spec = spec**2
    spec = spec**2
    gloss = (0.05 + 0.10 * spec * spec) * spec * head.light.key * (1 - 0.3 * old)
    colour = head.colours.skin * light * red * shadow + gloss * (1 - dark)
    nostril = bell((ax - head.nose_side * 0.50) / 0.026, (y - head.tip_y + 0.062) / 0.019)
    colour = colour * (1 - 0.85 * at_most(nostril * 1.2, 1))
    canvas.paint(alpha, colour, label=1, interest=1.0)


def _beard(canvas: Canvas, p: Params, head: Head) -> None:
    alpha = head.alpha
    ax, y, my = head.ax, head.y, head.mouth_y
    kind = p.beard
    cheek = -0.20 - 0.42 * np.clip(0.44 - ax, 0, 1) + 0.04 * p.beard_length
    jaw = smooth(cheek - y, -0.05, 0.06)
    lip = bell(ax / 0.22, (y - my) / 0.075)
    goatee = smooth(0.15 - ax, -0.04, 0.04) * smooth(my - 0.075 - y, -0.02, 0.03)
    moustache = smooth(0.03 - np.abs(y - (my + 0.085 - 0.30 * ax * ax - 0.12 * ax)), -0.02, 0.022) * smooth(
        0.225 - ax, -0.03, 0.05
    )
    full = jaw * (1 - 0.9 * at_most(lip * 1.3, 1))
    both = np.maximum(full, moustache)
    density = choose(kind == 1, 0.42 * both, 0)
    density = choose(kind == 2, 0.92 * moustache, density)
    density = choose(kind == 3, 0.92 * np.maximum(goatee, moustache), density)
    density = choose(kind == 4, 0.94 * both, density)
    density *= 0.75 + 0.25 * p.beard_length
    strand = 1 + 0.14 * np.sin(60 * head.x + 18 * y) * np.sin(34 * y + 5 * ax)
    light = head.light.shade(head.normal, (0.2, 0.2, 0.2), 0.62 * strand)
    beard = mix(head.colours.hair, head.colours.brow, F32(0.45))
    canvas.paint(alpha * density, beard * light + 0.012, label=2, threshold=0.55)


def _mouth(canvas: Canvas, p: Params, head: Head) -> None:
    alpha = head.alpha
    x, y, ax = head.x, head.y, head.ax
    px = head.px
    half = 0.165 + 0.012 * p.mouth_width + 0.042 * p.smile
    u = x / half
    u2 = at_most(u * u, 1.6)
    centre = head.mouth_y + (0.075 * p.smile - 0.022) * u2 - 0.012 * p.smile
    full = (1 + 0.16 * p.lip_fullness) * (1 - 0.10 * p.gender) * (1 - 0.28 * head.old)
    opening = smooth(p.mouth_open, 0.45, 1.0)
    gap = (0.012 + 0.075 * opening + 0.022 * p.smile * opening) * at_least(1 - u2, 0)
    arch = at_least(1 - u2, 0)
    bow = 1 - 0.28 * bell(u / 0.16, 0 * u[:1]) + 0.1 * bell((np.abs(u) - 0.3) / 0.2, 0 * u[:1])
    upper = centre + 0.5 * gap + 0.050 * full * np.sqrt(arch + 1e-4) * arch * bow
    lower = centre - 0.8 * gap - 0.066 * full * arch
    lips = np.minimum(upper - y, y - lower)
    mask = alpha * coverage(lips, px * 1.3) * (ax < half * 1.05)
    v = (y - centre) * F32(1 / 0.05)
    light = head.light.shade(
        head.normal, (0.3, 0.15, 0.15), choose(v > 0, 0.74, 1) * (1 - 0.25 * np.abs(v + 0.9) * 0.5)
    )
    gloss = 0.16 * bell(u / 0.4, (y - lower - 0.032) / 0.014) * head.light.key * (0.5 + p.makeup)
    canvas.paint(mask, head.colours.lip * light + gloss, label=5, threshold=0.45)
    inner = np.minimum(centre + 0.5 * gap - y, y - centre + 0.8 * gap)
    open_mask = alpha * coverage(inner, px * 1.2) * (ax < half)
    teeth = smooth(opening, 0.05, 0.4) * smooth(y - (centre - 0.15 * gap - 0.012), -0.012, 0.012)
    teeth = teeth * (0.55 + 0.45 * smooth(1 - np.abs(u), 0.05, 0.6))
    dark, white = _colour("3a1210"), _colour("efe6dc")
    canvas.paint(open_mask, mix(dark, white * (0.55 + 0.3 * head.light.key), teeth * 0.9), label=5)
    corner = bell((ax - half) / 0.03, (y - centre) / 0.022)
    canvas.paint(alpha * corner * 0.45, head.colours.skin * F32(0.16))
