"""StyleGAN2 with a paired warm start: how the embedded generator is made in about an hour on two CPU cores.

Not a paper, and not StyleGAN2 training: pictures made with it do not tell how well a pure GAN would do. It needs data
whose latent vector is known, that is, a procedural data set such as SynthFaces. G is first regressed to the picture of
each z, through an embedding of the factors in place of the mapping network; the mapping network then learns the
embedding's function; at last the discriminator joins, while a part of each batch stays paired. The game still runs on
the embedding's codes, so that each generated picture has its real one, and trains the synthesis network alone.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses import adversarial
from stylegan_inv.losses.paired.warm_start import PairedWarmStart
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training

_log = logging.getLogger(__name__)


class PairedStyleGAN2Training(StyleGAN2Training):
    """`StyleGAN2Training` on batches with ``normals`` (B, K) beside the ``image``.

    Args:
        generator: trained.
        discriminator: image -> logits (B, 1); idle during the warm-up.
        paired: the schedule, the loss, and which z belongs to which picture.
        **kwargs: of `StyleGAN2Training`.
    """

    warm_up_ended: Tensor

    def __init__(self, generator: nn.Module, discriminator: nn.Module, *, paired: PairedWarmStart, **kwargs: Any):
        super().__init__(generator, discriminator, **kwargs)
        self.paired = paired
        self.register_buffer("warm_up_ended", torch.zeros((), dtype=torch.bool))

    def generator_parameters(self) -> list[nn.Parameter]:
        """G's and the embedding's; what gives no gradient in a phase, Adam passes over."""
        return [*self.generator.parameters(), *self.paired.parameters()]

    def update(self, batch: Mapping[str, Tensor], seen: int, number: int) -> None:
        """Regression during the warm-up, then StyleGAN2's steps."""
        if "normals" not in batch:
            raise UserError(
                f"method.paired: the data give {', '.join(batch)} but no normals, which only SynthFaces has; give "
                "dataset=synthfaces, or method=stylegan2 for StyleGAN2 as published"
            )
        warm = self.paired.warming_up(seen)
        lr, betas = self._lazy(self.lr_g, self.path_length_every)
        if warm:
            lr, betas = self.paired.lr(seen), self.paired.warmup_betas
        optimizers: Any = self.optimizers()
        optimizer = optimizers[0]
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = lr, betas
        if warm:
            self._warm_up_step(optimizer, batch)
            return
        if not self.warm_up_ended:
            self._end_warm_up()
        super().update(batch, seen, number)

    def _warm_up_step(self, optimizer: Any, batch: Mapping[str, Tensor]) -> None:
        ws = self.paired.codes(self.generator, batch["normals"])
        # No noise: the code has to carry everything.
        loss = self.paired.loss(self.generator.synthesis(ws, noise="none"), batch["image"])
        self._step(optimizer, self.generator_parameters(), loss, counts=True)
        self._track(ws)
        self.log("train/loss/paired", loss.detach(), prog_bar=True)

    def _end_warm_up(self) -> None:
        """Hand the embedding's function over to the mapping network, once; the ranks take the first one's result."""
        self.warm_up_ended.fill_(True)
        if self.paired.embedding is None:
            return
        error = self.paired.distill(self.generator.mapping, self.seed)
        state = self.generator.mapping.state_dict()
        if self.trainer.world_size > 1:
            state = self.trainer.strategy.broadcast({name: value.cpu() for name, value in state.items()})
        for network in (self.generator, self.generator_ema):
            network.mapping.load_state_dict(state)
        if self.trainer.is_global_zero:
            _log.info("warm-up ended; the mapping network explains %.1f%% of the variance of w", 100 * (1 - error))

    def on_train_end(self) -> None:
        """A run that consists of the warm-up alone ends with the hand-over, so that it gives a whole generator."""
        if not self.warm_up_ended and not self.paired.warming_up(int(self.images_seen)):
            self._end_warm_up()

    def _paired_codes(self, normals: Tensor) -> Tensor:
        """W+ codes (B, L, D) of the game; the embedding rests, or else the mapping network would have to follow it."""
        ws = self.paired.codes(self.generator, normals)
        return ws if self.paired.embedding is None else ws.detach().requires_grad_(torch.is_grad_enabled())

    def _free_codes(self, count: int) -> Tensor:
        if self.paired.embedding is None:
            return super()._free_codes(count)
        return self._paired_codes(torch.randn(count, self.paired.embedding.num_normals, device=self.device))

    def generator_loss(self, batch: Mapping[str, Tensor], seen: int) -> tuple[Tensor, Tensor]:
        """A batch of paired and free samples; regression of the former beside the adversarial loss of all."""
        real = batch["image"]
        count = max(1, round(len(real) * self.paired.fraction))
        ws = self._paired_codes(batch["normals"][:count])
        if count < len(real):
            ws = torch.cat([ws, self._free_codes(len(real) - count)])
        fake = self.generator.synthesis(ws, noise=self.noise)
        loss = adversarial.generator_loss(self._judge(fake), self.loss)
        regression = self.paired.loss(fake[:count], real[:count])
        self.log_dict({"train/loss/generator": loss.detach(), "train/loss/paired": regression.detach()}, prog_bar=True)
        return ws, self.paired.adversarial_weight(seen) * loss + self.paired.weight(seen) * regression

    @torch.no_grad()
    def sample(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """The average generator's images of z (B, Z): (B, 3, R, R) in [-1, 1]."""
        embedding = self.paired.embedding
        if embedding is None or self.warm_up_ended:
            return super().sample(z, psi)
        # The mapping network has learnt nothing yet.
        ws = self.paired.codes(self.generator_ema, z[:, : embedding.num_normals])
        return self.generator_ema.synthesis(self.generator.w_avg.lerp(ws, psi), noise="none").clamp(-1, 1)
