"""Rendering of two codes in one image: a mask blends the feature maps of both at every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.base import SynthesisBase
from stylegan_inv.generators.synthesis_inputs import StyleInputs, noise_inputs


def blended_synthesis(
    synthesis: SynthesisBase,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    noise: str | Sequence[Tensor] = "const",
) -> Tensor:
    """Renders codes ``inside`` where the mask is 1 and ``outside`` where it is 0.

    Every layer runs with both codes on the same input, and the mask, averaged to the size of the layer, blends the two
    outputs. Each region therefore sees its neighbour through the next layer's convolution, which leaves no seam. Equal
    codes, or a mask of ones, give exactly the image of ``inside``.

    Args:
        synthesis: Synthesis network of a generator.
        inside: Codes ``(B, L, D)``.
        outside: Codes ``(B, L, D)``.
        mask: ``(B, 1, H, W)`` in [0, 1].
        noise: As for :meth:`.SynthesisBase.forward`.

    Returns:
        Images ``(B, 3, R, R)``, nominally in [-1, 1].

    Raises:
        UserError: Codes or a mask of another shape.
    """
    if inside.shape != outside.shape or mask.ndim != 4 or mask.shape[:2] != (len(inside), 1):
        raise UserError(
            f"blending codes of shape {tuple(inside.shape)} and {tuple(outside.shape)} by a mask {tuple(mask.shape)}: "
            "expected two equal shapes (B, L, D) and (B, 1, H, W)"
        )
    layers = synthesis.layers()
    maps = noise_inputs(layers, noise, len(inside), inside)
    first, second = _SlicedCodes(outside, {}, maps), _SlicedCodes(inside, {}, maps)
    of_layer = synthesis.layer_call(first), synthesis.layer_call(second)
    of_colours = synthesis.colour_call(first), synthesis.colour_call(second)
    masks = {r: mask_of_size(mask, r) for r in synthesis.resolutions}

    def layer(module: Any, x: Tensor, k: int) -> Tensor:
        return torch.lerp(of_layer[0](module, x, k), of_layer[1](module, x, k), masks[module.resolution])

    def colours(module: Any, x: Tensor, k: int) -> Tensor:
        if not synthesis.styled_colours:  # both codes give the same colours
            return of_colours[0](module, x, k)
        return torch.lerp(of_colours[0](module, x, k), of_colours[1](module, x, k), masks[layers[k].resolution])

    _, image = synthesis.render(len(inside), layer, colours)
    assert image is not None
    return image.contiguous()


class _SlicedCodes(StyleInputs):
    """Inputs whose gradients are added up layer by layer.

    Both codes of a blend may come from one encoder output, and the sum of their gradients depends on its order in the
    last bits. This order is that of version 0.1, so that trainings repeat exactly.
    """

    def code(self, row: int) -> Tensor | None:
        return None if self.w is None else self.w[:, row]


def mask_of_size(mask: Tensor, r: int) -> Tensor:
    """Returns a mask ``(B, 1, H, W)`` at ``(B, 1, r, r)``, averaged where it shrinks."""
    return F.adaptive_avg_pool2d(mask, (r, r)) if mask.shape[-1] >= r else F.interpolate(mask, (r, r), mode="bilinear")
