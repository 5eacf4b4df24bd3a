"""pSp: Encoding in Style, a StyleGAN Encoder for Image-to-Image Translation.

Elad Richardson, Yuval Alaluf, Or Patashnik, Yotam Nitzan, Yaniv Azar, Stav Shapiro, Daniel Cohen-Or, CVPR 2021,
arXiv 2008.00951. Official code: eladrich/pixel2style2pixel, commit 5cfff38.

Differences: The generator is frozen. The official code computes the gradients of its weights and of the identity
network, but does not use them. Any encoder can be used, and the number of styles is that of the generator.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.latents.mixing import mix_styles
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.checks import one_of


class PSP(TrainedMethod):
    """Inverts images with one pass of an encoder: ``w = E(x) + w_avg``, ``y = G(w)`` (section 3).

    Args:
        encoder: Called with ``num_ws``, ``w_dim`` and ``in_channels``; returns a module (B, C, H, W) -> (B, L, D).
        in_channels: Channels of the input: 3 for images, 1 for sketches, the number of classes for one-hot label maps.
        training_noise: Noise of the synthesis network in training: ``random`` (official code) or ``const``. Validation
            and inversion use constant noise.
        **kwargs: Arguments of `TrainedMethod`.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        in_channels: int = 3,
        training_noise: str = "random",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.training_noise = one_of("method.training_noise", training_noise, ("random", "const"))
        self.encoder = encoder(num_ws=self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=in_channels)
        self.in_channels = in_channels

    def encode(self, images: Tensor) -> Tensor:
        """Returns the W+ codes (B, L, D) of images (B, C, H, W)."""
        codes: Tensor = self.encoder(images) + self.generator.w_avg
        return codes

    def decode(self, w: Tensor) -> Inversion:
        """Returns the reconstructions of codes (B, L, D)."""
        return Inversion(w, self.generator.synthesis(w, noise=self.training_noise if self.training else "const"))

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        return self.decode(self.encode(images))

    @torch.no_grad()
    def variants(self, images: Tensor, z: Tensor, layers: Sequence[int], strength: float = 1.0) -> Inversion:
        """Multi-modal synthesis (section 4.4): replaces some layers of the codes by those of a random code.

        Args:
            images: (B, C, H, W).
            z: (B, Z) or (1, Z), standard normal. It determines the appearance; the content comes from the images.
            layers: Layers to replace. The official script uses 8 to 17 of 18.
            strength: 1 replaces the layers, smaller values interpolate (official code: ``mix_alpha``).
        """
        if self.generator.class_per_image:  # the same z, in the class of each image
            z = z.expand(len(images), -1)
        return self.decode(mix_styles(self.encode(images), self.generator.mapping(z), layers, strength))
