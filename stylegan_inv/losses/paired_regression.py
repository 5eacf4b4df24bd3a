"""Image regression on several scales, for generators that are trained against a known target picture.

Not a part of StyleGAN2: see ``methods/paired_stylegan2.py`` for what it is for, and why only in the embedded world.
"""

from __future__ import annotations

import math
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812
from torch import Tensor, nn

from stylegan_inv.encoders.factor_embedding import FactorEmbedding, distill_mapping
from stylegan_inv.errors import UserError
from stylegan_inv.generators.mapping import MappingNetwork


def pyramid_l1(prediction: Tensor, target: Tensor, levels: int = 3, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error, averaged over an image pyramid (2x2 means, ``levels`` levels, full size first).

    ``weight`` (B, 1, H, W) multiplies the errors of the full size.
    """
    total = prediction.new_zeros(())
    for level in range(levels):
        if level:
            prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        error = (prediction - target).abs()
        total = total + (error if level or weight is None else error * weight).mean()
    return total / levels


def difference_l1(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Mean absolute error of the horizontal and vertical first differences: errors at edges, whatever the shade."""
    error = prediction - target
    across, down = (error[..., 1:] - error[..., :-1]).abs(), (error[..., 1:, :] - error[..., :-1, :]).abs()
    if weight is not None:
        across, down = across * weight[..., 1:], down * weight[..., 1:, :]
    return across.mean() + down.mean()


def local_contrast(image: Tensor) -> Tensor:
    """How far each pixel is from the mean of its 5x5 neighbourhood, over the channels: (B, 1, H, W)."""
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
    return (image - F.avg_pool2d(padded, 5, stride=1)).abs().mean(1, keepdim=True)


class PairedRegression(nn.Module):
    """Pyramid L1 + edges + optionally a perceptual term: what pulls G(z) to the picture that z stands for.

    Args:
        edge: weight of the finite-difference term.
        levels: levels of the pyramid.
        perceptual: weight of the perceptual term.
        detail: a pixel counts ``1 + detail * local_contrast`` of the target. The median of what may be there, which
            an absolute error asks for, leaves out thin things whose place is not yet exactly known: rims of glasses,
            bars of windows, strands of hair.
        network: frozen module with ``features(image) -> list of maps``; needed when ``perceptual`` is not 0.
    """

    def __init__(
        self,
        edge: float = 1.0,
        levels: int = 3,
        perceptual: float = 0.0,
        network: nn.Module | None = None,
        detail: float = 0.0,
    ):
        super().__init__()
        self.edge, self.levels, self.perceptual, self.detail = edge, levels, perceptual, detail
        # In a tuple: a frozen network is not this module's state and stays out of its checkpoints.
        self._network = (network,)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Scalar loss of (B, 3, H, W) against (B, 3, H, W)."""
        weight = 1 + self.detail * local_contrast(target) if self.detail else None
        total = pyramid_l1(prediction, target, self.levels, weight)
        total = total + self.edge * difference_l1(prediction, target, weight)
        network: Any = self._network[0]
        if self.perceptual and network is not None:
            pairs = zip(network.features(prediction), network.features(target.detach()), strict=True)
            maps = [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs]
            total = total + self.perceptual * sum(maps) / len(maps)
        return total


class PairedWarmStart(nn.Module):
    """The schedule of paired training and the latent codes that belong to known pictures.

    Args:
        loss: of G(z) against its picture; default `PairedRegression`.
        warmup_images: regression alone, without a discriminator, for so many images.
        warmup_lr: learning rate of that phase, falling along a cosine to a tenth.
        warmup_betas: Adam's betas of that phase (StyleGAN2's own, without momentum, suit a game and not a regression).
        weight: of the regression beside the adversarial loss when that begins.
        final_weight: what the weight has fallen to, linearly, after ``decay_images`` more images.
        decay_images: see there.
        ramp_images: the generator's adversarial loss rises linearly over so many images while the new discriminator
            learns.
        fraction: share of the generator's batch that is paired once the discriminator plays; the rest are free samples.
        embedding: stands in for the mapping network in the warm-up (`encoders.factor_embedding`); the mapping network
            learns its function when the warm-up ends. None trains the mapping network itself on the pictures.
        distill_steps: steps of that.
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
    ):
        super().__init__()
        if not 0 < fraction <= 1 or min(warmup_images, decay_images, ramp_images) < 0:
            raise UserError(
                f"paired: fraction={fraction}, warmup_images={warmup_images}, decay_images={decay_images}, "
                f"ramp_images={ramp_images}; expected 0 < fraction <= 1 and numbers of images of at least 0"
            )
        self.loss = loss or PairedRegression()
        self.warmup_images, self.warmup_lr, self.warmup_betas = warmup_images, warmup_lr, warmup_betas
        self.start_weight, self.final_weight, self.decay_images = weight, final_weight, decay_images
        self.ramp_images, self.fraction = ramp_images, fraction
        self.embedding, self.distill_steps = embedding, distill_steps

    def warming_up(self, images: int) -> bool:
        """Whether there is no discriminator yet after ``images`` images."""
        return images < self.warmup_images

    def rate(self, images: int) -> float:
        """Learning rate of the warm-up after ``images`` images."""
        progress = min(1.0, images / max(1, self.warmup_images))
        rise = min(1.0, (images + 1) / max(1.0, 0.01 * self.warmup_images))
        return self.warmup_lr * rise * (0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * progress)))

    def weight(self, images: int) -> float:
        """Weight of the regression after ``images`` images: 1 in the warm-up, then falling."""
        if self.warming_up(images):
            return 1.0
        progress = min(1.0, (images - self.warmup_images) / max(1, self.decay_images))
        return self.start_weight + (self.final_weight - self.start_weight) * progress

    def adversarial_weight(self, images: int) -> float:
        """Weight of the generator's adversarial loss after ``images`` images."""
        return min(1.0, max(0, images - self.warmup_images) / max(1, self.ramp_images))

    @staticmethod
    def latents(normals: Tensor, z_dim: int) -> Tensor:
        """Z (B, z_dim) that stands for the pictures rendered from ``normals`` (B, K).

        The mapping network sees only the direction of z: it normalises to the length sqrt(z_dim). The remaining
        entries are therefore drawn at random and scaled so that the whole has exactly this length; then the first K
        entries arrive unchanged. (Where the normals alone are longer, which is rare for K well below z_dim, they
        shrink a little.) For free samples this is nearly the distribution of a normalised normal z.

        Raises:
            UserError: when z_dim is not larger than K.
        """
        known = normals.shape[1]
        if z_dim <= known:
            raise UserError(f"paired: z_dim={z_dim} must be larger than the {known} normals of the data")
        rest = torch.randn(len(normals), z_dim - known, device=normals.device, dtype=normals.dtype)
        room = (z_dim - normals.square().sum(1, keepdim=True)).clamp_min(1e-3 * z_dim)
        return torch.cat([normals, rest * (room / rest.square().sum(1, keepdim=True)).sqrt()], dim=1)

    def codes(self, generator: Any, normals: Tensor) -> Tensor:
        """W+ codes (B, L, D) of the warm-up for normals (B, K): the embedding's, or else the mapping network's."""
        if self.embedding is None:
            return generator.mapping(self.latents(normals, generator.z_dim))
        return self.embedding(normals)[:, None].expand(-1, generator.num_ws, -1)

    def hand_over(self, mapping: MappingNetwork, seed: int = 0) -> float:
        """Teach the mapping network the embedding's function; the remaining error, 1 being the variance of w."""
        if self.embedding is None:
            return 0.0
        latents = partial(self.latents, z_dim=mapping.z_dim)
        return distill_mapping(self.embedding, mapping, latents, steps=self.distill_steps, seed=seed)
