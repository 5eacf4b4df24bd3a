"""Schedule of a generator's training on images whose latent code is known, and the codes of these images.

It is not part of StyleGAN2; `methods.generator.paired_stylegan2` describes what it is used for.
"""

from __future__ import annotations

import math
from functools import partial

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.factor_embedding import FactorEmbedding, distill_mapping
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.mapping import MappingNetwork
from stylegan_inv.losses.paired.image_regression import PairedRegression
from stylegan_inv.utils.checks import real_number
from stylegan_inv.utils.domains import domain_of


class PairedWarmStart(nn.Module):
    """Schedule of paired training: first regression alone (the warm-up), then regression and adversarial loss.

    All durations are numbers of training images.

    Args:
        loss: Loss between G(z) and the image of z; None is `PairedRegression` with its defaults.
        warmup_images: Length of the warm-up, which has no discriminator.
        warmup_lr: Learning rate of the warm-up, which falls along a cosine to a tenth.
        warmup_betas: Adam's betas of the warm-up. (StyleGAN2's betas, without momentum, suit adversarial training but
            not a regression.)
        weight: Weight of the regression at the start of adversarial training.
        final_weight: Weight of the regression after ``decay_images`` more images; it changes linearly.
        decay_images: See ``final_weight``.
        ramp_images: The weight of the generator's adversarial loss rises linearly from 0 to 1 during this time, while
            the new discriminator learns.
        fraction: Fraction of the generator's batch with a known image during adversarial training, in (0, 1]; the rest
            are random samples.
        embedding: Replaces the mapping network in the warm-up (`encoders.factor_embedding`); the mapping network is
            fitted to it at the end of the warm-up. None trains the mapping network itself.
        distill_steps: Number of steps of this fit.

    Raises:
        UserError: A number is out of range.
    """

    def __init__(
        self,
        loss: nn.Module | None = None,
        warmup_images: int = 100_000,
        warmup_lr: float = 5e-3,
        warmup_betas: tuple[float, float] = (0.9, 0.99),
        weight: float = 10.0,
        final_weight: float = 1.0,
        decay_images: int = 20_000,
        ramp_images: int = 4_000,
        fraction: float = 0.5,
        embedding: FactorEmbedding | None = None,
        distill_steps: int = 11000,
    ) -> None:
        super().__init__()
        self.loss = loss or PairedRegression()
        self.warmup_images = real_number("method.paired.warmup_images", warmup_images, least=0)
        self.decay_images = real_number("method.paired.decay_images", decay_images, least=0)
        self.ramp_images = real_number("method.paired.ramp_images", ramp_images, least=0)
        self.fraction = real_number("method.paired.fraction", fraction, above=0, most=1)
        self.warmup_lr, self.warmup_betas = warmup_lr, warmup_betas
        self.start_weight, self.final_weight = weight, final_weight
        self.embedding, self.distill_steps = embedding, distill_steps

    @property
    def domain(self) -> str | None:
        """Domain of the loss; None for any."""
        return domain_of(self.loss)

    def warming_up(self, images: int) -> bool:
        """Returns whether the warm-up is still running after ``images`` images."""
        return images < self.warmup_images

    def lr(self, images: int) -> float:
        """Returns the learning rate of the warm-up after ``images`` images."""
        progress = min(1.0, images / max(1, self.warmup_images))
        rise = min(1.0, (images + 1) / max(1.0, 0.01 * self.warmup_images))
        return self.warmup_lr * rise * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))

    def weight(self, images: int) -> float:
        """Returns the weight of the regression after ``images`` images; it is 1 in the warm-up."""
        if self.warming_up(images):
            return 1.0
        progress = min(1.0, (images - self.warmup_images) / max(1, self.decay_images))
        return self.start_weight + (self.final_weight - self.start_weight) * progress

    def adversarial_weight(self, images: int) -> float:
        """Returns the weight of the generator's adversarial loss after ``images`` images."""
        return min(1.0, max(0, images - self.warmup_images) / max(1, self.ramp_images))

    @staticmethod
    def latents(normals: Tensor, z_dim: int) -> Tensor:
        """Returns z (B, z_dim) of the images that are rendered from ``normals`` (B, K).

        The mapping network normalises z to the length sqrt(z_dim), so only its direction matters. The other entries
        are therefore random and scaled such that z has exactly this length; the network then sees the first K entries
        unchanged. (If the normals alone are longer, which is rare for K well below z_dim, they shrink slightly.) For
        random samples this is nearly the distribution of a normalised Gaussian z.

        Raises:
            UserError: ``z_dim`` is not larger than K.
        """
        known = normals.shape[1]
        if z_dim <= known:
            raise UserError(
                f"method.paired: generator.z_dim={z_dim} must be larger than the {known} normals of the data"
            )
        rest = torch.randn(len(normals), z_dim - known, device=normals.device, dtype=normals.dtype)
        remaining = (z_dim - normals.square().sum(1, keepdim=True)).clamp_min(1e-3 * z_dim)
        return torch.cat([normals, rest * (remaining / rest.square().sum(1, keepdim=True)).sqrt()], dim=1)

    def codes(self, generator: Generator, normals: Tensor) -> Tensor:
        """Returns the w+ codes (B, L, D) of normals (B, K), from the embedding or else from the mapping network."""
        if self.embedding is None:
            ws: Tensor = generator.mapping(self.latents(normals, generator.z_dim))
            return ws
        w: Tensor = self.embedding(normals)
        return w[:, None].expand(-1, generator.num_ws, -1)

    def distill(self, mapping: MappingNetwork, seed: int = 0) -> float:
        """Fits the mapping network to the embedding.

        Args:
            mapping: Is changed in place.
            seed: Seed of the fit.

        Returns:
            The remaining error as a fraction of the variance of w; 0 without an embedding.
        """
        if self.embedding is None:
            return 0.0
        latents = partial(self.latents, z_dim=mapping.z_dim)
        return distill_mapping(self.embedding, mapping, latents, steps=self.distill_steps, seed=seed)
