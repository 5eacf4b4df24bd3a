"""Progressive growing: networks that work at a part of their resolution, the newest block being faded in.

"Progressive Growing of GANs for Improved Quality, Stability, and Variation", Karras, Aila, Laine, Lehtinen, ICLR 2018,
arXiv 1710.10196, section 2; the schedule is that of the official code of StyleGAN
(https://github.com/NVlabs/stylegan f3a0446, training/training_loop.py).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import resolutions
from stylegan_inv.generators.ops import upsample2d
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.generators.synthesis_inputs import check_codes, noise_inputs


@dataclass(frozen=True)
class Stage:
    """How far a network has grown.

    Attributes:
        resolution: side in pixels of the images that it makes or judges now.
        alpha: share of the newest block, in [0, 1]; 0 is what half the resolution shows, enlarged.
    """

    resolution: int
    alpha: float = 1.0


@dataclass(frozen=True)
class Growth:
    """When which resolution is trained: stable, then fading into the next, and so on up to the whole.

    Attributes:
        resolution: the whole, in pixels.
        start: resolution at the beginning.
        grow_images: images for which a resolution stays as it is before the next one comes.
        fade_images: images over which the next one is faded in.
    """

    resolution: int
    start: int = 8
    grow_images: int = 600_000
    fade_images: int = 600_000

    def __post_init__(self) -> None:
        """Check the numbers."""
        if self.start not in resolutions(self.resolution):
            raise UserError(f"growth starts at {self.start} px, expected one of {resolutions(self.resolution)}")
        if self.grow_images < 0 or self.fade_images < 0 or self.grow_images + self.fade_images < 1:
            raise UserError(
                f"grow_images={self.grow_images}, fade_images={self.fade_images}: expected images, not both 0"
            )

    def stage(self, images: int) -> Stage:
        """The stage after so many images."""
        steps, into = divmod(images, self.grow_images + self.fade_images)
        resolution = self.start << min(steps, self.resolution.bit_length())
        if resolution >= self.resolution:
            return Stage(self.resolution)
        faded = (into - self.grow_images) / max(self.fade_images, 1)
        return Stage(resolution) if faded <= 0 else Stage(2 * resolution, faded)

    @property
    def images(self) -> int:
        """Images until all is grown and faded in."""
        return (self.grow_images + self.fade_images) * ((self.resolution // self.start).bit_length() - 1)


def at_stage(image: Tensor, stage: Stage) -> Tensor:
    """Pictures as a network of this stage should see them: ``(B, C, R, R)`` -> ``(B, C, r, r)``, averaged over pixels.

    While a block is faded in, the details that only it can make are faded in too.
    """
    image = F.avg_pool2d(image, image.shape[-1] // stage.resolution)
    if stage.alpha == 1:
        return image
    return torch.lerp(enlarged(F.avg_pool2d(image, 2), stage.resolution), image, stage.alpha)


def enlarged(image: Tensor, resolution: int) -> Tensor:
    """Each pixel repeated up to ``resolution``."""
    factor = resolution // image.shape[-1]
    return image if factor == 1 else F.interpolate(image, scale_factor=factor, mode="nearest")


def check_stage(stage: Stage, resolution: int) -> None:
    """Raise a `UserError` unless a network of ``resolution`` can be at ``stage``."""
    if stage.resolution not in resolutions(resolution) or not 0 <= stage.alpha <= 1:
        raise UserError(f"{stage}: expected a resolution out of {resolutions(resolution)} and alpha in [0, 1]")


class GrowingSynthesis(SynthesisNetwork):
    """StyleGAN2's synthesis network, of which a part can be run; grown, it is the same network.

    With skip connections a picture is the sum of what each resolution adds, so that the newest block's part is faded
    in by weighting it with alpha; the original networks, without, blend two pictures.
    """

    def forward(self, w: Tensor, noise: str | Sequence[Tensor] = "const", stage: Stage | None = None) -> Tensor:
        """As :meth:`.SynthesisNetwork.forward`, for a ``stage`` below the whole ``(B, C, r, r)``."""
        if stage is None or stage == Stage(self.resolution):
            return super().forward(w, noise)
        check_stage(stage, self.resolution)
        check_codes(w, self.num_ws, self.w_dim)
        blocks = [block for r, block in zip(self.resolutions, self.blocks(), strict=True) if r <= stage.resolution]
        layers = [layer for block in blocks for layer in block.layers()]
        given = noise if isinstance(noise, str) else list(noise)[: len(layers)]
        maps = noise_inputs(layers, given, len(w), w)
        x = self.get_parameter("b4.const")[None].expand(len(w), -1, -1, -1)
        image: Tensor | None = None
        k = 0
        for b, block in enumerate(blocks):
            for layer in block.layers():
                x = layer(x, w[:, k], maps[k])
                k += 1
            rgb = block.torgb(x, w[:, 2 * b + 1])
            if b == len(blocks) - 1 and image is not None:
                rgb = rgb * stage.alpha
            image = rgb if image is None else upsample2d(image, self.resample_filter, add=rgb, impl=self.ops)
        assert image is not None
        return image
