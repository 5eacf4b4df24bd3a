"""pSp: Encoding in Style, a StyleGAN Encoder for Image-to-Image Translation.

Elad Richardson, Yuval Alaluf, Or Patashnik, Yotam Nitzan, Yaniv Azar, Stav Shapiro, Daniel Cohen-Or, CVPR 2021,
arXiv 2008.00951. Official code: eladrich/pixel2style2pixel, commit 5cfff38.

Differences: the generator is frozen for good (the official code keeps gradients of its weights and of the identity
network, and throws them away); any encoder fits, and the number of styles comes from the generator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.latents.mixing import mix_styles
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.methods.common.trained import TrainedMethod


class PSP(TrainedMethod):
    """One pass of an encoder: ``w = E(x) + w_avg``, ``y = G(w)`` (section 3).

    Args:
        encoder: Called with ``num_ws``, ``w_dim`` and ``in_channels``; returns (B, C, H, W) -> (B, L, D).
        in_channels: 3 for images, 1 for sketches, the number of classes for one-hot label maps.
        training_noise: Noise of the synthesis in training: ``random`` (the official code) or ``const``. Validation and
            inversion are deterministic.
        **kwargs: See `TrainedMethod`.
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
        if training_noise not in ("random", "const"):
            raise UserError(f"method.training_noise={training_noise!r}: expected 'random' or 'const'")
        self.encoder = encoder(num_ws=self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=in_channels)
        self.in_channels, self.training_noise = in_channels, training_noise

    def encode(self, images: Tensor) -> Tensor:
        """(B, C, H, W) -> W+ codes (B, L, D)."""
        return self.encoder(images) + self.generator.w_avg

    def decode(self, w: Tensor) -> Inversion:
        """The picture of codes (B, L, D)."""
        return Inversion(w, self.generator.synthesis(w, noise=self.training_noise if self.training else "const"))

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        return self.decode(self.encode(images))

    @torch.no_grad()
    def variants(self, images: Tensor, z: Tensor, layers: range | list[int], strength: float = 1.0) -> Inversion:
        """Multi-modal synthesis (section 4.4): the encoder's codes with some layers from random ones.

        Args:
            images: (B, C, H, W).
            z: (B, Z) or (1, Z), standard normal; another z gives another appearance of the same content.
            layers: which; the official script takes 8-17 of 18.
            strength: 1 replaces these layers, less blends them (``mix_alpha``).
        """
        return self.decode(mix_styles(self.encode(images), self.generator.mapping(z), layers, strength))
