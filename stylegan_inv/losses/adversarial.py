"""Adversarial losses: functions of logits, and a loss term for encoders.

The functions return an unweighted scalar, the mean over the batch, unless their docstring says otherwise. Weights and
the factors of lazy regularisation belong to the method that uses them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - the common name
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, WeightedLoss
from stylegan_inv.losses.gan_regularization import r1_penalty
from stylegan_inv.utils.checks import one_of, real_number, whole_number
from stylegan_inv.utils.domains import domain_of

#: nonsaturating: Goodfellow et al. 2014, section 3, and StyleGAN2; minimax: the game of its equation 1; wgan: Arjovsky
#: et al. 2017, with R1 in place of clipped weights; hinge: Lim and Ye 2017; relativistic: Jolicoeur-Martineau 2018,
#: paired as in R3GAN (Huang et al., arXiv 2501.05441).
KINDS = ("nonsaturating", "minimax", "wgan", "hinge", "relativistic")


def generator_loss(fake_logits: Tensor, kind: str = "nonsaturating", real_logits: Tensor | None = None) -> Tensor:
    """Returns the loss of the generator.

    Args:
        fake_logits: Logits f of generated images, any shape; larger values mean "real".
        kind: ``nonsaturating``, ``softplus(-f)``; ``minimax``, ``-softplus(f)``; ``wgan`` and ``hinge``, ``-f``;
            ``relativistic``, ``softplus(r - f)``.
        real_logits: Logits r of as many real images; read by ``relativistic`` only.

    Raises:
        UserError: An unknown kind, or no real logits for ``relativistic``.
    """
    if one_of("adversarial loss", kind, KINDS) == "nonsaturating":
        return F.softplus(-fake_logits).mean()
    if kind == "minimax":
        return -F.softplus(fake_logits).mean()
    if kind == "relativistic":
        if real_logits is None:
            raise UserError(
                "adversarial loss 'relativistic' compares generated with real images, which the loss of the "
                "generator did not get; expected another kind: " + ", ".join(k for k in KINDS if k != kind)
            )
        return F.softplus(real_logits - fake_logits).mean()
    return -fake_logits.mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: str = "nonsaturating") -> Tensor:
    """Returns the loss of the discriminator.

    Args:
        real_logits: Logits r of real images.
        fake_logits: Logits f of generated images, which are detached from the generator.
        kind: ``nonsaturating`` and ``minimax``, ``softplus(-r) + softplus(f)``; ``wgan``, ``f - r``; ``hinge``,
            ``relu(1 - r) + relu(1 + f)``; ``relativistic``, ``softplus(f - r)`` of pairs.

    Raises:
        UserError: An unknown kind.
    """
    if one_of("adversarial loss", kind, KINDS) == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    if kind == "wgan":
        return fake_logits.mean() - real_logits.mean()
    if kind == "relativistic":
        return F.softplus(fake_logits - real_logits).mean()
    return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()


class AdversarialLoss(nn.Module):
    """Adversarial loss of an image discriminator, as a loss term of an encoder.

    The discriminator is part of the term, so that checkpoints contain it, but its parameters are not trained by the
    encoder's optimiser. With ``lr`` above 0 the term is a `losses.compose.LearningTerm`: after the backward pass of the
    encoder, the discriminator takes a step of its own with the images of the last forward pass.

    Args:
        discriminator: Maps images (B, 3, H, W) of the target's size to logits; larger values mean "real".
        kind: See `discriminator_loss`.
        region: ``whole``, or ``interest`` to multiply all images by the mask.
        lr: Learning rate of the discriminator's Adam (betas 0 and 0.99, as StyleGAN2); 0 keeps it fixed.
        r1_gamma: Weight gamma of the R1 regulariser, whose factor is gamma / 2.
        r1_every: Interval of R1 in steps; its weight is multiplied by the interval. 0 disables it.

    Raises:
        UserError: An argument out of its range.
    """

    steps: Tensor

    def __init__(
        self,
        discriminator: nn.Module,
        kind: str = "nonsaturating",
        region: str = "whole",
        lr: float = 0.0,
        r1_gamma: float = 0.1,
        r1_every: int = 16,
    ) -> None:
        super().__init__()
        self.discriminator = discriminator.requires_grad_(False)
        self.kind = one_of("adversarial loss", kind, KINDS)
        self.region = one_of("region", region, ("whole", "interest"))
        self.lr = real_number("adversarial: lr", lr, least=0)
        self.r1_gamma = real_number("adversarial: r1_gamma", r1_gamma, least=0)
        self.r1_every = whole_number("adversarial: r1_every", r1_every, least=0)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._last_images: tuple[Tensor, Tensor] | None = None

    @property
    def domain(self) -> str | None:
        """Domain of the discriminator; None if it is unknown or new."""
        return domain_of(self.discriminator)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the generator's loss of the reconstructions."""
        image = inputs.select("image", self.region)
        if self.lr:
            self._last_images = inputs.select("target", self.region).detach().float(), image.detach().float()
        real_logits = None
        if self.kind == "relativistic":
            with torch.no_grad():
                real_logits = self.discriminator(inputs.select("target", self.region))
        return generator_loss(self.discriminator(image), self.kind, real_logits)

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Returns the optimiser of the discriminator; None if it is fixed."""
        if not self.lr:
            return None
        group = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return torch.optim.Adam([group], lr=self.lr, betas=(0.0, 0.99))

    def learning_losses(self) -> Iterator[WeightedLoss]:
        """Yields the losses of the discriminator, each of which is one step of its optimiser."""
        if self._last_images is None:
            return
        (real, fake), self._last_images = self._last_images, None
        self.discriminator.requires_grad_(True)
        # In full precision, which needs no loss scaling.
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            loss = discriminator_loss(self.discriminator(real), self.discriminator(fake), self.kind)
            yield WeightedLoss("discriminator", loss)
            if self.r1_every and int(self.steps) % self.r1_every == 0:
                real.requires_grad_(True)
                penalty = r1_penalty(self.discriminator(real), real)
                yield WeightedLoss("r1", penalty, self.r1_gamma / 2 * self.r1_every)
        self.discriminator.requires_grad_(False)
        self.steps += 1
