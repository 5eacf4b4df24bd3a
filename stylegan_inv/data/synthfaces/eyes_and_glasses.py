"""Eyes, eyebrows and glasses of a SynthFaces head."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.canvas import (
    F32,
    Array,
    Canvas,
    Params,
    at_most,
    bell,
    choose,
    coverage,
    mix,
    paint_within,
    rgb,
    smooth,
)
from stylegan_inv.data.synthfaces.head import Head


def _colour(name: str) -> Array:
    return rgb(name).reshape(3, 1, 1, 1)


def paint_eyes_and_brows(canvas: Canvas, p: Params, head: Head) -> None:
    """Paints the eyes, then the eyebrows."""
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
    canvas.paint(alpha * 0.42 * bell(u / 0.85, crease / 0.10), head.colours.skin * F32(0.22))
    white = (
        _colour("e9e2dc")
        * (0.42 + 0.34 * head.light.key)
        * (1 - 0.30 * smooth(v - upper, -0.45, 0.0))
        * (1 - 0.28 * smooth(np.abs(u), 0.55, 1.0))
        * head.light.tint
    )
    canvas.paint(eye, white, label=3, threshold=0.4)
    gaze = 0.16 * p.gaze * side * 0.6 - head.basis[1] * 0.42 * side
    iu, iv = u - gaze + 0.03, v - 0.09
    r = np.sqrt(iu * iu + iv * iv)
    radius = F32(0.43)
    iris = coverage((radius - r) * size, px * 1.1) * eye
    ring = head.colours.iris * (1.25 - 0.85 * smooth(r, 0.26, 0.45)) * (0.75 + 0.5 * smooth(-iv, -0.2, 0.35))
    ring = ring * (1 - 0.45 * smooth(v - upper, -0.32, 0.0))
    canvas.paint(iris, ring * (0.55 + 0.5 * head.light.key))
    canvas.paint(coverage((0.19 - r) * size, px * 1.2) * eye, _colour("080606"))
    glint = bell(
        (iu - side * 0.20 * np.sign(head.light.lx) * np.minimum(np.abs(head.light.lx) * 4, 1)) / 0.12,
        (iv - 0.19) / 0.12,
    )
    canvas.paint(at_most(glint * 1.1, 1) * eye, F32(0.95))
    lash = np.abs(v - upper - 0.03) * size
    thick = 0.011 + 0.007 * p.makeup - 0.004 * p.gender
    lash_alpha = coverage(thick - lash, px * 1.4) * alpha * smooth(1.12 - np.abs(u), 0.0, 0.12)
    canvas.paint(lash_alpha * 0.9, _colour("140d0b"))
    under = bell((v - lower) / 0.09, 0 * v[:1]) * (np.abs(u) < 1.0)
    canvas.paint(alpha * under * 0.35, head.colours.skin * np.array([0.5, 0.3, 0.28], dtype=F32).reshape(3, 1, 1, 1))


def _brows(canvas: Canvas, p: Params, head: Head) -> None:
    alpha = head.alpha
    ax, y = head.ax, head.y
    u = (ax - head.eye_x - 0.01) * F32(1 / 0.155)
    arch = head.eye_y + 0.150 + 0.014 * p.brow_height + 0.022 * p.brow_raise - 0.014 * p.gender
    curve = arch - 0.040 * u * u + 0.014 * u * (1 - 0.5 * p.gender)
    thick = (0.024 + 0.0045 * p.brow_thickness + 0.006 * p.gender) * (1.15 - 0.45 * np.clip(u, -1, 1.2))
    body = smooth(thick - np.abs(y - curve), -0.012, 0.012) * smooth(1.08 - np.abs(u), 0.0, 0.22)
    canvas.paint(
        alpha * body * (0.86 - 0.2 * head.old),
        head.colours.brow * (0.45 + 0.4 * head.light.key),
        label=4,
        threshold=0.4,
    )


def paint_glasses(canvas: Canvas, p: Params, head: Head) -> None:
    """Paints glasses: frames in a plane in front of the face, temples on the head, tinted lenses for sunglasses."""
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
    # First-order distance to the rim: the radius grows by about 1 / size per unit of length.
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
    canvas.paint(shadow, head.colours.skin * F32(0.25))
    tint = mix(_colour("1c1512"), _colour("141c26"), p.glasses_colour) * (1 + 0.8 * v)
    canvas.paint(lens * dark * 0.90, tint, label=6)
    glare = smooth(0.05 - np.abs(gx * 0.8 + gy - 0.06 - 0.3 * head.light.lx - choose(gx > 0, 0.18, -0.18)), -0.04, 0.04)
    canvas.paint(lens * glare * (0.13 + 0.10 * dark), F32(0.9))
    metal = mix(_colour("15110f"), _colour("5a2f1a"), smooth(p.glasses_colour, 0.4, 0.6))
    metal = mix(metal, _colour("a8905a"), smooth(p.glasses_colour, 0.75, 0.9))
    canvas.paint(frame * 0.95, metal * (0.6 + 0.4 * head.light.key), label=6, interest=1.0, threshold=0.4)
