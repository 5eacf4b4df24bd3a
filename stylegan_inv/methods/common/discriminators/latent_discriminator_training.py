"""Training of e4e's latent discriminator (Tov et al. 2021, section 5.2; official code: training/coach.py)."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stylegan_inv.losses.adversarial import discriminator_loss, generator_loss
from stylegan_inv.losses.compose import WeightedLoss
from stylegan_inv.losses.gan_regularization import r1_penalty
from stylegan_inv.losses.latent.latent_discriminator import LatentDiscriminator
from stylegan_inv.losses.latent.latent_pool import LatentPool
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer


class LatentDiscriminatorTraining(nn.Module):
    """A latent discriminator with its optimiser and its pools of earlier codes.

    Args:
        w_dim: Dimension D of the latent codes.
        weight: Weight of the adversarial term in the encoder's loss.
        lr: Learning rate of the discriminator's Adam.
        r1_gamma: Weight of the R1 regulariser.
        r1_every: Interval of R1 in steps; its weight is multiplied by the interval. 0 disables it.
        pool_size: Number of codes in each pool (official code: ``w_pool_size``); 0 disables the pools.
    """

    steps: Tensor

    def __init__(
        self,
        w_dim: int,
        *,
        weight: float = 0.1,
        lr: float = 2e-5,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        pool_size: int = 50,
    ) -> None:
        super().__init__()
        # Parameters require gradients in the discriminator's own steps only, so that the encoder's backward pass leaves
        # none in them.
        self.discriminator = LatentDiscriminator(w_dim).requires_grad_(False)
        self.fakes, self.reals = LatentPool(pool_size, seed=1), LatentPool(pool_size, seed=2)
        self.weight, self.lr, self.r1_gamma, self.r1_every = weight, lr, r1_gamma, r1_every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def auxiliary_optimizer(self) -> AuxiliaryOptimizer:
        """Returns Adam on the discriminator, with PyTorch's betas as in the official code."""
        group = {"params": list(self.discriminator.parameters()), "name": "latent"}
        return AuxiliaryOptimizer("latent_discriminator", torch.optim.Adam([group], lr=self.lr))

    def encoder_loss(self, codes: Tensor) -> Tensor:
        """Returns the encoder's adversarial loss, the mean of ``softplus(-D(w))`` over codes (B, k, D)."""
        return generator_loss(self.discriminator(codes))

    def learning_losses(self, real: Tensor, fake: Tensor) -> Iterator[WeightedLoss]:
        """Yields the losses of the discriminator, each of which is one step of its optimiser.

        Args:
            real: Codes of the mapping network, (B, L, D).
            fake: Codes of the active layers of the encoder, (B, k, D); one layer of each image is drawn.
        """
        real, fake = self.reals.swap(real), self.fakes.swap(fake)
        self.discriminator.requires_grad_(True)
        # In full precision: the network is tiny, and needs no loss scaling.
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            loss = discriminator_loss(self.discriminator(real), self.discriminator(fake))
            yield WeightedLoss("latent_discriminator", loss)
            if self.r1_every and int(self.steps) % self.r1_every == 0:
                real = real.detach().requires_grad_(True)
                penalty = r1_penalty(self.discriminator(real), real)
                yield WeightedLoss("latent_r1", penalty, self.r1_gamma / 2 * self.r1_every)
        self.discriminator.requires_grad_(False)
        self.steps += 1
