"""Interfaces of encoders, which methods check with ``isinstance``."""

from __future__ import annotations

from typing import Protocol, runtime_checkable

from torch import Tensor


@runtime_checkable
class Encoder(Protocol):
    """A network that maps images to latent codes.

    Attributes:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: Channels of the input; 6 for an image concatenated with its reconstruction.
    """

    num_ws: int
    w_dim: int
    in_channels: int

    def __call__(self, x: Tensor, /) -> Tensor:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to codes ``(B, L, D)``."""


@runtime_checkable
class ProgressiveEncoder(Protocol):
    """An encoder with e4e's rule (Tov et al. 2021, section 4): one code w and an offset for each further layer.

    Attributes:
        stage: Index of the last layer whose offset is active.
    """

    stage: int

    def set_stage(self, stage: int) -> None:
        """Activates the offsets of layers 1 to ``stage``.

        Args:
            stage: Index of the last layer; 0 gives a single w, and L - 1 or more activates all offsets.

        Raises:
            UserError: The encoder is not progressive, or the stage is negative.
        """
