"""Style as Gram matrices of feature maps (Gatys, Ecker and Bethge, CVPR 2016, section 2.2)."""

from __future__ import annotations

from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError


def gram(maps: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the products of all pairs of channels, averaged over all positions or over those inside a mask.

    Args:
        maps: Feature maps (B, C, H, W).
        mask: (B, 1, h, w) in [0, 1]; it is averaged down to the size of the maps. None uses all positions.

    Returns:
        (B, C, C); zeros for an empty mask.

    Raises:
        UserError: The mask has another shape.
    """
    if mask is None:
        flat = maps.flatten(2)
        return flat @ flat.transpose(1, 2) / flat.shape[2]
    if mask.ndim != 4 or mask.shape[:2] != (len(maps), 1):
        raise UserError(f"gram: got maps {tuple(maps.shape)} and a mask {tuple(mask.shape)}, expected (B, 1, H, W)")
    weight = F.adaptive_avg_pool2d(mask, (maps.shape[2], maps.shape[3]))
    area = weight.sum((1, 2, 3)).clamp_min(1e-6)[:, None, None]
    return (maps * weight).flatten(2) @ maps.flatten(2).transpose(1, 2) / area


def style_distance(a: Tensor, b: Tensor) -> Tensor:
    """Returns the mean squared difference (B,) of two Gram matrices (B, C, C)."""
    return (a - b).square().mean((1, 2))
