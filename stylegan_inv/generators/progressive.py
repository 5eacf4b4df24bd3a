"""Progressive growing: networks that work at a part of their resolution, while the newest block is faded in.

"Progressive Growing of GANs for Improved Quality, Stability, and Variation", Karras, Aila, Laine, Lehtinen, ICLR 2018,
arXiv 1710.10196, section 2; the schedule is that of the official code of StyleGAN
(https://github.com/NVlabs/stylegan f3a0446, training/training_loop.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.base import SynthesisBase
from stylegan_inv.generators.feature_maps import Synthesis
from stylegan_inv.generators.layers import resolutions
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.generators.synthesis_inputs import check_codes, noise_inputs


@dataclass(frozen=True)
class Stage:
    """How far a network has grown.

    Attributes:
        resolution: Side in pixels of the images of this stage.
        alpha: Weight of the newest block, in [0, 1]; at 0 the image is the one of half the resolution, enlarged.
    """

    resolution: int
    alpha: float = 1.0


@dataclass(frozen=True)
class Growth:
    """The schedule of the resolutions: each is trained alone, then the next one is faded in, up to the last.

    Attributes:
        resolution: The last one, in pixels.
        start: The first one, in pixels.
        grow_images: Images for which a resolution is trained alone.
        fade_images: Images over which the next one is faded in.
    """

    resolution: int
    start: int = 8
    grow_images: int = 600_000
    fade_images: int = 600_000

    def __post_init__(self) -> None:
        """Checks the numbers."""
        if self.start not in resolutions(self.resolution):
            raise UserError(f"method.grow_from={self.start}: expected one of {resolutions(self.resolution)}")
        if self.grow_images < 0 or self.fade_images < 0 or self.grow_images + self.fade_images < 1:
            raise UserError(f"method.grow_images={self.grow_images}, method.fade_images={self.fade_images}: not both 0")

    def stage(self, images: int) -> Stage:
        """Returns the stage after a number of training images."""
        steps, into = divmod(images, self.grow_images + self.fade_images)
        resolution = self.start << min(steps, self.resolution.bit_length())
        if resolution >= self.resolution:
            return Stage(self.resolution)
        faded = (into - self.grow_images) / max(self.fade_images, 1)
        return Stage(resolution) if faded <= 0 else Stage(2 * resolution, faded)

    @property
    def images(self) -> int:
        """Number of images until the last resolution is faded in."""
        return (self.grow_images + self.fade_images) * ((self.resolution // self.start).bit_length() - 1)


def at_stage(image: Tensor, stage: Stage) -> Tensor:
    """Returns real images as a network of this stage generates them: ``(B, C, R, R)`` -> ``(B, C, r, r)``.

    Pixels are averaged. While a block is faded in, the details of its resolution are faded in too.
    """
    image = F.avg_pool2d(image, image.shape[-1] // stage.resolution)
    if stage.alpha == 1:
        return image
    return torch.lerp(enlarged(F.avg_pool2d(image, 2), stage.resolution), image, stage.alpha)


def enlarged(image: Tensor, resolution: int) -> Tensor:
    """Returns the image at ``resolution``, with each pixel repeated."""
    factor = resolution // image.shape[-1]
    return image if factor == 1 else F.interpolate(image, scale_factor=factor, mode="nearest")


def check_part(network: SynthesisBase, w: Tensor | None, stage: Stage, changes: Mapping[str, object]) -> Tensor:
    """Checks a call that runs a part of a synthesis network, and returns its codes.

    Raises:
        UserError: A stage or codes that the network does not have, or changes of the whole network.
    """
    if stage.resolution not in network.resolutions or not 0 <= stage.alpha <= 1:
        raise UserError(f"{stage}: expected a resolution out of {network.resolutions} and alpha in [0, 1]")
    if changes or w is None:
        what = ", ".join(changes) or "no codes"
        raise UserError(f"{stage} with {what}: a part of a network takes codes and noise alone; expected stage=None")
    check_codes(w, network.num_ws, network.w_dim)
    return w


class GrowingSynthesis(SynthesisNetwork):
    """StyleGAN2's synthesis network, of which a part can be run; the whole is the same network.

    With skip connections the image is the sum of the colours of all resolutions. The newest block is therefore faded in
    by a factor alpha of its colours, where the original networks, without skip connections, blend two images.
    """

    def forward(
        self,
        w: Tensor | None = None,
        noise: str | Sequence[Tensor] = "const",
        stage: Stage | None = None,
        **changes: Any,
    ) -> Tensor | Synthesis:
        """Renders codes as :meth:`.SynthesisBase.forward`; images of a ``stage`` are ``(B, C, r, r)``."""
        if stage is None or stage == Stage(self.resolution):
            return super().forward(w, noise, **changes)
        w = check_part(self, w, stage, changes)
        blocks = [block for block in self.blocks() if block.resolution <= stage.resolution]
        layers = [layer for block in blocks for layer in block.layers()]
        maps = noise_inputs(layers, noise if isinstance(noise, str) else list(noise)[: len(layers)], len(w), w)
        x = self.const[None].expand(len(w), -1, -1, -1)
        image: Tensor | None = None
        k = 0
        for b, block in enumerate(blocks):
            for layer in block.layers():
                x = layer(x, w[:, k], maps[k])
                k += 1
            rgb = block.torgb(x, w[:, 2 * b + 1])
            if b == len(blocks) - 1 and image is not None:
                rgb = rgb * stage.alpha
            image = self.add_colours(image, rgb)
        assert image is not None
        return image
