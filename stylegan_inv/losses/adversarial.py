"""Adversarial losses and their regularisers, as pure functions of logits and images; and as a term beside others.

Every function returns an unweighted scalar (a mean over the batch) unless its docstring says otherwise, so that
weights and lazy-regularisation factors stay visible in the method that uses them.
"""

from __future__ import annotations

from collections.abc import Iterator

import torch
import torch.nn.functional as F  # noqa: N812 - the name everybody reads
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, check_region

KINDS = ("logistic", "hinge")


def generator_loss(fake_logits: Tensor, kind: str = "logistic") -> Tensor:
    """Loss of the generator, from the discriminator's logits of its images.

    Args:
        fake_logits: any shape; larger means "real".
        kind: "logistic": non-saturating, ``softplus(-D(G(z)))`` (Goodfellow et al. 2014; StyleGAN2);
            "hinge": ``-D(G(z))`` (Lim and Ye 2017).

    Raises:
        UserError: for another kind.
    """
    if kind == "logistic":
        return F.softplus(-fake_logits).mean()
    if kind == "hinge":
        return -fake_logits.mean()
    raise UserError(f"adversarial loss {kind!r} is unknown; expected one of {', '.join(KINDS)}")


def discriminator_loss(real_logits: Tensor, fake_logits: Tensor, kind: str = "logistic") -> Tensor:
    """Loss of the discriminator: the mean over real images plus the mean over generated ones.

    Args:
        real_logits: logits of real images.
        fake_logits: logits of generated images (computed from detached images).
        kind: "logistic": ``softplus(-D(x)) + softplus(D(G(z)))``; "hinge": ``relu(1-D(x)) + relu(1+D(G(z)))``.

    Raises:
        UserError: for another kind.
    """
    if kind == "logistic":
        return F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
    if kind == "hinge":
        return F.relu(1 - real_logits).mean() + F.relu(1 + fake_logits).mean()
    raise UserError(f"adversarial loss {kind!r} is unknown; expected one of {', '.join(KINDS)}")


def r1_penalty(real_logits: Tensor, real_images: Tensor) -> Tensor:
    """R1 = E |dD(x)/dx|^2 at real images (Mescheder et al. 2018, equation 9, without its gamma/2).

    Args:
        real_logits: (B, 1), computed from ``real_images``.
        real_images: (B, C, H, W) with ``requires_grad``.
    """
    (gradient,) = torch.autograd.grad(real_logits.sum(), real_images, create_graph=True)
    return gradient.square().flatten(1).sum(1).mean()


def path_lengths(images: Tensor, ws: Tensor, noise: Tensor | None = None) -> Tensor:
    """Per-sample length |J_w^T y| of StyleGAN2 (Karras et al. 2020, section 3.2), root mean square over the layers.

    Args:
        images: (B, C, H, W), computed from ``ws``.
        ws: (B, L, D) with a gradient; one code per layer.
        noise: y, standard normal of the images' shape; drawn when None. It is divided by sqrt(H*W) here, which makes
            the expected length independent of the resolution.

    Returns:
        (B,) lengths, differentiable a second time.
    """
    y = torch.randn_like(images) if noise is None else noise
    y = y / (images.shape[2] * images.shape[3]) ** 0.5
    (gradient,) = torch.autograd.grad((images * y).sum(), ws, create_graph=True)
    return gradient.square().sum(2).mean(1).sqrt()


def path_length_penalty(lengths: Tensor, mean_length: Tensor) -> Tensor:
    """E (|J_w^T y| - a)^2, with ``a`` the running mean (a scalar, no gradient) of the lengths."""
    return (lengths - mean_length.detach()).square().mean()


class AdversarialLoss(nn.Module):
    """The generator's side of an image discriminator, as a term of an encoder's loss; it brings the other side too.

    The discriminator belongs to the term, so that checkpoints hold it, but is frozen for the encoder's optimiser. With
    ``lr`` it learns in a step of its own after each of the encoder's, from the pictures that it judged last
    (`learning_losses`, taken by `methods.base`); else it judges as it was given.

    Args:
        discriminator: images of the target's size (B, 3, H, W) -> logits, larger for images that look real.
        kind: ``logistic`` or ``hinge``.
        region: ``whole`` or ``interest`` (all pictures multiplied by the mask).
        lr: of the discriminator's Adam (betas 0 and 0.99, as StyleGAN2's); 0 leaves it as it is.
        r1_gamma: weight of R1; its half counts, as in the paper.
        r1_every: steps between two with R1, which then counts so many times; 0 turns it off.
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
        if kind not in KINDS:
            raise UserError(f"adversarial loss {kind!r} is unknown; expected one of {', '.join(KINDS)}")
        if min(lr, r1_gamma, r1_every) < 0:
            raise UserError(f"adversarial: lr={lr}, r1_gamma={r1_gamma}, r1_every={r1_every}; expected at least 0")
        self.discriminator, self.kind = discriminator.requires_grad_(False), kind
        self.region = check_region(region, ("whole", "interest"))
        self.lr, self.r1_gamma, self.r1_every = lr, r1_gamma, r1_every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))
        self._judged: tuple[Tensor, Tensor] | None = None

    def forward(self, inputs: LossInputs) -> Tensor:
        """The generator's loss of the reconstructions."""
        image = inputs.select("image", self.region)
        if self.lr:
            self._judged = inputs.select("target", self.region).detach().float(), image.detach().float()
        return generator_loss(self.discriminator(image), self.kind)

    def optimizer(self) -> torch.optim.Optimizer:
        """That of the discriminator."""
        group = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return torch.optim.Adam([group], lr=self.lr, betas=(0.0, 0.99))

    def learning_losses(self) -> Iterator[tuple[str, Tensor, float]]:
        """Name, raw value and weight of each loss of the discriminator, to be stepped one after the other."""
        if self._judged is None:
            return
        (real, fake), self._judged = self._judged, None
        self.discriminator.requires_grad_(True)
        # In full precision, and without loss scaling to care for.
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
