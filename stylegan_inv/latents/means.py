"""Differences of means: where codes with an attribute lie on average, seen from those without."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.latents.directions import Direction


def difference_of_means(
    high: Tensor,
    low: Tensor,
    name: str,
    *,
    unit: float = 1.0,
    generator_hash: str | None = None,
    made: Mapping[str, str] | None = None,
) -> Direction:
    """The direction from the mean of ``low`` to that of ``high``.

    Where row i of both is the same picture with and without the attribute, nothing else differs between the means.

    Args:
        high: (N, D).
        low: (M, D).
        name: of the attribute.
        unit: see `Direction`.
        generator_hash: of the generator.
        made: see `Direction`.
    """
    if high.ndim != 2 or low.ndim != 2 or high.shape[1] != low.shape[1] or not len(high) or not len(low):
        raise UserError(f"difference of means: got codes {tuple(high.shape)} and {tuple(low.shape)}, expected (N, D)")
    difference = (high.double().mean(0) - low.double().mean(0)).to(high)
    length = float(difference.norm())
    if length == 0:
        raise UserError(f"difference of means: the means of {name} are the same")
    return Direction(difference / length, name, unit=unit, generator_hash=generator_hash, made=dict(made or {}))
