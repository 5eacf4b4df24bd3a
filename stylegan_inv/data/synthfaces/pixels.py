"""Parts of a batch of pictures: what a layer cannot change need not be computed."""

from __future__ import annotations

from functools import cached_property
from typing import Any, TypeVar

import numpy as np

Array = np.ndarray
AnyMaps = TypeVar("AnyMaps", bound="Maps")


class Pixels:
    """Some pixels of a batch of pictures, in the form of a batch of one picture with one row: (1, 1, N).

    Args:
        inside: (B, H, W), which.
    """

    def __init__(self, inside: Array) -> None:
        self.inside = inside
        self.shape = inside.shape
        self.index = np.flatnonzero(inside)

    def __len__(self) -> int:
        return len(self.index)

    @cached_property
    def counts(self) -> Array:
        """How many there are of each picture."""
        return np.count_nonzero(self.inside.reshape(len(self.inside), -1), axis=1)

    @cached_property
    def row(self) -> Array:
        """From above."""
        return self.index // self.shape[2] % self.shape[1]

    @cached_property
    def column(self) -> Array:
        """From the left."""
        return self.index % self.shape[2]

    def of(self, value: Any) -> Any:
        """(..., B, H, W), or constant along two of these, to (..., 1, 1, N); tuples and :class:`Maps` to the same."""
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
        """Writes what `of` gave, changed, to its places in (..., B, H, W)."""
        for old, new in zip(whole.reshape(-1, *self.shape), part.reshape(-1, len(self)), strict=True):
            old[self.inside] = new


class Maps:
    """Has arrays of a batch of pictures as attributes, and parts of the same kind."""

    def part(self: AnyMaps, pixels: Pixels) -> AnyMaps:
        """The same at some pixels; each attribute is gathered when it is first asked for."""
        part = object.__new__(type(self))
        part.__dict__.update(_whole=self, _pixels=pixels)
        return part

    def __getattr__(self, name: str) -> Any:
        if "_whole" not in self.__dict__ or name.startswith("__"):
            raise AttributeError(name)
        value = self.__dict__[name] = self._pixels.of(getattr(self._whole, name))
        return value
