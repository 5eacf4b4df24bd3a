"""StyleGAN2: Analyzing and Improving the Image Quality of StyleGAN.

Tero Karras, Samuli Laine, Miika Aittala, Janne Hellsten, Jaakko Lehtinen, Timo Aila, CVPR 2020, arXiv 1912.04958;
augmentation: Training Generative Adversarial Networks with Limited Data, Karras et al., NeurIPS 2020, arXiv 2006.06676.
Official code: NVlabs/stylegan2-ada-pytorch, commit d72cc7d, which is followed in the order of the phases (G, path
length, D, R1) and in all constants.

Differences:

* A conditional generator draws its classes from the batch of real images, instead of from the data set anew.
* The moving average of W decays with 0.998 (as in NVlabs/stylegan3) instead of 0.995, and uses the batches of G only.
* Both networks see the same number of images; with ``d_steps_per_g`` > 1, G is updated on every n-th batch only.
* Regularisers with an interval of 1 are a part of the loss of each step, without a step of their own (the official code
  has this with an interval of None).
* A progressive generator grows as in Karras et al., ICLR 2018, see `generators.progressive`. Batch size and learning
  rates are the same at all resolutions, and Adam keeps its moments from one resolution to the next.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.generators.grey import GREY
from stylegan_inv.generators.progressive import Growth, at_stage
from stylegan_inv.losses import adversarial, gan_regularization
from stylegan_inv.methods.generator.generator_training import GeneratorTraining
from stylegan_inv.optim.gradient_averaging import average_gradients, mean_over_ranks, without_sync
from stylegan_inv.utils.checks import one_of, real_number, real_numbers, whole_number


@runtime_checkable
class AdaptiveAugmentation(Protocol):
    """An augmentation that adapts its probability ``p`` to the discriminator."""

    p: Tensor

    def observe(self, mean_sign: Tensor, images: int) -> None:
        """Updates ``p`` from the mean sign of the logits of real images, and the number of images on all ranks."""


class StyleGAN2Training(GeneratorTraining):
    """Trains a generator against a discriminator; ``trainer.max_steps`` counts updates of the generator.

    Batches are dicts with ``image`` (B, 3, R, R) in [-1, 1], and ``class`` (B,) for conditional networks. Precision:
    32-true or bf16-mixed, since the extra steps of the regularisers do not use a loss scaler.

    Args:
        generator: Generator to train.
        discriminator: Maps images to logits (B, 1); conditional if the generator is.
        optimizer: Partial of an Adam-like optimiser, called with lr and betas corrected for lazy regularisation.
        lr_g: Learning rate of G.
        lr_d: Learning rate of D.
        betas: Betas of both optimisers.
        loss: ``nonsaturating``, ``minimax``, ``wgan``, ``hinge`` or ``relativistic``, see `losses.adversarial`. R3GAN
            (arXiv 2501.05441) is ``relativistic`` with R1 and R2 of equal weights in each step.
        d_steps_per_g: Number of batches of D per update of G.
        style_mixing: Probability that a batch mixes two codes at a random layer.
        r1_gamma: Weight of R1, 0 for none. Rule of thumb of ADA: 0.0002 * resolution^2 / batch size.
        r2_gamma: Weight of R2, the penalty of R1 at generated images; 0 for none.
        r1_every: Interval of R1 and R2 in steps of D, at least 1.
        path_length_weight: Weight of the path length regulariser; 0 for none.
        path_length_every: Interval of the path length regulariser in steps of G, at least 1.
        path_length_decay: Decay of the running mean of the path length.
        path_length_shrink: Divisor of the batch size in that step.
        w_avg_decay: Decay of the latent average.
        noise: Noise of the synthesis network in training: ``random``, ``const`` or ``none``.
        grow_from: First resolution of a progressive generator; other generators ignore this and the next two arguments.
        grow_images: Number of images for which the resolution stays the same.
        fade_images: Number of images over which the next resolution is faded in.
        augment: Augmentation of all images that D sees (`data.augment`); None for none.
        **kwargs: Arguments of `GeneratorTraining`.
    """

    pl_mean: Tensor

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
        *,
        optimizer: Callable[..., torch.optim.Optimizer] = torch.optim.Adam,
        lr_g: float = 2e-3,
        lr_d: float = 2e-3,
        betas: tuple[float, float] = (0.0, 0.99),
        loss: str = "nonsaturating",
        d_steps_per_g: int = 1,
        style_mixing: float = 0.9,
        r1_gamma: float = 10.0,
        r2_gamma: float = 0.0,
        r1_every: int = 16,
        path_length_weight: float = 2.0,
        path_length_every: int = 4,
        path_length_decay: float = 0.01,
        path_length_shrink: int = 2,
        w_avg_decay: float = 0.998,
        noise: str = "random",
        grow_from: int = 8,
        grow_images: int = 600_000,
        fade_images: int = 600_000,
        augment: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        growth: Growth | None = None
        if generator.progressive:
            if not discriminator.progressive:
                raise UserError(
                    "a progressive generator needs such a discriminator, method.discriminator.progressive=true"
                )
            growth = Growth(generator.resolution, grow_from, grow_images, fade_images)
        super().__init__(generator, growth=growth, **kwargs)
        if isinstance(discriminator, Discriminator) and self.learns_classes:
            _check_pair(generator, discriminator)
        self.discriminator: Any = discriminator
        self.augment: Any = augment
        self.loss = one_of("method.loss", loss, adversarial.KINDS)
        self.d_steps_per_g = whole_number("method.d_steps_per_g", d_steps_per_g)
        self.style_mixing = real_number("method.style_mixing", style_mixing, least=0, most=1)
        self.noise = one_of("method.noise", noise, ("random", "const", "none"))
        self._make_optimizer = optimizer
        self.lr_g = real_number("method.lr_g", lr_g, least=0)
        self.lr_d = real_number("method.lr_d", lr_d, least=0)
        first, second = real_numbers("method.betas", betas, count=2)
        self.betas: tuple[float, float] = (first, second)
        self.r1_gamma = real_number("method.r1_gamma", r1_gamma, least=0)
        self.r2_gamma = real_number("method.r2_gamma", r2_gamma, least=0)
        self.r1_every = _interval("method.r1_every", r1_every, "method.r1_gamma")
        self.path_length_weight = real_number("method.path_length_weight", path_length_weight, least=0)
        self.path_length_every = _interval("method.path_length_every", path_length_every, "method.path_length_weight")
        self.path_length_decay = real_number("method.path_length_decay", path_length_decay, least=0, most=1)
        self.path_length_shrink = whole_number("method.path_length_shrink", path_length_shrink)
        self.w_avg_decay = real_number("method.w_avg_decay", w_avg_decay, least=0, most=1)
        self.register_buffer("pl_mean", torch.zeros(()))

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Checks the numbers that the training controls itself.

        Raises:
            UserError: One of them is out of its range.
        """
        super().on_load_checkpoint(checkpoint)
        state = checkpoint["state_dict"]
        real_number("pl_mean", float(state["pl_mean"]), least=0)
        if "augment.p" in state:
            real_number("augment.p", float(state["augment.p"]), least=0, most=1)

    # -- optimisers ----------------------------------------------------------------------------------------------------

    @property
    def extra_g_steps(self) -> int:
        """Interval of the steps of G for the path length alone; 0 without."""
        return self.path_length_every if self.path_length_weight and self.path_length_every > 1 else 0

    @property
    def extra_d_steps(self) -> int:
        """Interval of the steps of D for R1 and R2 alone; 0 without."""
        return self.r1_every if (self.r1_gamma or self.r2_gamma) and self.r1_every > 1 else 0

    def corrected(self, lr: float, every: int) -> tuple[float, tuple[float, float]]:
        """Returns lr and betas corrected for a step more on every ``every``-th batch (paper, appendix B); 0: never."""
        ratio = every / (every + 1) if every else 1.0
        return lr * ratio, (self.betas[0] ** ratio, self.betas[1] ** ratio)

    def configure_optimizers(self) -> list[torch.optim.Optimizer]:  # noqa: D102
        lr_g, betas_g = self.corrected(self.lr_g, self.extra_g_steps)
        lr_d, betas_d = self.corrected(self.lr_d, self.extra_d_steps)
        g = {"params": self.generator_parameters(), "name": "generator"}
        d = {"params": list(self.discriminator.parameters()), "name": "discriminator"}
        return [self._make_optimizer([g], lr=lr_g, betas=betas_g), self._make_optimizer([d], lr=lr_d, betas=betas_d)]

    def both_optimizers(self) -> tuple[Any, Any]:
        """Returns Lightning's optimisers of generator and discriminator."""
        optimizers: Any = self.optimizers()
        generator_optimizer, discriminator_optimizer = optimizers
        return generator_optimizer, discriminator_optimizer

    def generator_parameters(self) -> list[nn.Parameter]:
        """Returns the parameters of G's optimiser."""
        return list(self.generator.parameters())

    def check_batch_size(self, size: int) -> None:
        """Checks the batch size of a rank, before anything is trained.

        Raises:
            UserError: The discriminator cannot split a batch into groups for its standard deviation.
        """
        if isinstance(self.discriminator, Discriminator):
            group = min(self.discriminator.config["mbstd_group_size"], size)
            if self.discriminator.config["mbstd_features"] and size % group:
                raise UserError(
                    f"dataset.batch_size={size}: the discriminator compares groups of {group} images; expected a "
                    f"multiple of {group}, or give method.discriminator.mbstd_group_size=<a divisor of {size}>"
                )

    def take_step(self, optimizer: Any, parameters: list[nn.Parameter], loss: Tensor, counts: bool = False) -> None:
        """Back-propagates a loss and takes a step.

        DDP expects one backward pass per step that reaches every parameter; a GAN has up to four that each reach some.
        So the gradients are averaged over the ranks here.

        Args:
            optimizer: Lightning's optimiser.
            parameters: Parameters of the optimiser.
            loss: A scalar.
            counts: Whether the step counts in Lightning's ``global_step``.
        """
        optimizer.zero_grad(set_to_none=True)
        with without_sync(self.trainer):
            self.manual_backward(loss)
        average_gradients(parameters, self.trainer.strategy, self.trainer.world_size, clean=True)
        (optimizer if counts else optimizer.optimizer).step()

    # -- training ------------------------------------------------------------------------------------------------------

    def on_fit_start(self) -> None:  # noqa: D102
        if str(self.trainer.precision).startswith("16"):
            raise UserError(
                f"stylegan2: trainer.precision={self.trainer.precision}; expected 32-true or bf16-mixed (the extra "
                "steps of the regularisers do not go through a loss scaler)"
            )

    def update(self, batch: Mapping[str, Tensor], seen: int, number: int) -> None:
        """Runs the phases that are due: G, path length, D and R1."""
        g_optimizer, d_optimizer = self.both_optimizers()
        c = self.condition(batch)
        real = batch["image"] if self.stage is None else at_stage(batch["image"], self.stage)
        if number % self.d_steps_per_g == 0:
            self._generator_step(g_optimizer, batch, seen)
            if self.extra_g_steps and number // self.d_steps_per_g % self.extra_g_steps == 0:
                self.take_step(g_optimizer, self.generator_parameters(), self._path_length_loss(len(real), c))
        self._discriminator_step(d_optimizer, real, c)
        if self.extra_d_steps and number % self.extra_d_steps == 0:
            self._gradient_penalty_step(d_optimizer, real, c)

    def codes(self, z: Tensor, mix: bool = True, c: Tensor | None = None) -> Tensor:
        """Returns W+ codes (B, L, D) of z (B, Z) with style mixing: from a random layer on, those of another z."""
        ws: Tensor = self.generator.mapping(z, c=c)
        if mix and torch.rand(()) < self.style_mixing:
            used = ws.shape[1] if self.stage is None else 2 * self.stage.resolution.bit_length() - 4
            cut = int(torch.randint(1, used, ()))
            ws = torch.cat([ws[:, :cut], self.generator.mapping(torch.randn_like(z), c=c)[:, cut:]], dim=1)
        return ws

    def random_codes(self, count: int, c: Tensor | None = None) -> Tensor:
        """Returns W+ codes (count, L, D) of random z, with the first ``count`` rows of the condition."""
        z = torch.randn(count, self.generator.z_dim, device=self.device)
        return self.codes(z, c=None if c is None else c[:count])

    def logits(self, images: Tensor, c: Tensor | None = None) -> Tensor:
        """Returns the discriminator's logits (B, 1) of augmented images, with their condition."""
        if self.augment is not None and images.shape[1] == GREY:
            # The mean over the channels of the colour transform, as the official code transforms grey images.
            images = self.augment(images.expand(-1, 3, -1, -1)).mean(dim=1, keepdim=True)
        elif self.augment is not None:
            images = self.augment(images)
        options: dict[str, Any] = {} if self.stage is None else {"alpha": self.stage.alpha}
        if c is not None:
            options["c"] = c
        logits: Tensor = self.discriminator(images, **options)
        return logits

    def generator_loss(self, batch: Mapping[str, Tensor], seen: int) -> tuple[Tensor, Tensor]:
        """Returns the codes (B, L, D) of G's batch and its loss without regularisers."""
        c = self.condition(batch)
        ws = self.random_codes(len(batch["image"]), c)
        fake_logits = self.logits(self.synthesize(self.generator, ws, self.noise), c)
        loss = adversarial.generator_loss(fake_logits, self.loss, self.real_logits(batch, c))
        self.log("train/loss/generator", loss.detach(), prog_bar=True)
        return ws, loss

    @torch.no_grad()
    def real_logits(self, batch: Mapping[str, Tensor], c: Tensor | None = None) -> Tensor | None:
        """Returns the logits (B, 1) of the real images, for a relativistic generator; None for other losses."""
        if self.loss != "relativistic":
            return None
        return self.logits(batch["image"] if self.stage is None else at_stage(batch["image"], self.stage), c)

    @torch.no_grad()
    def update_latent_average(self, ws: Tensor) -> None:
        """Updates the latent average with codes (B, L, D); the first layer is never that of a second, mixed code."""
        mean = mean_over_ranks(ws[:, 0].mean(0), self.trainer.strategy)
        self.generator.w_avg.lerp_(mean, 1 - self.w_avg_decay)

    # -- phases --------------------------------------------------------------------------------------------------------

    def _generator_step(self, optimizer: Any, batch: Mapping[str, Tensor], seen: int) -> None:
        self.discriminator.requires_grad_(False)
        ws, loss = self.generator_loss(batch, seen)
        if self.path_length_weight and self.path_length_every == 1:
            loss = loss + self._path_length_loss(len(batch["image"]), self.condition(batch))
        self.take_step(optimizer, self.generator_parameters(), loss, counts=True)
        self.update_latent_average(ws)
        self.discriminator.requires_grad_(True)

    def _path_length_loss(self, size: int, c: Tensor | None) -> Tensor:
        """Returns the weighted penalty, and updates the mean path length."""
        ws = self.random_codes(max(1, size // self.path_length_shrink), c)
        lengths = gan_regularization.path_lengths(self.synthesize(self.generator, ws, self.noise), ws)
        self.pl_mean.lerp_(mean_over_ranks(lengths.mean(), self.trainer.strategy), self.path_length_decay)
        penalty = gan_regularization.path_length_penalty(lengths, self.pl_mean)
        self.log_dict({"train/loss/path_length": penalty.detach(), "train/path_length": self.pl_mean.clone()})
        return penalty * (self.path_length_weight * self.path_length_every)

    def _fakes(self, count: int, c: Tensor | None) -> Tensor:
        with torch.no_grad():
            return self.synthesize(self.generator, self.random_codes(count, c), self.noise)

    def _discriminator_step(self, optimizer: Any, real: Tensor, c: Tensor | None) -> None:
        with_penalty = self.r1_every == 1
        fake = self._fakes(len(real), c).requires_grad_(with_penalty and bool(self.r2_gamma))
        real = real.detach().requires_grad_(with_penalty and bool(self.r1_gamma))
        # Two passes as in the official code: the minibatch deviation must not mix real and generated images.
        fake_logits, real_logits = self.logits(fake, c), self.logits(real, c)
        loss = adversarial.discriminator_loss(real_logits, fake_logits, self.loss)
        scores = {"train/real_score": real_logits.mean(), "train/fake_score": fake_logits.mean()}
        self.log_dict({"train/loss/discriminator": loss.detach(), **{k: v.detach() for k, v in scores.items()}})
        if with_penalty:
            loss = loss + self._gradient_penalty(real, real_logits, fake, fake_logits)
        self.take_step(optimizer, list(self.discriminator.parameters()), loss)
        if isinstance(self.augment, AdaptiveAugmentation):
            sign = mean_over_ranks(real_logits.sign().mean(), self.trainer.strategy)
            self.augment.observe(sign, len(real) * self.trainer.world_size)
            self.log("train/augment_p", self.augment.p.clone())

    def _gradient_penalty_step(self, optimizer: Any, real: Tensor, c: Tensor | None) -> None:
        images: dict[str, Tensor] = {}
        if self.r1_gamma:
            images["real"] = real.detach().requires_grad_(True)
        if self.r2_gamma:
            images["fake"] = self._fakes(len(real), c).requires_grad_(True)
        logits = {name: self.logits(x, c) for name, x in images.items()}
        penalty = self._gradient_penalty(images.get("real"), logits.get("real"), images.get("fake"), logits.get("fake"))
        self.take_step(optimizer, list(self.discriminator.parameters()), penalty)

    def _gradient_penalty(
        self, real: Tensor | None, real_logits: Tensor | None, fake: Tensor | None, fake_logits: Tensor | None
    ) -> Tensor:
        """Returns the weighted sum of R1 and R2 of those images that require a gradient."""
        total = torch.zeros((), device=self.device)
        for name, gamma, images, logits in (
            ("r1", self.r1_gamma, real, real_logits),
            ("r2", self.r2_gamma, fake, fake_logits),
        ):
            if gamma and images is not None and logits is not None:
                penalty = gan_regularization.r1_penalty(logits, images)
                total = total + penalty * (gamma / 2 * self.r1_every)
                self.log(f"train/loss/{name}", penalty.detach())
        return total


def _interval(name: str, value: object, weight: str) -> int:
    if value == 0:
        raise UserError(f"{name}=0: the regulariser would never run; expected at least 1, or {weight}=0 for none")
    if value is None:
        raise UserError(f"{name}=null: expected an interval, 1 for every step; or {weight}=0 for no regulariser")
    return whole_number(name, value)


def _check_pair(generator: Generator, discriminator: Discriminator) -> None:
    for name in ("resolution", "c_dim", "img_channels"):
        own, other = generator.config[name], discriminator.config[name]
        if own != other:
            data = f"dataset.resolution={own} or " if name == "resolution" else ""
            raise UserError(
                f"method.discriminator.{name}={other}: expected {own}, as the generator has; give {data}"
                f"method.discriminator.{name}={own}"
            )
