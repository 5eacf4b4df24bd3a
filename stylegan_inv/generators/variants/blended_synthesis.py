"""Two codes in one picture: the feature maps of both blended by a mask at every layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.adain import AdaINSynthesis
from stylegan_inv.generators.ops import upsample2d
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.generators.synthesis_inputs import noise_inputs


def blended_synthesis(
    synthesis: SynthesisNetwork | AdaINSynthesis,
    inside: Tensor,
    outside: Tensor,
    mask: Tensor,
    noise: str | Sequence[Tensor] = "const",
) -> Tensor:
    """Render codes ``inside`` where the mask is 1 and ``outside`` where it is 0.

    Every layer runs under both codes on the same input, and the mask, averaged to the layer's size, blends the two
    results; so each region sees its neighbour through the next layer's convolution and no seam is cut into the image.
    Equal codes, or a mask of ones, give exactly the plain picture.

    Args:
        synthesis: of a generator.
        inside: (B, L, D).
        outside: (B, L, D).
        mask: (B, 1, H, W) in [0, 1].
        noise: as for `SynthesisNetwork`.

    Returns:
        Images (B, 3, R, R), nominally in [-1, 1].

    Raises:
        UserError: shapes that do not fit.
    """
    if inside.shape != outside.shape or mask.ndim != 4 or mask.shape[:2] != (len(inside), 1):
        raise UserError(
            f"blending codes of shape {tuple(inside.shape)} and {tuple(outside.shape)} by a mask {tuple(mask.shape)}: "
            "expected two equal shapes (B, L, D) and (B, 1, H, W)"
        )
    batch = len(inside)
    maps = iter(noise_inputs(synthesis.layers(), noise, batch, inside))
    const = synthesis.get_parameter("b4.const")
    x = const[None].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
    image: Tensor | None = None
    index = 0
    blocks: list[Any] = list(synthesis.blocks())
    for r, block in zip(synthesis.resolutions, blocks, strict=True):
        m = F.adaptive_avg_pool2d(mask, (r, r)) if mask.shape[-1] >= r else F.interpolate(mask, (r, r), mode="bilinear")
        for layer in block.layers():
            own = next(maps)
            x = torch.lerp(layer(x, outside[:, index], own), layer(x, inside[:, index], own), m)
            index += 1
        if isinstance(synthesis, AdaINSynthesis):  # only its last resolution makes a picture, and without a style
            image = block.torgb(x) if r == synthesis.resolution else None
            continue
        rgb = torch.lerp(block.torgb(x, outside[:, index]), block.torgb(x, inside[:, index]), m)
        image = rgb if image is None else upsample2d(image, synthesis.resample_filter, impl=synthesis.ops) + rgb
    assert image is not None
    return image.contiguous()
