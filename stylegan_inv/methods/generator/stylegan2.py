"""StyleGAN2: training the generator.

"Analyzing and Improving the Image Quality of StyleGAN", Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, CVPR 2020,
arXiv 1912.04958; augmentation: "Training Generative Adversarial Networks with Limited Data", Karras et al., NeurIPS
2020, arXiv 2006.06676. Official code: https://github.com/NVlabs/stylegan2-ada-pytorch (commit d72cc7d), which is
followed in the order of the phases (G, path length, D, R1) and in all constants.

What differs:
* The tracked mean of W decays with 0.998 (the later stylegan3 repository) and not 0.995, and sees G's batches only.
* Both networks see the same number of images; ``d_steps_per_g`` > 1 updates G on every n-th batch only.
* A progressive generator grows as in Karras et al., ICLR 2018, see `generators.progressive`; batch size and learning
  rates stay the same at all resolutions, and Adam keeps its averages from one to the next.
"""

from __future__ import annotations

import copy
import logging
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.formats import save_generator
from stylegan_inv.generators.progressive import Growth, Stage, at_stage, enlarged
from stylegan_inv.losses import adversarial
from stylegan_inv.optim.gradient_averaging import (
    average_gradients,
    mean_over_ranks,
    update_moving_average,
    without_sync,
)

_log = logging.getLogger(__name__)


class StyleGAN2Training(pl.LightningModule):
    """Trains a generator against a discriminator; ``trainer.max_steps`` counts updates of the generator.

    Batches are dicts with ``image`` (B, 3, R, R) in [-1, 1].
    Everything a resumed run needs is in the state dict; randomness is a function of (seed, batch number, rank).
    Precision: 32-true or bf16-mixed (the regularisers' extra steps do not go through a loss scaler).

    Args:
        generator: trained; its exponential moving average is what `export` gives.
        discriminator: image -> logits (B, 1).
        optimizer: partial of an Adam-like optimiser, called with lr and betas as corrected for lazy regularisation.
        lr_g: learning rate of G.
        lr_d: learning rate of D.
        betas: of both optimisers.
        loss: "logistic" (non-saturating) or "hinge".
        d_steps_per_g: batches for D between two updates of G.
        style_mixing: probability that a batch mixes two codes at a random layer.
        r1_gamma: weight of R1. ADA's rule of thumb: 0.0002 * resolution^2 / batch size.
        r1_every: D steps between two R1 steps; 0 turns R1 off.
        path_length_weight: of the path-length regulariser.
        path_length_every: G steps between two of them; 0 turns it off.
        path_length_decay: of the running mean length.
        path_length_shrink: divides the batch of that step.
        ema_images: half-life of the average generator, in images.
        ema_rampup: the half-life is at most this share of the images seen; None for no ramp.
        w_avg_decay: of the tracked mean of W.
        noise: "random", "const" or "none" while the discriminator plays.
        grow_from: resolution at which a progressive generator begins; others do not use this and the next two.
        grow_images: images for which it stays at a resolution.
        fade_images: images over which the next resolution is faded in.
        augment: applied to all that D sees (`data.augment`); None for none.
        metrics: name -> metric with ``update(images, real=...)``; None or {} for none.
        total_images: stop after so many; None leaves it to the trainer.
        samples: size of the fixed-latent panel.
        seed: of the random numbers of training and of the panel.
        export: file to which the average generator is written at the end, relative to the run folder; None writes none.
    """

    generator: Any
    generator_ema: Any
    fixed_z: Tensor
    images_seen: Tensor
    batches: Tensor
    pl_mean: Tensor

    def __init__(
        self,
        generator: nn.Module,
        discriminator: nn.Module,
        *,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        lr_g: float = 2e-3,
        lr_d: float = 2e-3,
        betas: tuple[float, float] = (0.0, 0.99),
        loss: str = "logistic",
        d_steps_per_g: int = 1,
        style_mixing: float = 0.9,
        r1_gamma: float = 10.0,
        r1_every: int = 16,
        path_length_weight: float = 2.0,
        path_length_every: int = 4,
        path_length_decay: float = 0.01,
        path_length_shrink: int = 2,
        ema_images: int = 10_000,
        ema_rampup: float | None = 0.05,
        w_avg_decay: float = 0.998,
        noise: str = "random",
        grow_from: int = 8,
        grow_images: int = 600_000,
        fade_images: int = 600_000,
        augment: nn.Module | None = None,
        metrics: Mapping[str, Any] | None = None,
        total_images: int | None = None,
        samples: int = 64,
        seed: int = 0,
        export: str | Path | None = None,
    ) -> None:
        super().__init__()
        if loss not in adversarial.KINDS or d_steps_per_g < 1 or not 0 <= style_mixing <= 1:
            raise UserError(
                f"stylegan2: loss={loss!r}, d_steps_per_g={d_steps_per_g}, style_mixing={style_mixing}; expected a "
                f"loss out of {', '.join(adversarial.KINDS)}, at least 1, and a probability"
            )
        self.automatic_optimization = False
        self.generator = generator
        self.generator_ema = copy.deepcopy(generator).eval().requires_grad_(False)
        self.discriminator: Any = discriminator
        self.augment: Any = augment
        self._make_optimizer, self.lr_g, self.lr_d = optimizer, lr_g, lr_d
        self.betas: tuple[float, float] = (float(betas[0]), float(betas[1]))
        self.loss, self.d_steps_per_g, self.style_mixing = loss, d_steps_per_g, style_mixing
        self.r1_gamma, self.r1_every = r1_gamma, r1_every
        self.path_length_weight, self.path_length_every = path_length_weight, path_length_every
        self.path_length_decay, self.path_length_shrink = path_length_decay, path_length_shrink
        self.ema_images, self.ema_rampup, self.w_avg_decay = ema_images, ema_rampup, w_avg_decay
        self.growth: Growth | None = None
        if getattr(generator, "progressive", False):
            if not getattr(discriminator, "progressive", False):
                raise UserError("a progressive generator needs a discriminator with progressive=true")
            self.growth = Growth(generator.resolution, grow_from, grow_images, fade_images)  # type: ignore[arg-type]
        self.noise, self.total_images, self.seed, self.export_path = noise, total_images, seed, export
        self.metrics: Any = nn.ModuleDict(dict(metrics or {}))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        self.register_buffer("pl_mean", torch.zeros(()))
        fixed = torch.randn(samples, self.generator.z_dim, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("fixed_z", fixed, persistent=False)

    # --- optimisers ---------------------------------------------------------------------------------------------------

    def _lazy(self, lr: float, every: int) -> tuple[float, tuple[float, float]]:
        """Rate and betas corrected for the extra step on every ``every``-th batch (paper, appendix B)."""
        ratio = every / (every + 1) if every else 1.0
        return lr * ratio, (self.betas[0] ** ratio, self.betas[1] ** ratio)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # noqa: D102
        lr_g, betas_g = self._lazy(self.lr_g, self.path_length_every)
        lr_d, betas_d = self._lazy(self.lr_d, self.r1_every)
        g = {"params": self.generator_parameters(), "name": "generator"}
        d = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return [self._make_optimizer([g], lr=lr_g, betas=betas_g), self._make_optimizer([d], lr=lr_d, betas=betas_d)]

    def generator_parameters(self) -> list[nn.Parameter]:
        """What G's optimiser trains."""
        return list(self.generator.parameters())

    def _step(self, optimizer: Any, parameters: list[nn.Parameter], loss: Tensor, counts: bool = False) -> None:
        """One update. Gradients are averaged over ranks here, as DDP's reducer expects one backward a
        step that reaches every parameter, and a GAN has up to four that each reach a part.

        Only the step that ``counts`` goes through Lightning, whose ``global_step`` would else count them all.
        """
        optimizer.zero_grad(set_to_none=True)
        with without_sync(self.trainer):
            self.manual_backward(loss)
        average_gradients(parameters, self.trainer.strategy, self.trainer.world_size, clean=True)
        (optimizer if counts else optimizer.optimizer).step()

    # --- growing ------------------------------------------------------------------------------------------------------

    @property
    def stage(self) -> Stage | None:
        """How far the networks have grown; None for networks that do not."""
        return None if self.growth is None else self.growth.stage(int(self.images_seen))

    def _synthesis(self, generator: Any, ws: Tensor, noise: str) -> Tensor:
        """Images of codes at the present resolution."""
        stage = self.stage
        return generator.synthesis(ws, noise=noise, **({} if stage is None else {"stage": stage}))

    # --- training -----------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:  # noqa: D102
        if str(self.trainer.precision).startswith("16"):
            raise UserError(
                f"stylegan2: trainer.precision={self.trainer.precision}; expected 32-true or bf16-mixed (the extra "
                "steps of the regularisers do not go through a loss scaler)"
            )

    def codes(self, z: Tensor, mix: bool = True) -> Tensor:
        """W+ codes (B, L, D) of z, with style mixing: a second code from a random layer on."""
        ws = self.generator.mapping(z)
        if mix and torch.rand(()) < self.style_mixing:
            used = ws.shape[1] if self.stage is None else 2 * self.stage.resolution.bit_length() - 4
            cut = int(torch.randint(1, used, ()))
            ws = torch.cat([ws[:, :cut], self.generator.mapping(torch.randn_like(z))[:, cut:]], dim=1)
        return ws

    def _free_codes(self, count: int) -> Tensor:
        return self.codes(torch.randn(count, self.generator.z_dim, device=self.device))

    def _judge(self, images: Tensor) -> Tensor:
        images = images if self.augment is None else self.augment(images)
        return self.discriminator(images) if self.stage is None else self.discriminator(images, alpha=self.stage.alpha)

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """One batch; then the average generator."""
        seen, number = int(self.images_seen), int(self.batches)
        torch.manual_seed((self.seed * 1_000_003 + number) * self.trainer.world_size + self.global_rank)
        self.update(batch, seen, number)
        images = len(batch["image"]) * self.trainer.world_size
        half_life = self.ema_images if self.ema_rampup is None else min(self.ema_images, seen * self.ema_rampup)
        update_moving_average(self.generator_ema, self.generator, images, half_life)
        self.images_seen += images
        self.batches += 1
        self.log("images", self.images_seen.float(), prog_bar=True)
        if self.stage is not None:
            self.log_dict({"train/resolution": float(self.stage.resolution), "train/alpha": self.stage.alpha})
        if self.total_images is not None and seen + images >= self.total_images:
            self.trainer.should_stop = True

    def update(self, batch: Mapping[str, Tensor], seen: int, number: int) -> None:
        """G, path length, D and R1 as due, for batch ``number`` after ``seen`` images."""
        optimizers: Any = self.optimizers()
        g_optimizer, d_optimizer = optimizers
        real = batch["image"] if self.stage is None else at_stage(batch["image"], self.stage)
        if number % self.d_steps_per_g == 0:
            self._generator_step(g_optimizer, batch, seen)
            if self.path_length_every and number // self.d_steps_per_g % self.path_length_every == 0:
                self._path_length_step(g_optimizer, len(real))
        self._discriminator_step(d_optimizer, real)
        if self.r1_every and number % self.r1_every == 0:
            self._r1_step(d_optimizer, real)

    def _generator_step(self, optimizer: Any, batch: Mapping[str, Tensor], seen: int) -> None:
        self.discriminator.requires_grad_(False)
        ws, loss = self.generator_loss(batch, seen)
        self._step(optimizer, self.generator_parameters(), loss, counts=True)
        self._track(ws)
        self.discriminator.requires_grad_(True)

    def generator_loss(self, batch: Mapping[str, Tensor], seen: int) -> tuple[Tensor, Tensor]:
        """The codes (B, L, D) of G's batch and its loss, the regulariser aside."""
        ws = self._free_codes(len(batch["image"]))
        loss = adversarial.generator_loss(self._judge(self._synthesis(self.generator, ws, self.noise)), self.loss)
        self.log("train/loss/generator", loss.detach(), prog_bar=True)
        return ws, loss

    def _path_length_step(self, optimizer: Any, size: int) -> None:
        ws = self._free_codes(max(1, size // self.path_length_shrink))
        lengths = adversarial.path_lengths(self._synthesis(self.generator, ws, self.noise), ws)
        self.pl_mean.lerp_(mean_over_ranks(lengths.mean(), self.trainer.strategy), self.path_length_decay)
        penalty = adversarial.path_length_penalty(lengths, self.pl_mean)
        self._step(optimizer, self.generator_parameters(), penalty * (self.path_length_weight * self.path_length_every))
        self.log_dict({"train/loss/path_length": penalty.detach(), "train/path_length": self.pl_mean.clone()})

    def _discriminator_step(self, optimizer: Any, real: Tensor) -> None:
        with torch.no_grad():
            fake = self._synthesis(self.generator, self._free_codes(len(real)), self.noise)
        # Two passes, as the official code: the minibatch deviation must not mix real and generated images.
        fake_logits, real_logits = self._judge(fake), self._judge(real)
        loss = adversarial.discriminator_loss(real_logits, fake_logits, self.loss)
        self._step(optimizer, list(self.discriminator.parameters()), loss)
        if self.augment is not None and hasattr(self.augment, "observe"):
            sign = mean_over_ranks(real_logits.sign().mean(), self.trainer.strategy)
            self.augment.observe(sign, len(real) * self.trainer.world_size)
            self.log("train/augment_p", self.augment.p.clone())
        scores = {"train/real_score": real_logits.mean(), "train/fake_score": fake_logits.mean()}
        self.log_dict({"train/loss/discriminator": loss.detach(), **{k: v.detach() for k, v in scores.items()}})

    def _r1_step(self, optimizer: Any, real: Tensor) -> None:
        images = real.detach().requires_grad_(True)
        penalty = adversarial.r1_penalty(self._judge(images), images)
        self._step(optimizer, list(self.discriminator.parameters()), penalty * (self.r1_gamma / 2 * self.r1_every))
        self.log("train/loss/r1", penalty.detach())

    @torch.no_grad()
    def _track(self, ws: Tensor) -> None:
        """Tracked mean of W, over ranks; the first layer is never the second code of a mix."""
        mean = mean_over_ranks(ws[:, 0].mean(0), self.trainer.strategy)
        self.generator.w_avg.lerp_(mean, 1 - self.w_avg_decay)

    # --- validation, pictures, result ---------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self._sampler = torch.Generator().manual_seed(self.seed * 1_000_003 + 1 + self.global_rank)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """As many samples of the average generator as real images, into the metrics."""
        if not self.metrics:
            return
        z = torch.randn(len(batch["image"]), self.generator.z_dim, generator=self._sampler).to(self.device)
        fake = self.sample(z)
        for metric in self.metrics.values():
            metric.update(batch["image"], real=True)
            metric.update(fake, real=False)

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        for name, metric in self.metrics.items():
            value = metric.compute()
            values = value if isinstance(value, dict) else {name: value}
            self.log_dict({f"val/{key}": number.float() for key, number in values.items()}, rank_zero_only=True)
            metric.reset()

    @torch.no_grad()
    def sample(self, z: Tensor, psi: float = 1.0) -> Tensor:
        """The average generator's images of z (B, Z): (B, 3, R, R) in [-1, 1], of smaller ones while it grows."""
        image = self._synthesis(self.generator_ema, self.generator_ema.mapping(z, psi), "const")
        return enlarged(image, self.generator.resolution).clamp(-1, 1)

    def panel_columns(self) -> dict[str, Tensor]:
        """What the panel callback draws: the fixed latents at three truncations."""
        return {
            f"psi {psi:g}": torch.cat([self.sample(z, psi) for z in self.fixed_z.split(16)]) for psi in (1.0, 0.7, 0.5)
        }

    def on_fit_end(self) -> None:
        """Write the average generator."""
        if self.export_path is None or not self.trainer.is_global_zero or getattr(self.trainer, "fast_dev_run", False):
            return
        if self.growth is not None and self.images_seen < self.growth.images:
            _log.warning(
                "the generator has not grown up: %d of %d images; a longer run, or smaller method.grow_images and "
                "method.fade_images",
                int(self.images_seen), self.growth.images,
            )  # fmt: skip
        path = Path(self.trainer.default_root_dir) / self.export_path
        path.parent.mkdir(parents=True, exist_ok=True)
        made = {"images": str(int(self.images_seen)), "trained_by": type(self).__name__}
        save_generator(copy.deepcopy(self.generator_ema).cpu(), path, made)
