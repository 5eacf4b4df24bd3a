"""Training of an image discriminator besides an encoder, as HyperInverter's (Dinh et al. 2022; official code:
VinAIResearch/HyperInverter, commit 3966220, training/coach.py).

Differences to `losses.adversarial.AdversarialLoss`: it starts after some steps, compares at the generator's resolution
whatever that of the other losses, the discriminator's loss is halved, and its Adam has PyTorch's betas.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn

from stylegan_inv.losses.adversarial import discriminator_loss, generator_loss
from stylegan_inv.losses.compose import WeightedLoss
from stylegan_inv.losses.gan_regularization import r1_penalty
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer
from stylegan_inv.utils.checks import real_number, whole_number
from stylegan_inv.utils.domains import domain_of


class ImageDiscriminatorTraining(nn.Module):
    """An image discriminator with its optimiser.

    Args:
        discriminator: Maps images (B, 3, R, R) of the generator's resolution to logits.
        weight: Weight of the adversarial term in the encoder's loss. Official code: 0.005 on FFHQ, 0.15 on churches.
        lr: Learning rate of the discriminator's Adam.
        r1_gamma: Weight gamma of the R1 regulariser, whose factor is gamma / 2.
        r1_every: Interval of R1 in steps; its weight is multiplied by the interval. 0 disables it.
        start_steps: Steps before the discriminator is used and trained.
    """

    steps: Tensor

    def __init__(
        self,
        discriminator: nn.Module,
        *,
        weight: float = 0.005,
        lr: float = 1e-4,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        start_steps: int = 0,
    ) -> None:
        super().__init__()
        # Parameters require gradients in the discriminator's own steps only.
        self.discriminator = discriminator.requires_grad_(False)
        self.weight, self.lr = real_number("method.adversary.weight", weight, 0), lr
        self.r1_gamma, self.r1_every = r1_gamma, whole_number("method.adversary.r1_every", r1_every, 0)
        self.start_steps = whole_number("method.adversary.start_steps", start_steps, 0)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    @property
    def domain(self) -> str | None:
        """Domain of the discriminator; None if it is unknown or new."""
        return domain_of(self.discriminator)

    def auxiliary_optimizer(self) -> AuxiliaryOptimizer:
        """Returns Adam on the discriminator."""
        group = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return AuxiliaryOptimizer("discriminator", torch.optim.Adam([group], lr=self.lr))

    def encoder_loss(self, image: Tensor) -> Tensor:
        """Returns the encoder's adversarial loss, the mean of ``softplus(-D(y))`` over images (B, 3, R, R)."""
        return generator_loss(self.discriminator(image))

    def learning_losses(self, real: Tensor, fake: Tensor) -> Iterator[WeightedLoss]:
        """Yields the losses of the discriminator, each of which is one step of its optimiser.

        Args:
            real: Images (B, 3, R, R).
            fake: Reconstructions of the same size.
        """
        dtype = next(self.discriminator.parameters()).dtype
        real, fake = real.detach().to(dtype), fake.detach().to(dtype)
        self.discriminator.requires_grad_(True)
        # In full precision, which needs no loss scaling.
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            loss = discriminator_loss(self.discriminator(real), self.discriminator(fake))
            yield WeightedLoss("discriminator", loss, 0.5)
            if self.r1_every and int(self.steps) % self.r1_every == 0:
                real = real.clone().requires_grad_(True)
                penalty = r1_penalty(self.discriminator(real), real)
                yield WeightedLoss("r1", penalty, self.r1_gamma / 2 * self.r1_every)
        self.discriminator.requires_grad_(False)
        self.steps += 1
