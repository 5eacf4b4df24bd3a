"""Linear and spherical interpolation between latent codes in Z, W or w+."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of

MODES = ("linear", "spherical")


def interpolate(a: Tensor, b: Tensor, t: float | Tensor, mode: str = "linear", center: Tensor | None = None) -> Tensor:
    """Returns the code at ``t`` between ``a`` (t = 0) and ``b`` (t = 1).

    Args:
        a: Codes z, w or w+ (..., D).
        b: Codes of the same shape.
        t: A number, or a tensor that broadcasts against (..., 1).
        mode: ``linear``, or ``spherical``: angle and length change at constant rates (slerp, Shoemake 1985), separately
            for each layer. In Z, where codes are close to a sphere around 0, this preserves typical lengths.
        center: Centre (D,) of the sphere; None for 0. In W it should be ``generator.w_avg``.

    Raises:
        UserError: The shapes differ, or the mode is unknown.
    """
    if a.shape != b.shape:
        raise UserError(f"interpolation between codes {tuple(a.shape)} and {tuple(b.shape)}: expected equal shapes")
    one_of("interpolation mode", mode, MODES)
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
    # If the codes are nearly parallel, the straight line is the limit; if they are opposite, no great circle is unique.
    on_sphere = (((1 - t) * angle).sin() * unit_a + (t * angle).sin() * unit_b) / sine.clamp_min(1e-6)
    unit = torch.where(sine > 1e-4, on_sphere, unit_a + t * (unit_b - unit_a))
    code: Tensor = unit * (length_a + t * (length_b - length_a))
    return code


def path(codes: Tensor, steps: int, mode: str = "linear", center: Tensor | None = None) -> Tensor:
    """Returns codes on a path through all of ``codes``.

    Args:
        codes: (N, ...).
        steps: Number of steps from each code to the next.
        mode: See `interpolate`.
        center: See `interpolate`.

    Returns:
        ((N - 1) * steps + 1, ...).

    Raises:
        UserError: There are fewer than two codes, or no step.
    """
    if len(codes) < 2 or steps < 1:
        raise UserError(f"a path through {len(codes)} codes in {steps} steps: expected at least two codes and one step")
    points = [
        interpolate(a, b, k / steps, mode, center)
        for a, b in zip(codes[:-1], codes[1:], strict=True)
        for k in range(steps)
    ]
    return torch.stack([*points, codes[-1]])
