"""Subsets of the pixels of a batch of images, so that layers are computed only where they can change an image."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray
AnyMaps = TypeVar("AnyMaps", bound="Maps")


class Pixels:
    """Some pixels of a batch of images, in the shape (1, 1, N) of a batch with one image of one row.

    Args:
        inside: Pixels to select, (B, H, W) bool.
    """

    def __init__(self, inside: Array) -> None:
        self.inside = inside
        self.shape = inside.shape
        self.index = np.flatnonzero(inside)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def counts(self) -> Array:
        """Number of selected pixels of each image, (B,)."""
        return np.count_nonzero(self.inside.reshape(len(self.inside), -1), axis=1)

    @cached_property
    def row(self) -> Array:
        """Row of each pixel, (N,)."""
        return self.index // self.shape[2] % self.shape[1]

    @cached_property
    def column(self) -> Array:
        """Column of each pixel, (N,)."""
        return self.index % self.shape[2]

    def of(self, value: Any) -> Any:
        """Gathers the values at the pixels.

        Args:
            value: Array (..., B, H, W), in which H or W or both may be 1; or a tuple of arrays, or :class:`Maps`.

        Returns:
            Array (..., 1, 1, N), or a tuple of arrays or :class:`Maps` with such arrays. Other values are returned
            unchanged.
        """
        if isinstance(value, tuple):
            return tuple(self.of(each) for each in value)
        if isinstance(value, Maps):
            return value.part(self)
        if not isinstance(value, np.ndarray):
            return value
        lead, (_, height, width) = value.shape[:-3], value.shape[-3:]
        flat = value.reshape(*lead, -1)
        if height == width == 1:
            flat = flat.repeat(self.counts, axis=-1)
        elif height == 1 or width == 1:
            flat = flat.take(self.row if width == 1 else self.column, axis=-1)
        else:
            flat = flat.take(self.index, axis=-1)
        return flat.reshape(*lead, 1, 1, -1)

    def put(self, part: Array, whole: Array) -> None:
        """Scatters values at the pixels, (..., 1, 1, N), to their positions in ``whole`` (..., B, H, W)."""
        for old, new in zip(whole.reshape(-1, *self.shape), part.reshape(-1, len(self)), strict=True):
            old[self.inside] = new


class Maps:
    """Base class of objects whose attributes are arrays of a batch of images."""

    def part(self: AnyMaps, pixels: Pixels) -> AnyMaps:
        """Returns the object with the values at some pixels; each attribute is gathered at its first use."""
        part = object.__new__(type(self))
        part.__dict__.update(_whole=self, _pixels=pixels)
        return part

    def __getattr__(self, name: str) -> Any:
        if "_whole" not in self.__dict__ or name.startswith("__"):
            raise AttributeError(name)
        value = self.__dict__[name] = self._pixels.of(getattr(self._whole, name))
        return value
