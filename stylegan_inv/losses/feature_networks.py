"""Interfaces of the networks that losses and metrics compare images with."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Protocol, runtime_checkable

from torch import Tensor, nn

from stylegan_inv.encoders.face_network import load_face_network


@runtime_checkable
class EmbeddingNetwork(Protocol):
    """A network with one embedding per image."""

    def embed(self, image: Tensor) -> Tensor:
        """Returns embeddings (B, E) of unit length of images (B, 3, H, W) in [-1, 1]."""


@runtime_checkable
class FeatureNetwork(Protocol):
    """A network with feature maps at several resolutions."""

    def features(self, image: Tensor) -> list[Tensor]:
        """Returns feature maps, (B, C, h, w) each, of images (B, 3, H, W) in [-1, 1]."""


@runtime_checkable
class FeatureEmbeddingNetwork(FeatureNetwork, Protocol):
    """A network that computes its embedding from its feature maps, so that one forward pass gives both."""

    def embed_features(self, maps: Sequence[Tensor]) -> Tensor:
        """Returns embeddings (B, E) of unit length, given the result of `features`."""


@runtime_checkable
class PoolingNetwork(Protocol):
    """A network with one pooled feature vector per image."""

    def pooled(self, image: Tensor) -> Tensor:
        """Returns feature vectors (B, D) of images (B, 3, H, W) in [-1, 1]."""


def as_network(network: nn.Module | str | Path) -> nn.Module:
    """Returns the network itself, or loads a face network.

    Args:
        network: A module, or what `load_face_network` accepts: the name or the file of a face network.

    Raises:
        UserError: There is no such name or file, or the file holds something else.
    """
    return network if isinstance(network, nn.Module) else load_face_network(network)
