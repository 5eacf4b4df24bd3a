"""The game of e4e's encoder against a discriminator of latent codes (Tov et al. 2021, section 5.2; official coach)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.losses.adversarial import discriminator_loss, generator_loss, r1_penalty
from stylegan_inv.losses.latent_discriminator import LatentDiscriminator, LatentPool
from stylegan_inv.optim.gradient_averaging import step_beside


class LatentAdversary(nn.Module):
    """A discriminator of codes with its optimiser, its history pools and its place in the encoder's loss.

    Args:
        w_dim: D of the codes.
        weight: of the adversarial term in the encoder's loss.
        lr: of the discriminator's Adam.
        r1_gamma: weight of R1.
        r1_every: steps between two R1 steps; 0 turns it off.
        pool_size: codes in each history pool (``w_pool_size``); 0 keeps none.
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
        # Frozen but in its own steps, so that the encoder's backward pass leaves no gradient in it.
        self.discriminator = LatentDiscriminator(w_dim).requires_grad_(False)
        self.fakes, self.reals = LatentPool(pool_size, seed=1), LatentPool(pool_size, seed=2)
        self.weight, self.lr, self.r1_gamma, self.r1_every = weight, lr, r1_gamma, r1_every
        self.register_buffer("steps", torch.zeros((), dtype=torch.int64))

    def optimizer(self) -> torch.optim.Optimizer:
        """Adam on the discriminator, with PyTorch's betas as in the official code."""
        return torch.optim.Adam([{"params": list(self.discriminator.parameters()), "name": "latent"}], lr=self.lr)

    def learn(self, method: Any, codes: Tensor) -> None:
        """One step of the discriminator: codes of the mapping network against the encoder's.

        Args:
            method: whose generator makes real codes, whose second optimiser is stepped, and who logs.
            codes: (B, L, D) of the encoder; one active layer of each image is shown.
        """
        if not method.trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(codes).all()), all=True):
            return  # the step will be skipped (callbacks.non_finite); history and discriminator must not keep it
        z = torch.randn(len(codes), method.generator.z_dim, device=codes.device)
        real = self.reals.swap(method.generator.mapping.w(z))
        fake = self.fakes.swap(codes[:, : method.active_layers].float())
        self.discriminator.requires_grad_(True)
        # A tiny network: full precision, and no loss scaling to care for.
        with torch.autocast(codes.device.type, enabled=False), torch.enable_grad():
            loss = discriminator_loss(self.discriminator(real), self.discriminator(fake))
            optimizer = method.optimizers()[1].optimizer
            step_beside(method.trainer, optimizer, loss)
            logs = {"train/loss/latent_discriminator": loss.detach()}
            if self.r1_every and int(self.steps) % self.r1_every == 0:
                penalty = self.r1(real)
                step_beside(method.trainer, optimizer, penalty * (self.r1_gamma / 2 * self.r1_every))
                logs["train/loss/latent_r1"] = penalty.detach()
        self.discriminator.requires_grad_(False)
        self.steps += 1
        method.log_dict(logs)

    def r1(self, real: Tensor) -> Tensor:
        """Mean over (B, D) codes of the squared gradient of the logit."""
        real = real.detach().requires_grad_(True)
        return r1_penalty(self.discriminator(real), real)

    def judge(self, codes: Tensor) -> Tensor:
        """The encoder's side: mean of softplus(-D) over codes (B, k, D)."""
        return generator_loss(self.discriminator(codes))
