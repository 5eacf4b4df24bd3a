"""The parts of a synthesis network: its layers and feature maps, and their names."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Protocol

from torch import Tensor, nn

from stylegan_inv.generators.frozen.segment import Point
from stylegan_inv.generators.layers import FullyConnected, resolutions


class StyledLayer(Protocol):
    """A layer of a synthesis network: style, convolution, noise and activation in some order."""

    resolution: int
    noise_const: Tensor
    affine: FullyConnected

    def __call__(self, x: Tensor, w: Tensor | None, noise: Tensor | None, style: Tensor | None = None) -> Tensor:
        """Returns the output ``(B, O, r, r)``; a given style replaces the one computed from w."""


class Block(Protocol):
    """The layers of one resolution."""

    resolution: int
    torgb: Any

    def layers(self) -> list[Any]:
        """Returns the layers without ToRGB."""

    def named_layers(self) -> list[tuple[str, Any]]:
        """Returns the names and modules of the layers without ToRGB."""


class NetworkParts(nn.Module):
    """A synthesis network of blocks, b4, b8, ..., each with two layers (b4 of StyleGAN2: one) and a ToRGB layer.

    Args:
        resolution: Side of the image in pixels.
        w_dim: Size of a style code.
        ops: Implementation of the operations, see :mod:`.ops.dispatch`.

    Attributes:
        resolutions: Of the blocks: 4, 8, ..., ``resolution``.
        num_ws: Rows of a W+ code.
        recompute_blocks: Where the modules run, whether backward keeps the input of each block alone and computes the
            block again: less memory, about a third more time. :meth:`.Generator.freeze` sets it.
    """

    #: Whether the ToRGB layers have a style.
    styled_colours: ClassVar[bool] = True

    def __init__(self, resolution: int, w_dim: int, ops: str) -> None:
        super().__init__()
        self.resolution = resolution
        self.resolutions = resolutions(resolution)
        self.w_dim = w_dim
        self.num_ws = 2 * len(self.resolutions)
        self.ops = ops
        self.recompute_blocks = False

    @abstractmethod
    def blocks(self) -> Sequence[Any]:
        """Returns one :class:`Block` for each resolution, b4, b8, ..."""

    @abstractmethod
    def colour_layers(self) -> dict[int, Any]:
        """Returns the ToRGB layers that draw the image, by the number of the layer whose output they read."""

    @abstractmethod
    def add_colours(self, image: Tensor | None, rgb: Tensor) -> Tensor:
        """Returns the image with the colours of the next block."""

    @property
    def const(self) -> Tensor:
        """The constant input of the first layer, ``(C, 4, 4)``."""
        constant: Tensor = self.blocks()[0].const
        return constant

    def named_layers(self) -> dict[str, Any]:
        """Returns the layers that take noise, in order, by their names in the state dict."""
        return {f"b{b.resolution}.{name}": layer for b in self.blocks() for name, layer in b.named_layers()}

    def layers(self) -> list[Any]:
        """Returns the layers that take noise, in order."""
        return [layer for block in self.blocks() for layer in block.layers()]

    def layer_names(self) -> list[str]:
        """Returns the names of all layers that have a style, in order, as in the state dict.

        For StyleGAN2 these are b4.conv1, b4.torgb, b8.conv0, b8.conv1, b8.torgb, ...; for the original StyleGAN
        b4.layer0, b4.layer1, b8.layer0, ...
        """
        names: list[str] = []
        for block in self.blocks():
            names += [f"b{block.resolution}.{name}" for name, _ in block.named_layers()]
            names += [f"b{block.resolution}.torgb"] if self.styled_colours else []
        return names

    def feature_names(self) -> list[str]:
        """Returns the names of all feature maps, in order.

        The feature map of a layer, such as ``b16.conv1``, is its output after noise and activation. Its readers are the
        next layer and, after a block's last layer, the block's ToRGB. The feature map of a block, such as ``b16``, is
        what the next block reads, and the ToRGB of the block does not see its changes.
        """
        return list(self._points())

    def noise_maps(self) -> list[Tensor]:
        """Returns the stored noise, one ``(1, 1, r, r)`` tensor per layer: what ``noise="const"`` uses."""
        return [layer.noise_const[None, None] for layer in self.layers()]

    def _points(self) -> dict[str, Point]:
        points: dict[str, Point] = {}
        done = 0
        for block in self.blocks():
            for name, _ in block.named_layers():
                done += 1
                points[f"b{block.resolution}.{name}"] = Point(done, colours=False)
            points[f"b{block.resolution}"] = Point(done, colours=True)
        return points
