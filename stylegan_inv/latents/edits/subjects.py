"""The pictures that are edited, and the tables that show the result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.variants.difference import tuned


@dataclass
class Subjects:
    """Codes of some pictures and what makes pictures of them.

    Attributes:
        generator: frozen.
        w: (N, L, D).
        names: one each.
        images: what was inverted, (N, 3, S, S); None for random codes.
        z: (N, Z) of random codes; None for inversions.
        noise: one (N, 1, r, r) a layer, that inversions found; None for the generator's own.
        differences: by what the generator that was tuned for each differs, see `generators.difference`; None: nothing.
        batch_size: pictures that are made at once.
    """

    generator: Generator
    w: Tensor
    names: list[str]
    images: Tensor | None = None
    z: Tensor | None = None
    noise: list[Tensor] | None = None
    differences: list[Mapping[str, Tensor]] | None = None
    batch_size: int = 16

    def __len__(self) -> int:
        return len(self.names)

    @torch.no_grad()
    def render(self, w: Tensor, rows: Sequence[int] | None = None, noise: list[Tensor] | None = None) -> Tensor:
        """Images (B, 3, R, R) in [-1, 1] of codes (B, L, D), on the CPU.

        Args:
            w: codes.
            rows: whose noise and tuned generator each has; None: those of the subject with the same number.
            noise: maps (1, 1, r, r) instead of the subjects' own.
        """
        of = torch.arange(len(w)) if rows is None else torch.tensor(rows)
        if self.differences is None:
            return self._with(self.generator, w, of, noise)
        out = torch.empty(len(w), self.generator.img_channels, self.generator.resolution, self.generator.resolution)
        for row in of.unique():
            network = tuned(self.generator, self.differences[int(row)])
            out[of == row] = self._with(network, w[of == row], of[of == row], noise)
        return out

    def _with(self, network: Generator, w: Tensor, of: Tensor, noise: list[Tensor] | None) -> Tensor:
        out = []
        for part, rows in zip(w.split(self.batch_size), of.split(self.batch_size), strict=True):
            maps: Any = noise or "const"
            if noise is None and self.noise is not None:
                maps = [layer[rows] for layer in self.noise]
            out.append(network.synthesis(part, noise=maps).clamp(-1, 1).cpu())
        return torch.cat(out)


@dataclass
class Sheet:
    """One table of pictures.

    Attributes:
        columns: caption -> (N, 1 or 3, R, R).
        rows: N captions.
        name: of the file.
    """

    columns: dict[str, Tensor]
    rows: list[str]
    name: str = "strip"


class Edit(Protocol):
    """What every edit offers."""

    name: str
    #: whether a film plays backwards after it played forwards.
    there_and_back: bool

    @property
    def films(self) -> bool:
        """Whether it has a film."""

    def check(self, generator: Generator, count: int, random: bool) -> None:
        """Raise a UserError if it cannot be done with this generator; before the pictures are inverted.

        Args:
            generator: the one.
            count: pictures.
            random: whether they are random samples (with a z) and no inversions.
        """

    def sheets(self, subjects: Subjects) -> list[Sheet]:
        """The tables that show the edit."""

    def frames(self, subjects: Subjects, count: int) -> Tensor:
        """A film of it, about ``count`` pictures long: (F, N, 3, R, R)."""


def numbers(value: Any, key: str) -> list[float]:
    """A number or a list of them, as floats.

    Raises:
        UserError: something else, or numbers that are not finite.
    """
    found = list(value) if isinstance(value, (list, tuple)) else [value]
    for one in found:
        if isinstance(one, bool) or not isinstance(one, (int, float)) or not math.isfinite(one):
            raise UserError(f"{key}={value}: got {one!r}, expected a number or a list of numbers such as [-3,0,3]")
    if not found or len(set(found)) != len(found):
        raise UserError(f"{key}={value}: expected at least one number, each once")
    return [float(one) for one in found]


def whole(value: Any, key: str, least: int) -> int:
    """A whole number of at least ``least``, or a UserError."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{key}={value}: expected a whole number of at least {least}")
    return value


def need(count: int, least: int, name: str) -> None:
    """Raise a UserError where there are fewer pictures than needed."""
    if count < least:
        raise UserError(
            f"edit={name}: got {count} picture, it needs at least {least}; give a folder, or samples={least}"
        )
