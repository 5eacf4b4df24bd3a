"""Rendering of one code with the feature maps of another copied into a region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.base import SynthesisBase
from stylegan_inv.generators.synthesis_inputs import StyleInputs, noise_inputs
from stylegan_inv.generators.variants.blended_synthesis import mask_of_size


def transfer_features(
    synthesis: SynthesisBase,
    w: Tensor,
    other: Tensor,
    mask: Tensor,
    resolutions: Sequence[int],
    noise: str | Sequence[Tensor] = "const",
    other_noise: str | Sequence[Tensor] = "const",
) -> Tensor:
    """Renders ``w`` with the outputs of some layers replaced inside the mask by those of ``other``.

    The ToRGB layers and the layers after the last chosen one use the styles of ``w``, so that the copied shapes get
    the light and the colours of their new surroundings (Image2StyleGAN++, section 5.6). Inside the mask all layers use
    the noise of ``other``.

    Args:
        synthesis: Synthesis network of a generator.
        w: Codes ``(B, L, D)``.
        other: Codes ``(B, L, D)``.
        mask: ``(B, 1, H, W)`` in [0, 1], averaged to the size of each layer.
        resolutions: Of the layers whose outputs are copied.
        noise: Noise of ``w``, as for :meth:`.SynthesisBase.forward`.
        other_noise: Noise of ``other``.

    Returns:
        Images ``(B, 3, R, R)``, nominally in [-1, 1].

    Raises:
        UserError: Codes or a mask of another shape, or a resolution that the network does not have.
    """
    if w.shape != other.shape or mask.ndim != 4 or mask.shape[:2] != (len(w), 1):
        raise UserError(
            f"feature transfer of codes {tuple(w.shape)} and {tuple(other.shape)} and a mask {tuple(mask.shape)}: "
            "expected two equal shapes (B, L, D) and (B, 1, H, W)"
        )
    unknown = [r for r in resolutions if r not in synthesis.resolutions]
    if unknown or not resolutions:
        raise UserError(f"feature transfer: resolutions={list(resolutions)}, expected some of {synthesis.resolutions}")
    layers, batch = synthesis.layers(), len(w)
    maps = noise_inputs(layers, noise, batch, w)
    other_maps = noise_inputs(layers, other_noise, batch, other)
    mixed = [
        None if a is None or b is None else torch.lerp(a, b, mask_of_size(mask, a.shape[-1]))
        for a, b in zip(maps, other_maps, strict=True)
    ]
    source, target = StyleInputs(other, {}, other_maps), StyleInputs(w, {}, mixed)
    of_source, of_target = synthesis.layer_call(source), synthesis.layer_call(target)
    copied: dict[int, Tensor] = {}

    def record(layer: nn.Module, x: Tensor, k: int) -> Tensor:
        y = of_source(layer, x, k)
        if layers[k].resolution in resolutions:
            copied[k] = y
        return y

    def replace(layer: nn.Module, x: Tensor, k: int) -> Tensor:
        y = of_target(layer, x, k)
        return torch.lerp(y, copied[k], mask_of_size(mask, y.shape[-1])) if k in copied else y

    synthesis.render(batch, record, synthesis.colour_call(source))
    _, image = synthesis.render(batch, replace, synthesis.colour_call(target))
    assert image is not None
    return image.contiguous()
