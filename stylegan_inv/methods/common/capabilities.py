"""What some methods offer besides `invert`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, runtime_checkable

from torch import Tensor

from stylegan_inv.methods.common.base import Inversion, InversionMethod


@runtime_checkable
class StartsFromMethod(Protocol):
    """A method that refines the result of another one."""

    def start_from(self, start: InversionMethod) -> None:
        """Sets the method whose results are refined."""


@runtime_checkable
class MakesVariants(Protocol):
    """A method with multi-modal synthesis: several images for one input."""

    def variants(self, images: Tensor, z: Tensor, layers: Sequence[int], strength: float = 1.0) -> Inversion:
        """Returns reconstructions whose codes in ``layers`` come from ``z``."""
