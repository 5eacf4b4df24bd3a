"""StyleGAN2 with a paired warm start, which trains the embedded generator in about an hour on two CPU cores.

Not a paper, and not StyleGAN2's training: results do not show what a GAN alone would reach. It requires data with known
latent vectors, that is, a procedural data set such as SynthFaces. The generator is first regressed to the image of each
z, with an embedding of the factors in place of the mapping network. Then the mapping network is regressed to the
embedding. Finally the discriminator joins, while a part of each batch stays paired; this phase still uses codes of the
embedding, so that each generated image has a real counterpart, and trains the synthesis network only.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.losses import adversarial
from stylegan_inv.losses.paired.warm_start import PairedWarmStart
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training

_log = logging.getLogger(__name__)


class PairedStyleGAN2Training(StyleGAN2Training):
    """`StyleGAN2Training` on batches with the latent vectors ``normals`` (B, K) of each ``image``.

    Args:
        generator: Generator to train.
        discriminator: Maps images to logits (B, 1); not used in the warm-up.
        paired: Schedule and loss of the regression, and the codes that belong to latent vectors.
        **kwargs: Arguments of `StyleGAN2Training`.
    """

    warm_up_ended: Tensor

    def __init__(
        self, generator: Generator, discriminator: Discriminator, *, paired: PairedWarmStart, **kwargs: Any
    ) -> None:
        if generator.c_dim:
            raise UserError(
                f"method.paired: generator.c_dim={generator.c_dim} is conditional, expected an unconditional generator"
            )
        super().__init__(generator, discriminator, **kwargs)
        self.paired = paired
        self.register_buffer("warm_up_ended", torch.zeros((), dtype=torch.bool))

    def generator_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of generator and embedding; Adam skips those without a gradient in a phase."""
        return [*self.generator.parameters(), *self.paired.parameters()]

    def update(self, batch: Mapping[str, Tensor], seen: int, number: int) -> None:
        """Takes a step of the regression in the warm-up, and the phases of StyleGAN2 after it."""
        if "normals" not in batch:
            raise UserError(
                f"method.paired: the data give {', '.join(batch)} but no normals, which only SynthFaces has; give "
                "dataset=synthfaces, or method=stylegan2 for StyleGAN2 as published"
            )
        warming_up = self.paired.warming_up(seen)
        lr, betas = self.corrected(self.lr_g, self.extra_g_steps)
        if warming_up:
            lr, betas = self.paired.lr(seen), self.paired.warmup_betas
        optimizer, _ = self.both_optimizers()
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = lr, betas
        if warming_up:
            self._warm_up_step(optimizer, batch)
            return
        if not self.warm_up_ended:
            self._end_warm_up()
        super().update(batch, seen, number)

    def _warm_up_step(self, optimizer: Any, batch: Mapping[str, Tensor]) -> None:
        ws = self.paired.codes(self.generator, batch["normals"])
        # Without noise: the codes must describe the image completely.
        loss = self.paired.loss(self.generator.synthesis(ws, noise="none"), batch["image"])
        self.take_step(optimizer, self.generator_parameters(), loss, counts=True)
        self.update_latent_average(ws)
        self.log("train/loss/paired", loss.detach(), prog_bar=True)

    def _end_warm_up(self) -> None:
        """Regresses the mapping network to the embedding, once; all ranks take the result of the first."""
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
        """Ends the warm-up if the run ends with it, so that the mapping network is trained in any case."""
        if not self.warm_up_ended and not self.paired.warming_up(int(self.images_seen)):
            self._end_warm_up()

    def _paired_codes(self, normals: Tensor) -> Tensor:
        """Returns W+ codes (B, L, D) after the warm-up; no gradient reaches the embedding, which must stay fixed."""
        ws = self.paired.codes(self.generator, normals)
        return ws if self.paired.embedding is None else ws.detach().requires_grad_(torch.is_grad_enabled())

    def random_codes(self, count: int, c: Tensor | None = None) -> Tensor:
        """Returns W+ codes (count, L, D) of random latent vectors."""
        if self.paired.embedding is None:
            return super().random_codes(count, c)
        return self._paired_codes(torch.randn(count, self.paired.embedding.num_normals, device=self.device))

    def generator_loss(self, batch: Mapping[str, Tensor], seen: int) -> tuple[Tensor, Tensor]:
        """Returns the codes and the loss of a batch of paired and random samples.

        The loss is the adversarial loss of all samples and the regression of the paired ones.
        """
        real = batch["image"]
        count = max(1, round(len(real) * self.paired.fraction))
        ws = self._paired_codes(batch["normals"][:count])
        if count < len(real):
            ws = torch.cat([ws, self.random_codes(len(real) - count)])
        fake = self.generator.synthesis(ws, noise=self.noise)
        loss = adversarial.generator_loss(self.logits(fake), self.loss, self.real_logits(batch))
        regression = self.paired.loss(fake[:count], real[:count])
        self.log_dict({"train/loss/generator": loss.detach(), "train/loss/paired": regression.detach()}, prog_bar=True)
        return ws, self.paired.adversarial_weight(seen) * loss + self.paired.weight(seen) * regression

    @torch.no_grad()
    def sample(self, z: Tensor, psi: float = 1.0, c: Tensor | None = None, noise: str = "const") -> Tensor:  # noqa: D102
        embedding = self.paired.embedding
        if embedding is None or self.warm_up_ended:
            return super().sample(z, psi, c, noise)
        # The mapping network is untrained in the warm-up, in which the synthesis network sees no noise.
        ws = self.paired.codes(self.generator_ema, z[:, : embedding.num_normals])
        image: Tensor = self.generator_ema.synthesis(self.generator.w_avg.lerp(ws, psi), noise="none")
        return image.clamp(-1, 1)
