"""A part of a synthesis network: the layers from one point of it to another."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import NamedTuple


class Point(NamedTuple):
    """A place between two operations of a synthesis network.

    Attributes:
        layers: Number of layers that run before it.
        colours: Whether the ToRGB that reads the last of them runs before it too.
    """

    layers: int
    colours: bool = True


START = Point(0)


@dataclass(frozen=True)
class Segment:
    """The operations from one point to another.

    Attributes:
        first: Number of its first layer.
        stop: Number of the first layer that it leaves out.
        colours: Numbers of the layers whose output its ToRGB layers read, in order. ``first - 1`` among them stands for
            a ToRGB that reads the segment's input.
    """

    first: int
    stop: int
    colours: tuple[int, ...]

    @classmethod
    def between(cls, start: Point, end: Point, colours: Collection[int]) -> Segment:
        """Returns the segment between two points.

        Args:
            start: Where it begins.
            end: Where it ends.
            colours: Numbers of all layers that a ToRGB reads.
        """
        first = start.layers if start.colours else start.layers - 1
        stop = end.layers if end.colours else end.layers - 1
        return cls(start.layers, end.layers, tuple(k for k in range(first, stop) if k in colours))

    @property
    def layers(self) -> range:
        """Numbers of its layers."""
        return range(self.first, self.stop)
