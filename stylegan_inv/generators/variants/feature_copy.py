"""One picture with the activations of another copied into a region."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.generators.synthesis_inputs import noise_inputs


def transfer_features(
    synthesis: SynthesisNetwork,
    w: Tensor,
    other: Tensor,
    mask: Tensor,
    resolutions: Sequence[int],
    noise: str | Sequence[Tensor] = "const",
    other_noise: str | Sequence[Tensor] = "const",
) -> Tensor:
    """Render ``w`` with the outputs of some layers replaced, inside the mask, by those of rendering ``other``.

    The colours are read under ``w``'s styles, and the layers after the last chosen one see the mixture: so what is
    copied is form, which takes on its new surroundings' light and colour (Image2StyleGAN++, section 5.6). Noise goes
    with what it belongs to: inside the mask all layers have that of ``other``.

    Args:
        synthesis: of a generator.
        w: (B, L, D).
        other: (B, L, D).
        mask: (B, 1, H, W) in [0, 1], averaged to each layer's size.
        resolutions: of the layers whose activations are copied.
        noise: as for `SynthesisNetwork`, of ``w``.
        other_noise: of ``other``.

    Returns:
        Images (B, 3, R, R), nominally in [-1, 1].

    Raises:
        UserError: shapes that do not fit, or a resolution that the network does not have.
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
        None if a is None or b is None else torch.lerp(a, b, _sized(mask, a.shape[-1]))
        for a, b in zip(maps, other_maps, strict=True)
    ]
    copied: dict[int, Tensor] = {}

    def record(layer: torch.nn.Module, x: Tensor, k: int) -> Tensor:
        y = layer(x, other[:, k], other_maps[k])
        if layers[k].resolution in resolutions:
            copied[k] = y
        return y

    def replace(layer: torch.nn.Module, x: Tensor, k: int) -> Tensor:
        y = layer(x, w[:, k], mixed[k])
        return torch.lerp(y, copied[k], _sized(mask, y.shape[-1])) if k in copied else y

    def colours(codes: Tensor, torgb: torch.nn.Module, x: Tensor, b: int) -> Tensor:
        return torgb(x, codes[:, 2 * b + 1])

    synthesis.render(batch, record, lambda torgb, x, b: colours(other, torgb, x, b))
    return synthesis.render(batch, replace, lambda torgb, x, b: colours(w, torgb, x, b))


def _sized(mask: Tensor, r: int) -> Tensor:
    return F.adaptive_avg_pool2d(mask, (r, r)) if mask.shape[-1] >= r else F.interpolate(mask, (r, r), mode="bilinear")
