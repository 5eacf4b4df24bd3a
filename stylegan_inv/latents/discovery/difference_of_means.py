"""Direction between the means of codes with and without an attribute."""

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
    """Returns the direction from the mean of ``low`` to the mean of ``high``.

    If both hold the same images with and without the attribute, the means differ in this attribute only.

    Args:
        high: Codes (N, D) with the attribute.
        low: Codes (M, D) without it.
        name: Name of the attribute.
        unit: See `Direction`.
        generator_hash: Hash of the generator.
        made: See `Direction`.

    Raises:
        UserError: The shapes do not match, or the means are equal.
    """
    if high.ndim != 2 or low.ndim != 2 or high.shape[1] != low.shape[1] or not len(high) or not len(low):
        raise UserError(f"difference of means: got codes {tuple(high.shape)} and {tuple(low.shape)}, expected (N, D)")
    difference = (high.double().mean(0) - low.double().mean(0)).to(high)
    length = float(difference.norm())
    if length == 0:
        raise UserError(f"difference of means: the means of {name} are the same")
    return Direction(difference / length, name, unit=unit, generator_hash=generator_hash, made=dict(made or {}))
