"""Adversarial losses and their regularisers, as functions of logits and images and as a loss term.

Every function returns an unweighted scalar (a mean over the batch) unless its docstring says otherwise, so that
weights and lazy-regularisation factors stay visible in the method that uses them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.losses.compose import LossInputs, check_region
from stylegan_inv.utils.checks import one_of, real_number, whole_number

KINDS = ("logistic", "hinge")


def generator_loss(fake_logits: Tensor, kind: str = "logistic") -> Tensor:
    """Returns the loss of the generator, given the discriminator's logits of its images.

    Args:
        fake_logits: Logits of any shape; larger means "real".
        kind: ``logistic``: non-saturating, ``softplus(-D(G(z)))`` (Goodfellow et al. 2014; StyleGAN2);
            ``hinge``: ``-D(G(z))`` (Lim and Ye 2017).

    Raises:
        UserError: The kind is unknown.
    """
    _check_kind(kind)
    if kind == "logistic":
        return F.softplus(-fake_logits).mean()
    return -fake_logits.mean()


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: str = "logistic") -> Tensor:
    """Returns the loss of the discriminator: the mean over real images plus the mean over generated ones.

    Args:
        real_logits: Logits of real images.
        fake_logits: Logits of generated images, which are detached.
        kind: ``logistic``: ``softplus(-D(x)) + softplus(D(G(z)))``; ``hinge``: ``relu(1-D(x)) + relu(1+D(G(z)))``.

    Raises:
        UserError: The kind is unknown.
    """
    _check_kind(kind)
    if kind == "logistic":
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()


def _check_kind(kind: str) -> str:
    return one_of("adversarial loss: kind", kind, KINDS)


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """Returns R1 = E |dD(x)/dx|^2 at real images (Mescheder et al. 2018, equation 9, without the factor gamma/2).

    Args:
        real_logits: Logits (B, 1), computed from ``real_images``.
        real_images: Images (B, C, H, W) or latent codes (B, D) with ``requires_grad``.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor | None = None) -> Tensor:
    """Returns the lengths |J_w^T y| of StyleGAN2 (Karras et al. 2020, section 3.2), root mean square over the layers.

    Args:
        images: Images (B, C, H, W), computed from ``ws``.
        ws: Latent codes (B, L, D) with ``requires_grad``, one per layer.
        noise: Standard normal y of the images' shape; drawn if None. It is divided by sqrt(H*W), which makes the
            expected length independent of the resolution.

    Returns:
        Lengths (B,), which can be differentiated again.
    """
    y = torch.randn_like(images) if noise is None else noise
    y = y / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_length_penalty(lengths: Tensor, mean_length: Tensor) -> Tensor:
    """Returns E (|J_w^T y| - a)^2, where ``a`` is the running mean of the lengths (a scalar without gradient)."""
    return (lengths - mean_length.detach()).square().mean()


class AdversarialLoss(nn.Module):
    """The generator's adversarial loss as a term of an encoder's loss, together with its image discriminator.

    The discriminator is part of the term, so checkpoints contain it, but the encoder's optimiser does not train it.
    With a positive ``lr`` it is trained by its own optimiser after each step of the encoder, on the images of that step
    (see `learning_losses`); otherwise it stays as it is.

    Args:
        discriminator: Maps images of the target's size (B, 3, H, W) to logits; larger means "real".
        kind: ``logistic`` or ``hinge``.
        region: ``whole`` or ``interest`` (all images are multiplied by the mask).
        lr: Learning rate of the discriminator's Adam (betas 0 and 0.99, as in StyleGAN2); 0 does not train it.
        r1_gamma: Weight of R1, which is halved as in the paper.
        r1_every: Interval of lazy regularisation in steps: R1 is computed every ``r1_every`` steps and multiplied by
            this number. 0 disables R1.

    Raises:
        UserError: The kind or the region is unknown, or a number is negative.
    """

    steps: Tensor

    def __init__(
        self,
        discriminator: nn.Module,
        kind: str = "logistic",
        region: str = "whole",
        lr: float = 0.0,
        r1_gamma: float = 0.1,
        r1_every: int = 16,
    ) -> None:
        super().__init__()
        self.discriminator, self.kind = discriminator.requires_grad_(False), _check_kind(kind)
        self.region = check_region(region, ("whole", "interest"))
        self.lr = real_number("adversarial: lr", lr, least=0)
        self.r1_gamma = real_number("adversarial: r1_gamma", r1_gamma, least=0)
        self.r1_every = whole_number("adversarial: r1_every", r1_every, least=0)
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._last_images: tuple[Tensor, Tensor] | None = None

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the generator's loss of the reconstructions."""
        image = inputs.select("image", self.region)
        if self.lr:
            self._last_images = inputs.select("target", self.region).detach().float(), image.detach().float()
        return generator_loss(self.discriminator(image), self.kind)

    def optimizer(self) -> torch.optim.Optimizer:
        """Returns the optimiser of the discriminator."""
        group = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return torch.optim.Adam([group], lr=self.lr, betas=(0.0, 0.99))

    def learning_losses(self) -> Iterator[tuple[str, Tensor, float]]:
        """Yields name, raw value and weight of each loss of the discriminator; an optimiser step follows each."""
        if self._last_images is None:
            return
        (real, fake), self._last_images = self._last_images, None
        self.discriminator.requires_grad_(True)
        # Full precision needs no loss scaling.
        with torch.autocast(real.device.type, enabled=False), torch.enable_grad():
            yield (
                "discriminator",
                discriminator_loss(self.discriminator(real), self.discriminator(fake), self.kind),
                1.0,
            )
            if self.r1_every and int(self.steps) % self.r1_every == 0:
                real.requires_grad_(True)
                yield "r1", r1_penalty(self.discriminator(real), real), self.r1_gamma / 2 * self.r1_every
        self.discriminator.requires_grad_(False)
        self.steps += 1
