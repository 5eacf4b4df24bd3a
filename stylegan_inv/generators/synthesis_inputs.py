"""The inputs of a synthesis network besides its weights, checked: codes, styles and noise maps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Protocol

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of


class NoiseLayer(Protocol):
    """A layer that takes noise."""

    resolution: int
    noise_const: Tensor  # (r, r)


@dataclass
class StyleInputs:
    """What styles the layers of one call.

    Attributes:
        w: Codes ``(B, num_ws, w_dim)``; None where ``styles`` has a style for every layer.
        styles: Name of a layer -> style ``(B, C)`` that replaces the one computed from w.
        maps: Noise ``(1 or B, 1, r, r)`` or None for each layer that runs.
        rows: Rows of the codes, ``(B, w_dim)`` each; empty without codes.
    """

    w: Tensor | None
    styles: Mapping[str, Tensor]
    maps: list[Tensor | None]
    rows: tuple[Tensor, ...] = field(init=False)

    @property
    def like(self) -> Tensor:
        """A tensor with the batch, dtype and device of the call."""
        return next(iter(self.styles.values())) if self.w is None else self.w

    def __post_init__(self) -> None:
        # One unbind for all layers: its backward writes every row once, whereas a slice for each layer would add a
        # tensor of the size of w for each, and round differently where w has other gradients.
        self.rows = () if self.w is None else self.w.unbind(dim=1)

    def code(self, row: int) -> Tensor | None:
        """Returns one row of the codes, ``(B, w_dim)``; None without codes."""
        return self.rows[row] if self.rows else None

    def tensors(self) -> list[Tensor]:
        """Returns all tensors."""
        codes = [] if self.w is None else [self.w]
        return [*codes, *self.styles.values(), *(m for m in self.maps if m is not None)]

    def row(self, i: int) -> StyleInputs:
        """Returns the inputs of image ``i`` alone."""
        return StyleInputs(
            None if self.w is None else self.w[i : i + 1],
            {name: style[i : i + 1] for name, style in self.styles.items()},
            [m[i : i + 1] if m is not None and len(m) > 1 else m for m in self.maps],
        )


def check_codes(w: Tensor, num_ws: int, w_dim: int) -> None:
    """Raises a `UserError` unless ``w`` is ``(B, num_ws, w_dim)``."""
    if w.ndim != 3 or w.shape[1:] != (num_ws, w_dim):
        raise UserError(
            f"codes must have shape (B, {num_ws}, {w_dim}), got {tuple(w.shape)}; "
            f"expand one w per image by w[:, None].expand(-1, {num_ws}, -1)"
        )


def check_styles(
    styles: Mapping[str, Tensor], channels: Mapping[str, int], w: Tensor | None, needed: Sequence[str]
) -> None:
    """Checks the styles that replace those computed from w.

    Args:
        styles: Name of a layer -> ``(B, C)``.
        channels: Name of a layer -> C, for all layers.
        w: Codes, or None.
        needed: Names of the layers that run.

    Raises:
        UserError: A name that the network does not have, a tensor of another shape, or a layer without a style where
            there are no codes.
    """
    batch = len(w) if w is not None else len(next(iter(styles.values()), ()))
    for name, style in styles.items():
        one_of("synthesis.styles", name, channels)
        if tuple(style.shape) != (batch, channels[name]):
            raise UserError(
                f"synthesis.styles: the style of {name} is {tuple(style.shape)}, expected ({batch}, {channels[name]})"
            )
    missing = [] if w is not None else [name for name in needed if name not in styles]
    if missing:
        raise UserError(
            f"synthesis: got neither codes nor a style for {missing[0]}; give w, or a style for each of {list(needed)}"
        )


def noise_inputs(
    layers: Sequence[NoiseLayer], noise: str | Sequence[Tensor], batch: int, like: Tensor
) -> list[Tensor | None]:
    """Returns one noise map for each layer, ``(1 or B, 1, r, r)``, or None for no noise.

    Args:
        layers: Modules with ``resolution`` and ``noise_const`` ``(r, r)``.
        noise: ``"const"``, ``"random"``, ``"none"``, or a list with one map for each layer.
        batch: Number of images.
        like: A tensor with the dtype and device of random maps.

    Raises:
        UserError: Another word, another number of maps, or maps of another shape.
    """
    if isinstance(noise, str):
        if noise == "const":
            return [layer.noise_const[None, None] for layer in layers]
        if noise == "none":
            return [None] * len(layers)
        if noise == "random":
            return [
                torch.randn(batch, 1, layer.resolution, layer.resolution, dtype=like.dtype, device=like.device)
                for layer in layers
            ]
        raise UserError(f'noise must be "const", "random", "none" or a list of maps, got {noise!r}')
    maps = list(noise)
    if len(maps) != len(layers):
        raise UserError(f"expected {len(layers)} noise maps, one per layer, got {len(maps)}")
    for layer, given in zip(layers, maps, strict=True):
        r = layer.resolution
        if given.ndim != 4 or given.shape[0] not in (1, batch) or given.shape[1:] != (1, r, r):
            raise UserError(f"expected a noise map of shape (1 or {batch}, 1, {r}, {r}), got {tuple(given.shape)}")
    return list(maps)
