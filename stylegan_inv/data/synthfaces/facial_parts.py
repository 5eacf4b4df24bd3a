"""What is drawn on a SynthFaces head: skin, eyes, brows, nose, mouth, beard, ears and glasses."""

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
    rgb,
    smooth,
)
from stylegan_inv.data.synthfaces.head import Head
from stylegan_inv.data.synthfaces.region_painting import paint_within


def _colour(name: str) -> Array:
    return rgb(name).reshape(3, 1, 1, 1)


def paint_face(canvas: Canvas, p: Params, head: Head) -> None:
    """Ears, then the head with all its features, in order."""
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
    paint_within(head.covers & (height > -0.2) & (height < 0.4), _eyes_and_brows, canvas, p, head)


def _ear(canvas: Canvas, p: Params, head: Head, side: int) -> None:
    cx, cy = head.ear(side)
    u, v = (canvas.x - cx) * F32(1 / 0.075), (canvas.y - cy - 0.25 * side * (canvas.x - cx)) * F32(1 / 0.15)
    r2 = u * u + v * v
    alpha = coverage((1 - np.sqrt(r2)) * F32(0.085), head.px)
    inner = 0.62 + 0.38 * smooth(r2, 0.1, 0.75)
    lit = np.clip(0.62 + 0.5 * side * head.lx, 0.2, 1.1) * (0.5 + 0.45 * head.key)
    red = np.array([1.03, 0.86, 0.82], dtype=F32).reshape(3, 1, 1, 1)
    canvas.paint(alpha, head.skin * red * head.tint * (inner * lit), label=1, interest=1.0)


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
    # nasolabial folds from the wings of the nose to beside the corners of the mouth: with age and with the smile
    t = (head.tip_y + 0.02 - y) / (head.tip_y - head.mouth_y)
    fold = ax - (head.nose_side + 0.035 + (0.14 + 0.03 * p.smile) * np.clip(t, 0, 1.4))
    dark = dark + (0.04 + 0.30 * old + 0.15 * p.smile) * bell(fold / 0.024, (t - 0.6) / 0.5)
    lines = np.cos((y - 0.36) * F32(2 * np.pi / 0.1))
    dark = dark + 0.17 * old * at_least(lines, 0) ** 2 * bell(ax / 0.26, (y - 0.36) / 0.13)
    crow = bell((ax - head.eye_x - 0.16) / 0.05, (y - head.eye_y) / 0.06) * (0.5 + 0.5 * np.cos(y * F32(110)))
    dark = dark + 0.28 * old * crow
    # the nose throws a soft shadow away from the light
    dark = dark + 0.42 * np.abs(head.lx) * bell((x + np.sign(head.lx) * 0.115) / 0.055, (y - head.tip_y - 0.05) / 0.10)
    light = head.shade(head.normal, (0.38, 0.22, 0.15), at_least(1 - dark, 0.15))
    rim = 1 - at_least(head.normal[2], 0)
    light = light * (1 - 0.35 * rim * rim * rim)
    red = np.stack([0.02 * blush, -0.16 * blush, -0.15 * blush]) + F32(1)
    shadow = np.stack([0.10 * dark, -0.10 * dark, -0.12 * dark]) + F32(1)
    spec = head.half_cosine(head.normal)
    spec = spec**2
    spec = spec**2
    spec = spec**2
    gloss = (0.05 + 0.10 * spec * spec) * spec * head.key * (1 - 0.3 * old)
    colour = head.skin * light * red * shadow + gloss * (1 - dark)
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
    light = head.shade(head.normal, (0.2, 0.2, 0.2), 0.62 * strand)
    beard = mix(head.hair, head.brow, F32(0.45))
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
    light = head.shade(head.normal, (0.3, 0.15, 0.15), choose(v > 0, 0.74, 1) * (1 - 0.25 * np.abs(v + 0.9) * 0.5))
    gloss = 0.16 * bell(u / 0.4, (y - lower - 0.032) / 0.014) * head.key * (0.5 + p.makeup)
    canvas.paint(mask, head.lip * light + gloss, label=5, threshold=0.45)
    inner = np.minimum(centre + 0.5 * gap - y, y - centre + 0.8 * gap)
    open_mask = alpha * coverage(inner, px * 1.2) * (ax < half)
    teeth = smooth(opening, 0.05, 0.4) * smooth(y - (centre - 0.15 * gap - 0.012), -0.012, 0.012)
    teeth = teeth * (0.55 + 0.45 * smooth(1 - np.abs(u), 0.05, 0.6))
    dark, white = _colour("3a1210"), _colour("efe6dc")
    canvas.paint(open_mask, mix(dark, white * (0.55 + 0.3 * head.key), teeth * 0.9), label=5)
    corner = bell((ax - half) / 0.03, (y - centre) / 0.022)
    canvas.paint(alpha * corner * 0.45, head.skin * F32(0.16))


def _eyes_and_brows(canvas: Canvas, p: Params, head: Head) -> None:
    _eyes(canvas, p, head)
    _brows(canvas, p, head)


def _eyes(canvas: Canvas, p: Params, head: Head) -> None:
    alpha = head.alpha
    x, y, ax, px = head.x, head.y, head.ax, head.px
    size = 0.113 * (1 + 0.07 * p.eye_size)
    side = choose(x >= 0, 1, -1)
    u = (ax - head.eye_x) / size
    v = (y - head.eye_y) / size - (0.05 + 0.055 * p.eye_tilt) * u
    u2 = at_most(u * u, 1.5)
    openness = (0.50 + 0.07 * p.eye_open) * (1 - 0.16 * p.smile) * (1 - 0.14 * head.old)
    skew = 1 + 0.12 * u
    upper = openness * (1 - u2) * (2 - skew)
    lower = -(0.30 - 0.06 * p.smile) * (1 - u2) * skew
    inside = np.minimum(upper - v, v - lower) * size
    eye = coverage(inside, px * 1.1) * alpha * (np.abs(u) < 1.08)
    crease = v - upper - 0.24 - 0.05 * u
    canvas.paint(alpha * 0.42 * bell(u / 0.85, crease / 0.10), head.skin * F32(0.22))
    white = (
        _colour("e9e2dc")
        * (0.42 + 0.34 * head.key)
        * (1 - 0.30 * smooth(v - upper, -0.45, 0.0))
        * (1 - 0.28 * smooth(np.abs(u), 0.55, 1.0))
        * head.tint
    )
    canvas.paint(eye, white, label=3, threshold=0.4)
    gaze = 0.16 * p.gaze * side * 0.6 - head.basis[1] * 0.42 * side
    iu, iv = u - gaze + 0.03, v - 0.09
    r = np.sqrt(iu * iu + iv * iv)
    radius = F32(0.43)
    iris = coverage((radius - r) * size, px * 1.1) * eye
    ring = head.iris * (1.25 - 0.85 * smooth(r, 0.26, 0.45)) * (0.75 + 0.5 * smooth(-iv, -0.2, 0.35))
    ring = ring * (1 - 0.45 * smooth(v - upper, -0.32, 0.0))
    canvas.paint(iris, ring * (0.55 + 0.5 * head.key))
    canvas.paint(coverage((0.19 - r) * size, px * 1.2) * eye, _colour("080606"))
    glint = bell((iu - side * 0.20 * np.sign(head.lx) * np.minimum(np.abs(head.lx) * 4, 1)) / 0.12, (iv - 0.19) / 0.12)
    canvas.paint(at_most(glint * 1.1, 1) * eye, F32(0.95))
    lash = np.abs(v - upper - 0.03) * size
    thick = 0.011 + 0.007 * p.makeup - 0.004 * p.gender
    lash_alpha = coverage(thick - lash, px * 1.4) * alpha * smooth(1.12 - np.abs(u), 0.0, 0.12)
    canvas.paint(lash_alpha * 0.9, _colour("140d0b"))
    under = bell((v - lower) / 0.09, 0 * v[:1]) * (np.abs(u) < 1.0)
    canvas.paint(alpha * under * 0.35, head.skin * np.array([0.5, 0.3, 0.28], dtype=F32).reshape(3, 1, 1, 1))


def _brows(canvas: Canvas, p: Params, head: Head) -> None:
    alpha = head.alpha
    ax, y = head.ax, head.y
    u = (ax - head.eye_x - 0.01) * F32(1 / 0.155)
    arch = head.eye_y + 0.150 + 0.014 * p.brow_height + 0.022 * p.brow_raise - 0.014 * p.gender
    curve = arch - 0.040 * u * u + 0.014 * u * (1 - 0.5 * p.gender)
    thick = (0.024 + 0.0045 * p.brow_thickness + 0.006 * p.gender) * (1.15 - 0.45 * np.clip(u, -1, 1.2))
    body = smooth(thick - np.abs(y - curve), -0.012, 0.012) * smooth(1.08 - np.abs(u), 0.0, 0.22)
    canvas.paint(alpha * body * (0.86 - 0.2 * head.old), head.brow * (0.45 + 0.4 * head.key), label=4, threshold=0.4)


def paint_glasses(canvas: Canvas, p: Params, head: Head) -> None:
    """Frames in a plane before the face, their arms on the head; sunglasses have tinted lenses."""
    gx, gy = head.at_depth(head.depth * 0.93 + 0.04)
    high = np.abs(gy - head.eye_y) < 0.4
    lenses = high & (np.abs(gx) < head.eye_x + 0.4)
    arms = high & head.covers
    paint_within((lenses | arms) & (p.eyeglasses > 0), _glasses, canvas, p, head)


def _glasses(canvas: Canvas, p: Params, head: Head) -> None:
    px = head.px
    gx, gy = head.at_depth(head.depth * 0.93 + 0.04)
    ax = np.abs(gx)
    wide, high = F32(0.175), 0.118 + 0.03 * (1 - p.glasses_shape)
    power = 2.0 + 3.0 * p.glasses_shape
    u, v = np.abs(ax - head.eye_x - 0.012) / wide, np.abs(gy - head.eye_y + 0.02) / high
    r = (u**power + v**power + 1e-6) ** (1 / power)
    # distance to the rim, to first order: the radius grows at about 1/size per unit of length
    rim = (r - 1) * 0.5 * (wide + high)
    thick = 0.010 + 0.014 * p.glasses_thickness
    frame = coverage(thick - np.abs(rim), px * 1.1)
    bridge = coverage(thick * 0.9 - np.abs(gy - head.eye_y - 0.035 + 0.5 * ax * ax), px * 1.1)
    bridge = bridge * (ax < head.eye_x - 0.15)
    frame = np.maximum(frame, bridge)
    arm = coverage(thick - np.abs(head.y - head.eye_y - 0.04), px * 1.2) * head.alpha
    arm = arm * smooth(head.ax - head.eye_x - 0.175, 0.0, 0.03) * smooth(head.z, -0.1, 0.0)
    frame = np.maximum(frame, arm)
    lens = coverage(-rim, px)
    dark = (p.eyeglasses > 1).astype(F32)
    shadow = bell((rim - 0.02) / 0.04, 0 * rim[:1]) * head.alpha * 0.22
    canvas.paint(shadow, head.skin * F32(0.25))
    tint = mix(_colour("1c1512"), _colour("141c26"), p.glasses_colour) * (1 + 0.8 * v)
    canvas.paint(lens * dark * 0.90, tint, label=6)
    glare = smooth(0.05 - np.abs(gx * 0.8 + gy - 0.06 - 0.3 * head.lx - choose(gx > 0, 0.18, -0.18)), -0.04, 0.04)
    canvas.paint(lens * glare * (0.13 + 0.10 * dark), F32(0.9))
    metal = mix(_colour("15110f"), _colour("5a2f1a"), smooth(p.glasses_colour, 0.4, 0.6))
    metal = mix(metal, _colour("a8905a"), smooth(p.glasses_colour, 0.75, 0.9))
    canvas.paint(frame * 0.95, metal * (0.6 + 0.4 * head.key), label=6, interest=1.0, threshold=0.4)
