"""Obstacles that cover a part of a SynthFaces portrait: microphone, hand, scarf, text and flat shape."""

from __future__ import annotations

import numpy as np

from stylegan_inv.data.synthfaces.canvas import F32, Array, Canvas, bell, coverage, hsv, ramp, rgb, smooth


def draw_obstacles(canvas: Canvas, obstacles: Array) -> None:
    """Paints obstacles in front of the face, removes them from the mask and adds them to the obstacle mask.

    Args:
        canvas: Canvas to paint on.
        obstacles: Result (B, 10) of :func:`.obstacle_parameters`.
    """
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
        label[np.broadcast_to(alpha > 0.5, label.shape)] = 0  # an obstacle is not a part of the face
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
    for fx, length in ((-0.2, 0.42), (-0.068, 0.52), (0.068, 0.5), (0.2, 0.4)):
        lean = fx * 0.35
        fu = u - fx - lean * np.clip(v / 0.5, 0, 1)
        d = 0.07 - np.sqrt(fu**2 + np.maximum(np.maximum(v - length, -v), 0) ** 2)
        shade = np.where(d > best, d, shade)
        best = np.maximum(best, d)
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
