"""The hair of a SynthFaces portrait: a shell around the cranium, and curtains of hair for the long styles."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.canvas import (
    F32,
    Array,
    Canvas,
    Params,
    at_least,
    at_most,
    bell,
    coverage,
    paint_within,
    smooth,
)
from stylegan_inv.data.synthfaces.head import Head


def _strands(head: Head, p: Params, angle: Array, along: Array) -> Array:
    """Returns smooth streaks along the hair, in about [-1, 1]; fine ones only where the resolution suffices."""
    wave = 1.6 * p.hair_wave * np.sin(7 * along + 3 * p.hair_part)
    streak = 0.6 * np.sin(17 * angle + wave + 4 * p.hair_part) + 0.4 * np.sin(37 * angle - wave + 1.3)
    fine = float(np.clip((0.05 - head.px) / 0.03, 0, 1))
    if fine > 0:
        streak = streak + 0.5 * fine * np.sin(83 * angle + 2 * wave)
    return streak


def _hair_colour(head: Head, normal: tuple[Array, Array, Array], streak: Array, dark: Array | float) -> Array:
    light = head.light.shade(normal, (0.25, 0.25, 0.25), (1 + 0.26 * streak) * dark)
    spec = head.light.half_cosine(normal) ** 2
    spec = spec * spec
    spec = spec * spec * spec
    gloss = (0.10 * spec * (1 + 0.6 * streak)) * head.light.key * dark
    return head.colours.hair * light + gloss * (
        0.25 + 0.75 * head.colours.hair / (head.colours.hair.max(axis=0, keepdims=True) + 0.02)
    ) * (0.3 + head.colours.hair)


def _hangs(canvas: Canvas, head: Head) -> Array:
    """Returns where hair can hang down next to the face, (B, R, R) bool."""
    hair = head.style
    wide = np.abs(canvas.x - _axis(head)) < head.width + hair.thick + 0.25
    return hair.hangs & wide & (canvas.y < 0.75) & (canvas.y > hair.curtain - 0.1)


def _axis(head: Head) -> Array:
    return head.basis[1] * -0.12 - head.shift[0]


def _curtain(canvas: Canvas, p: Params, head: Head) -> tuple[Array, Array, Array, Array]:
    """Computes the 2-D outline of the hair that hangs down.

    Returns:
        Signed distance to the outline (positive inside), x relative to the half width, x from the axis, and the height
        below the upper end.
    """
    xs, y, hair = canvas.x - _axis(head), canvas.y, head.style
    drop = np.clip(0.35 - y, 0, 2)
    width = (
        head.width
        + hair.thick * 0.95
        + 0.09 * drop * (1 - 0.35 * drop)
        + 0.02 * np.sin(5.5 * y + 3 * p.hair_part) * p.hair_wave
    )
    # The lower corners are round.
    u = xs / width
    u2 = u * u
    end = hair.curtain + 0.10 * u2 * u2 + 0.015 * np.sin(9 * xs + 5 * p.hair_part)
    distance = np.minimum(width - np.abs(xs), y - end)
    # Above the ears the outline is round, and inside that of the cap.
    high = np.clip((y - 0.02) * F32(1 / 0.80), 0, 1)
    distance = np.minimum(distance, np.minimum(width * np.sqrt(1 - high * high) - np.abs(xs), 0.72 - y))
    return distance, u, xs, drop


def hair_behind(canvas: Canvas, p: Params, head: Head) -> None:
    """Paints the hair behind neck and shoulders."""
    paint_within(_hangs(canvas, head), _behind, canvas, p, head)


def _behind(canvas: Canvas, p: Params, head: Head) -> None:
    distance, u, xs, _ = _curtain(canvas, p, head)
    u = np.clip(u, -1, 1)
    nz = np.sqrt(at_least(1 - u * u, 0.05))
    streak = _strands(head, p, xs * 1.5, canvas.y + 0 * xs)
    colour = _hair_colour(head, (u, 0.1 + 0 * u, nz), streak, 0.42 + 0.1 * u * u)
    canvas.paint(coverage(distance, head.px), colour, label=2, interest=1.0)


def hair_front(canvas: Canvas, p: Params, head: Head) -> None:
    """Paints bun, cap, and the locks that hang in front of the ears."""
    hair = head.style
    cx, cy = _bun_centre(head)
    near = (np.abs(canvas.x - cx) < 0.26) & (np.abs(canvas.y - cy) < 0.22)
    paint_within(near & hair.bun, _bun, canvas, p, head)
    around = (head.distance > -1.5 * hair.thick - 0.1) & (head.y > hair.end - 0.25) & (hair.opacity > 0)
    paint_within(around, _cap, canvas, p, head)
    locks = (canvas.y < 0.42) & (np.abs(canvas.x - _axis(head)) > head.width * 0.6 - 0.05)
    paint_within(_hangs(canvas, head) & locks, _locks, canvas, p, head)


def _bun_centre(head: Head) -> tuple[Array, Array]:
    zero = 0 * head.style.thick
    return head.project(zero, 0.80 + head.style.thick, -0.25 + zero)


def _bun(canvas: Canvas, p: Params, head: Head) -> None:
    cx, cy = _bun_centre(head)
    r = 0.15 + 0.05 * p.hair_length
    u, v = (canvas.x - cx) / r, (canvas.y - cy) / (0.8 * r)
    r2 = u * u + v * v
    nz = np.sqrt(at_least(1 - r2, 0.05))
    colour = _hair_colour(head, (u, v, nz), np.sin(7 * u + 5 * v), 0.85)
    canvas.paint(coverage((1 - np.sqrt(r2)) * r * 0.9, head.px), colour, label=2, interest=1.0)


def _cap(canvas: Canvas, p: Params, head: Head) -> None:
    hair, px = head.style, head.px
    distance, x, y, z, normal = head.intersect(
        (0.0, 0.04, -0.03),
        head.width + hair.thick * 0.9,
        head.top + hair.thick,
        head.bottom,
        head.depth + hair.thick * 0.9,
        steps=2,
    )
    angle = (x - hair.part_x) / (1.22 - y)
    bumpy = hair.bumpy > 0
    swirl = np.arctan2(y[bumpy] - 0.1, x[bumpy])
    distance[bumpy] += (hair.bumpy * 0.018)[bumpy] * np.sin(15 * swirl + (3 * p.hair_wave)[bumpy])
    along = x - hair.part_x
    line = hair.line + 0.05 - hair.fall * along * along
    if hair.fringe.any():
        line = line + hair.fringe * F32(0.012) * np.sin(24 * x + 4 * p.hair_part)
    # The hairline recedes at the temples with age.
    line = line + 0.05 * head.old * ~hair.fringe * at_most(np.abs(x) * 3, 1)
    top = (y - line) * 0.8
    ax = np.abs(x)
    sides = np.minimum(hair.front - z + 0.05 * np.sin(6 * y), y - hair.end)
    where = np.maximum(top, sides)
    soft = 0.022 + 0.6 * px
    inside = smooth(where, -soft, soft)
    covered = coverage(distance, px)
    canvas.colour *= 1 - 0.30 * smooth(where, -0.10, 0.0) * (1 - inside) * head.alpha * hair.opacity
    streak = _strands(head, p, angle, y)
    x, y, fine = x[bumpy], y[bumpy], streak[bumpy]
    curls = np.sin(19 * x + (2 * p.hair_part)[bumpy] + 1.5 * np.sin(9 * y)) * np.sin(17 * y + 1.5 * np.sin(11 * x))
    streak[bumpy] += hair.bumpy[bumpy] * (1.1 * curls - 0.7 * fine)
    view = head.to_view(*normal)
    root = 0.72 + 0.28 * smooth(where, 0.0, 0.16)
    part = 1 - 0.3 * bell(along / 0.025, 0 * along[:1]) * hair.parted
    colour = _hair_colour(head, view, streak, root * part * (0.75 + 0.25 * at_most(ax + 0.6, 1)))
    canvas.paint(covered * inside * hair.opacity, colour, label=2, interest=1.0)


def _locks(canvas: Canvas, p: Params, head: Head) -> None:
    """Paints the hair that hangs in front of the ears and over the shoulders."""
    edge, u, xs, drop = _curtain(canvas, p, head)
    inner = np.abs(xs) - (head.width * (0.93 - 0.30 * smooth(drop, 0.75, 1.3)))
    lock = coverage(edge, head.px) * smooth(inner, -0.03, 0.03) * smooth(0.25 - canvas.y, -0.15, 0.1)
    u = np.clip(u, -1, 1)
    nz = np.sqrt(at_least(1 - u * u, 0.1))
    streak = _strands(head, p, xs * 1.5, canvas.y + 0 * xs)
    colour = _hair_colour(head, (u * 0.8, 0.1 + 0 * u, nz), streak, 0.62 + 0.38 * smooth(inner, 0.0, 0.12))
    canvas.paint(lock, colour, label=2, interest=1.0)
