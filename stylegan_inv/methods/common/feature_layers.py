"""The feature map of the generator that feature-space methods replace, and starts that give codes to them."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.feature_maps import FeatureChange, Synthesis
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.starting_points import check_embedder, codes_alone
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.frozen_module import Frozen


@dataclass(frozen=True)
class FeatureLayer:
    """A block of the synthesis network, whose output is replaced.

    The next block reads the replaced map. The block's own ToRGB, and the image up to it, keep the generator's.

    Attributes:
        index: k, as the papers count: 1 for the 4-px block, and two more for each block.
        block: Name of the map that the next block reads, e.g. ``b16``.
        output: Name of the same map before it is replaced, e.g. ``b16.conv1``.
        channels: Channels of the map.
        size: Side of the map.
    """

    index: int
    block: str
    output: str
    channels: int
    size: int

    @classmethod
    def of(cls, generator: Generator, index: int | None, paper: int) -> FeatureLayer:
        """Returns the layer with an index.

        Args:
            generator: The generator.
            index: k; None for that of the paper, or the last one of a generator with smaller images.
            paper: k of the paper.

        Raises:
            UserError: The generator has no such layer, or no layer follows it.
        """
        last = 2 * (generator.resolution.bit_length() - 2) - 3
        if last < 1:
            raise UserError(f"generator: has {generator.resolution} px, expected at least 8 to replace a feature map")
        if index is None:
            index = min(paper, last)
        whole_number("method.feature_index", index)
        if index > last or index % 2 == 0:
            raise UserError(
                f"method.feature_index={index}: the generator of {generator.resolution} px has "
                f"{', '.join(map(str, range(1, last + 1, 2)))} (4 to {generator.resolution // 2} px)"
            )
        names, size = generator.synthesis.feature_names(), 2 << (index + 1) // 2
        block = f"b{size}"
        return cls(index, block, names[names.index(block) - 1], generator.channels[size], size)

    def replaced(self, features: Tensor, scale: float = 1.0) -> dict[str, FeatureChange]:
        """Returns the change ``x <- (1 - scale) x + scale features`` for the synthesis network."""
        return {self.block: features if scale == 1 else (1 - scale, scale * features)}

    def added(self, shift: Tensor) -> dict[str, FeatureChange]:
        """Returns the change ``x <- x + shift`` for the synthesis network, with a scale for each image."""
        return {self.block: (shift.new_ones(len(shift), 1, 1, 1), shift)}


def rendered(generator: Generator, layer: FeatureLayer, w: Tensor, **arguments: object) -> tuple[Tensor, Tensor]:
    """Returns the images of codes (B, L, D) and the generator's own map at the layer, before it is replaced.

    Args:
        generator: The generator.
        layer: The layer.
        w: The codes.
        **arguments: Of the synthesis network.
    """
    result: Synthesis = generator.synthesis(w, return_features=[layer.output], **arguments)
    assert result.image is not None
    return result.image, result.features[layer.output]


def resized(images: Tensor, size: int, by_halves: bool = False) -> Tensor:
    """Returns images (B, C, H, W) resized bilinearly to (B, C, size, size), without antialiasing as the official codes.

    Args:
        images: The images.
        size: Side of the result.
        by_halves: Halve the images first as long as they stay at least as large as the result.
    """
    while by_halves and images.shape[-1] >= 2 * size:
        images = F.interpolate(images, scale_factor=0.5, mode="bilinear")
    if images.shape[-2:] == (size, size):
        return images
    return F.interpolate(images, (size, size), mode="bilinear", align_corners=False)


def frozen_start(method: InversionMethod, start: object) -> Frozen | None:
    """Returns a method whose codes are refined, frozen; None for None.

    Raises:
        UserError: Not a method, one of another generator, or one for other inputs than photographs.
    """
    if start is None:
        return None
    if not isinstance(start, InversionMethod):
        raise UserError(f"method.start={start!r}: expected a run, a shipped encoder or null, which uses own codes")
    check_embedder(method, start)
    return Frozen(start)


@torch.no_grad()
def start_codes(method: InversionMethod, start: Frozen, images: Tensor) -> Tensor:
    """Returns the codes (B, L, D) of a start for images (B, 3, H, W), resized to the size that it was made for.

    Args:
        method: The method that uses the codes.
        start: The start.
        images: The images.

    Raises:
        UserError: The start needs more than codes to render its images.
    """
    embedder: InversionMethod = start.network
    return codes_alone(method, embedder, embedder.invert(resized(images, embedder.input_size)))[0]
