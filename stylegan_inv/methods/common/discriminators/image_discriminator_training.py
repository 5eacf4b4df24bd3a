"""Training of an image discriminator besides an encoder, as in HyperInverter and StyleFeatureEditor."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.losses.adversarial import discriminator_loss, generator_loss
from stylegan_inv.losses.compose import WeightedLoss
from stylegan_inv.losses.gan_regularization import r1_penalty
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer
from stylegan_inv.utils.checks import real_number, whole_number
from stylegan_inv.utils.domains import domain_of


class ImageDiscriminatorTraining(nn.Module):
    """A discriminator of images with its optimiser.

    Unlike the loss term `losses.AdversarialLoss`, it sees each real image once, however many reconstructions there are
    of it, at the size of the generator.

    Args:
        discriminator: Maps images (B, 3, R, R) to logits; larger values mean "real".
        weight: Weight of the adversarial term in the encoder's loss.
        first_step: Training step from which it is used.
        lr: Learning rate of Adam.
        betas: Decay rates of Adam.
        r1_gamma: Weight gamma of the R1 regulariser, whose factor is gamma / 2.
        r1_every: Interval of R1 in steps; its weight is multiplied by the interval. 0 disables it.
    """

    steps: Tensor

    def __init__(
        self,
        discriminator: nn.Module,
        *,
        weight: float = 0.01,
        first_step: int = 0,
        lr: float = 1e-4,
        betas: Sequence[float] = (0.9, 0.999),
        r1_gamma: float = 10.0,
        r1_every: int = 16,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator.requires_grad_(False)
        self.weight = real_number("method.adversary.weight", weight, least=0)
        self.first_step = whole_number("method.adversary.first_step", first_step, least=0)
        self.lr, self.betas, self.r1_gamma, self.r1_every = lr, (betas[0], betas[1]), r1_gamma, r1_every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def domain(self) -> str | None:
        """Domain of the discriminator; None if it is unknown or new."""
        return domain_of(self.discriminator)

    def auxiliary_optimizer(self) -> AuxiliaryOptimizer:
        """Returns Adam on the discriminator."""
        group = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return AuxiliaryOptimizer("discriminator", torch.optim.Adam([group], lr=self.lr, betas=self.betas))

    def encoder_loss(self, images: Tensor) -> Tensor:
        """Returns the encoder's adversarial loss, the mean of ``softplus(-D(y))`` over images (B, 3, R, R)."""
        return generator_loss(self.discriminator(images))

    def learning_losses(self, real: Tensor, fake: Tensor) -> Iterator[WeightedLoss]:
        """Yields the losses of the discriminator, each of which is one step of its optimiser.

        Args:
            real: Images (B, 3, R, R).
            fake: Reconstructions (B', 3, R, R).
        """
        dtype = next(self.discriminator.parameters()).dtype
        real, fake = real.detach().to(dtype), fake.detach().to(dtype)
        self.discriminator.requires_grad_(True)
        # In full precision, which needs no loss scaling.
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            # Half of the usual loss, the mean over both kinds of images.
            logits = self.discriminator(real), self.discriminator(fake)
            yield WeightedLoss("discriminator", discriminator_loss(*logits), 0.5)
            if self.r1_every and int(self.steps) % self.r1_every == 0:
                real = real.clone().requires_grad_(True)
                yield WeightedLoss("r1", r1_penalty(self.discriminator(real), real), self.r1_gamma / 2 * self.r1_every)
        self.discriminator.requires_grad_(False)
        self.steps += 1
