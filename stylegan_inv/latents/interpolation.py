"""Ways between codes: straight and on a sphere, in Z, W or W+."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError

MODES = ("linear", "spherical")


def interpolate(a: Tensor, b: Tensor, t: float | Tensor, mode: str = "linear", center: Tensor | None = None) -> Tensor:
    """The code at ``t`` between ``a`` (t = 0) and ``b`` (t = 1).

    Args:
        a: (..., D): z, w or w+.
        b: same shape.
        t: a number, or a tensor that broadcasts against (..., 1).
        mode: ``linear``, or ``spherical``: angle and length run evenly (slerp, Shoemake 1985), for each layer by
            itself. In Z, where codes lie near a sphere around 0, that keeps to typical lengths.
        center: of the sphere, (D,); None for 0. In W that is ``generator.w_avg``: 0 means nothing there.

    Raises:
        UserError: other shapes, or another mode.
    """
    if a.shape != b.shape:
        raise UserError(f"interpolation between codes {tuple(a.shape)} and {tuple(b.shape)}: expected equal shapes")
    if mode not in MODES:
        raise UserError(f"interpolation mode={mode}: expected {' or '.join(MODES)}")
    t = torch.as_tensor(t, dtype=a.dtype, device=a.device)
    if mode == "linear":
        return a + t * (b - a)
    middle = torch.zeros((), dtype=a.dtype, device=a.device) if center is None else center
    return middle + _slerp(a - middle, b - middle, t)


def _slerp(a: Tensor, b: Tensor, t: Tensor) -> Tensor:
    length_a, length_b = a.norm(dim=-1, keepdim=True), b.norm(dim=-1, keepdim=True)
    unit_a, unit_b = a / length_a.clamp_min(1e-12), b / length_b.clamp_min(1e-12)
    angle = 2 * torch.atan2((unit_a - unit_b).norm(dim=-1, keepdim=True), (unit_a + unit_b).norm(dim=-1, keepdim=True))
    sine = angle.sin()
    # Nearly parallel (or opposite, where no great circle is the one): the straight line, which is the limit.
    on_sphere = (((1 - t) * angle).sin() * unit_a + (t * angle).sin() * unit_b) / sine.clamp_min(1e-6)
    unit = torch.where(sine > 1e-4, on_sphere, unit_a + t * (unit_b - unit_a))
    return unit * (length_a + t * (length_b - length_a))


def path(codes: Tensor, steps: int, mode: str = "linear", center: Tensor | None = None) -> Tensor:
    """Codes on the way through all of ``codes`` (N, ...), ``steps`` from each to the next: ((N - 1) * steps + 1, ...).

    Raises:
        UserError: fewer than two codes, or no step.
    """
    if len(codes) < 2 or steps < 1:
        raise UserError(f"a path through {len(codes)} codes in {steps} steps: expected at least two codes and one step")
    points = [
        interpolate(a, b, k / steps, mode, center)
        for a, b in zip(codes[:-1], codes[1:], strict=True)
        for k in range(steps)
    ]
    return torch.stack([*points, codes[-1]])
