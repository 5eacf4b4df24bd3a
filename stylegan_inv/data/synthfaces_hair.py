"""The hair of a SynthFaces portrait: a shell round the cranium, and curtains for the long styles."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces_head import Head
from stylegan_inv.data.synthfaces_layers import F32, Array, Canvas, Params, bell, coverage, smooth

# One row a style: thickness, opacity, hairline y, how the hairline falls sideways from the part, end of the side hair,
# how far forward (head z) the side hair comes, where the curtain ends (0.4: none), bumpiness of the outline
_STYLES = np.array(
    [
        (0.004, 0.00, 0.60, 0.30, 0.00, -0.05, 0.4, 0.0),  # bald
        (0.020, 0.80, 0.48, 0.60, -0.02, 0.22, 0.4, 0.0),  # buzz
        (0.075, 1.00, 0.46, 0.70, -0.06, 0.24, 0.4, 0.2),  # short
        (0.095, 1.00, 0.46, 0.75, -0.05, 0.24, 0.4, 0.1),  # side part
        (0.085, 1.00, 0.27, 0.05, -0.20, 0.14, -0.15, 0.1),  # fringe
        (0.095, 1.00, 0.52, 0.95, -0.50, 0.20, -0.52, 0.0),  # bob
        (0.085, 1.00, 0.55, 1.00, -1.20, 0.20, -1.15, 0.0),  # long
        (0.190, 1.00, 0.44, 0.35, -0.30, 0.14, -0.05, 1.0),  # curly
        (0.050, 1.00, 0.52, 0.80, -0.02, 0.20, 0.4, 0.0),  # bun
    ],
    dtype=F32,
)


class _Hair:
    def __init__(self, p: Params) -> None:
        row = _STYLES[p.hair_style.reshape(-1).astype(int)].T[:, :, None, None]
        (self.thick, self.opacity, self.line, self.fall, self.end, self.front, self.curtain, self.bumpy) = row
        length = p.hair_length
        self.thick = self.thick * (0.7 + 0.6 * length)
        self.line = self.line + 0.02 * p.forehead
        self.curtain = np.where(self.curtain < 0.3, self.curtain + 0.22 * (0.5 - length), self.curtain).astype(F32)
        self.part = np.where(p.hair_style == 2, 0.0, 0.2 * p.hair_part).astype(F32)


def _strands(head: Head, hair: _Hair, p: Params, angle: Array, along: Array) -> Array:
    """Smooth streaks along the hair, in about [-1, 1]; the fine ones only where the pixels can hold them."""
    wave = 1.6 * p.hair_wave * np.sin(7 * along + 3 * p.hair_part)
    streak = 0.6 * np.sin(17 * angle + wave + 4 * p.hair_part) + 0.4 * np.sin(37 * angle - wave + 1.3)
    fine = float(np.clip((0.05 - head.px) / 0.03, 0, 1))
    if fine > 0:
        streak = streak + 0.5 * fine * np.sin(83 * angle + 2 * wave)
    return streak


def _hair_colour(head: Head, normal: tuple[Array, Array, Array], streak: Array, dark: Array | float) -> Array:
    light = head.shade(normal, (0.25, 0.25, 0.25), (1 + 0.26 * streak) * dark)
    spec = head.half_cosine(normal) ** 2
    spec = spec * spec
    spec = spec * spec * spec
    gloss = (0.10 * spec * (1 + 0.6 * streak)) * head.key * dark
    return head.hair * light + gloss * (0.25 + 0.75 * head.hair / (head.hair.max(axis=0, keepdims=True) + 0.02)) * (
        0.3 + head.hair
    )


def _curtain(canvas: Canvas, p: Params, head: Head, hair: _Hair) -> tuple[Array, Array, Array, Array]:
    """2-D outline of the hair that hangs down: edge distance, x from its axis over its width, streaks."""
    s = head.basis[1]
    cx = s * -0.12 - head.shift[0]
    xs = canvas.x - cx
    y = canvas.y
    drop = np.clip(0.35 - y, 0, 2)
    width = (
        head.width
        + hair.thick * 0.95
        + 0.09 * drop * (1 - 0.35 * drop)
        + 0.02 * np.sin(5.5 * y + 3 * p.hair_part) * p.hair_wave
    )
    # round lower corners
    end = hair.curtain + 0.10 * (np.abs(xs) / width) ** 4 + 0.015 * np.sin(9 * xs + 5 * p.hair_part)
    distance = np.minimum(width - np.abs(xs), y - end)
    # above the ears the outline is round, inside that of the cap
    high = np.clip((y - 0.02) * F32(1 / 0.80), 0, 1)
    distance = np.minimum(distance, np.minimum(width * np.sqrt(1 - high * high) - np.abs(xs), 0.72 - y))
    return distance, xs / width, xs, drop


def hair_behind(canvas: Canvas, p: Params, head: Head) -> None:
    """The hair behind neck and shoulders."""
    hair = head.hair_model = _Hair(p)  # type: ignore[attr-defined]
    rows = (hair.curtain < 0.3).reshape(-1)
    if not rows.any():
        return
    distance, u, xs, drop = _curtain(canvas, p, head, hair)
    alpha = coverage(distance, head.px) * (hair.curtain < 0.3)
    u = np.clip(u, -1, 1)
    nz = np.sqrt(np.maximum(1 - u * u, 0.05))
    streak = _strands(head, hair, p, xs * 1.5, canvas.y + 0 * xs)
    colour = _hair_colour(head, (u, 0.1 + 0 * u, nz), streak, 0.42 + 0.1 * u * u)
    canvas.paint(alpha, colour, label=2, interest=1.0)


def hair_front(canvas: Canvas, p: Params, head: Head) -> None:
    """Bun, cap and the strands that fall before the ears."""
    hair: _Hair = head.hair_model  # type: ignore[attr-defined]
    px, y2 = head.px, canvas.y
    bun = (p.hair_style == 8).astype(F32)
    if bun.any():
        cx, cy = head.project(0 * bun, 0.80 + hair.thick, -0.25 + 0 * bun)
        r = 0.15 + 0.05 * p.hair_length
        u, v = (canvas.x - cx) / r, (y2 - cy) / (0.8 * r)
        r2 = u * u + v * v
        nz = np.sqrt(np.maximum(1 - r2, 0.05))
        colour = _hair_colour(head, (u, v, nz), np.sin(7 * u + 5 * v), 0.85)
        canvas.paint(bun * coverage((1 - np.sqrt(r2)) * r * 0.9, px), colour, label=2, interest=1.0)

    distance, x, y, z, normal = head.intersect(
        (0.0, 0.04, -0.03),
        head.width + hair.thick * 0.9,
        head.top + hair.thick,
        head.bottom,
        head.depth + hair.thick * 0.9,
        steps=2,
    )
    angle = (x - hair.part) / (1.22 - y)
    if hair.bumpy.any():
        swirl = np.arctan2(y - 0.1, x)
        distance = distance + hair.bumpy * 0.018 * np.sin(15 * swirl + 3 * p.hair_wave)
    along = x - hair.part
    line = hair.line + 0.05 - hair.fall * along * along
    fringe = p.hair_style == 4
    line = np.where(fringe, line + 0.012 * np.sin(24 * x + 4 * p.hair_part), line)
    # receding temples with age
    line = line + 0.05 * head.old * (1 - fringe) * np.minimum(np.abs(x) * 3, 1)
    top = (y - line) * 0.8
    ax = np.abs(x)
    sides = np.minimum(hair.front - z + 0.05 * np.sin(6 * y), y - hair.end)
    where = np.maximum(top, sides)
    soft = 0.022 + 0.6 * px
    inside = smooth(where, -soft, soft)
    covered = coverage(distance, px)
    canvas.colour *= 1 - 0.30 * smooth(where, -0.10, 0.0) * (1 - inside) * coverage(head.distance, px) * hair.opacity
    streak = _strands(head, hair, p, angle, y)
    if hair.bumpy.any():
        curls = np.sin(19 * x + 2 * p.hair_part + 1.5 * np.sin(9 * y)) * np.sin(17 * y + 1.5 * np.sin(11 * x))
        streak = streak + hair.bumpy * (1.1 * curls - 0.7 * streak)
    view = head.to_view(*normal)
    root = 0.72 + 0.28 * smooth(where, 0.0, 0.16)
    part = 1 - 0.3 * bell((x - hair.part) / 0.025, 0 * x[:1]) * ((p.hair_style == 3) | (p.hair_style > 4))
    colour = _hair_colour(head, view, streak, root * part * (0.75 + 0.25 * np.minimum(ax + 0.6, 1)))
    canvas.paint(covered * inside * hair.opacity, colour, label=2, interest=1.0)

    if (hair.curtain < 0.3).any():
        # locks that hang before the ears and over the shoulders
        edge, u, xs, drop = _curtain(canvas, p, head, hair)
        inner = np.abs(xs) - (head.width * (0.93 - 0.30 * smooth(drop, 0.75, 1.3)))
        lock = coverage(edge, px) * smooth(inner, -0.03, 0.03) * (hair.curtain < 0.3) * smooth(0.25 - y2, -0.15, 0.1)
        u = np.clip(u, -1, 1)
        nz = np.sqrt(np.maximum(1 - u * u, 0.1))
        streak = _strands(head, hair, p, xs * 1.5, y2 + 0 * xs)
        colour = _hair_colour(head, (u * 0.8, 0.1 + 0 * u, nz), streak, 0.62 + 0.38 * smooth(inner, 0.0, 0.12))
        canvas.paint(lock, colour, label=2, interest=1.0)
