"""Methods that learn from a data set: losses, optimisers and the training step."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import torch
from pytorch_lightning.plugins import MixedPrecision
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.losses.compose import LearningTerm, LossInputs, LossTerms, WeightedLoss
from stylegan_inv.methods.common.base import FixedSize, Inversion, InversionMethod, Step, pool
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer
from stylegan_inv.optim.gradient_averaging import average_gradients, without_sync
from stylegan_inv.utils.checks import real_number, whole_number


class TrainedMethod(InversionMethod):
    """Base class of methods that learn from a data set.

    A subclass must define :meth:`invert`. :meth:`training_losses`, :meth:`parameter_groups` and :meth:`on_step` have
    defaults.

    Args:
        generator: Frozen StyleGAN2.
        loss: Weighted loss terms; None for a method that is only used to invert.
        optimizer: Partial of a torch optimiser, called with :meth:`parameter_groups`.
        scheduler: Partial of a torch learning rate scheduler, called with the optimiser and stepped after each
            optimiser step.
        metrics: Name -> torchmetrics metric with ``update(image, target)``, logged as ``val/<name>``.
        accumulate_batches: Number of batches whose gradients are averaged for one optimiser step.
        gradient_clip_norm: Maximum global norm of the gradient; None for no clipping.
        compile_trained: Compile the trained submodules with ``torch.compile`` at the start of a fit (requires a C++
            compiler).
    """

    def __init__(
        self,
        generator: Generator,
        loss: LossTerms | None = None,
        optimizer: Callable[..., torch.optim.Optimizer] | None = None,
        scheduler: Callable[..., Any] | None = None,
        metrics: Mapping[str, Any] | None = None,
        accumulate_batches: int = 1,
        gradient_clip_norm: float | None = None,
        compile_trained: bool = False,
    ) -> None:
        super().__init__(generator, metrics)
        # Methods such as ReStyle back-propagate several times per optimiser step.
        self.automatic_optimization = False
        self.loss = loss
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self._accumulate_batches = whole_number("method.accumulate_batches", accumulate_batches)
        if gradient_clip_norm is not None:
            real_number("method.gradient_clip_norm", gradient_clip_norm, above=0)
        self._gradient_clip_norm = gradient_clip_norm
        self._compile_trained = compile_trained
        self._auxiliary: dict[str, AuxiliaryOptimizer] = {}

    # -- what a method may define --------------------------------------------------------------------------------------

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor] | Iterable[dict[str, Tensor]]:
        """Returns the raw loss terms and their weighted sum as ``total``.

        A method with several backward passes per optimiser step yields one dict for each.
        """
        return self.losses(self.invert(self.source(batch)), batch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Returns the parameter groups of the optimiser; ``lr/<name>`` logs the learning rate of a group."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "name": "encoder"}]

    def on_step(self, step: int) -> None:
        """Called before optimiser step ``step``, for schedules."""

    def auxiliary_optimizers(self) -> list[AuxiliaryOptimizer]:
        """Returns the optimisers of discriminators; those of the method come before those of its loss terms."""
        optimizers = {name: term.optimizer() for name, term in self._learning_terms()}
        return [AuxiliaryOptimizer(name, optimizer) for name, optimizer in optimizers.items() if optimizer is not None]

    # -- helpers for subclasses ----------------------------------------------------------------------------------------

    def default_input_size(self) -> int:
        """Returns the resolution of a `FixedSize` encoder, else that of the generator, at most 256."""
        encoder = dict(self.named_children()).get("encoder")
        if isinstance(encoder, FixedSize):
            return encoder.resolution
        return min(self.generator.resolution, 256)

    def losses(self, inversion: Inversion | Step, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compares reconstructions with the targets of a batch, at the resolution of the targets.

        Returns:
            The raw value of each loss term, and their weighted sum as ``total``.

        Raises:
            UserError: The method has no loss.
        """
        if self.loss is None:
            raise UserError(f"{type(self).__name__} got no loss; give loss=… in the method's config")
        target = batch["image"]
        total, terms = self.loss(
            LossInputs(
                image=pool(inversion.image, target.shape[-1]),
                target=target,
                w=inversion.w,
                w_avg=self.generator.w_avg,
                mask=batch.get("mask"),
                source=self.source(batch),
                synthesis=lambda w: pool(self.generator.synthesis(w), target.shape[-1]),
            )
        )
        return {**terms, "total": total}

    # -- Lightning -----------------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:
        """Returns the method's optimiser, those of discriminators, and the scheduler of the first.

        Raises:
            UserError: The method has no optimiser.
        """
        if self._make_optimizer is None:
            raise UserError(f"{type(self).__name__} got no optimizer, expected one; give optimizer=adam")
        optimizer = self._make_optimizer(self.parameter_groups())
        auxiliary = self.auxiliary_optimizers()
        self._auxiliary = {one.name: one for one in auxiliary}
        # Checkpoints hold the states of the optimisers in this order.
        optimizers = [optimizer, *(one.optimizer for one in auxiliary)]
        return optimizers, [] if self._make_scheduler is None else [self._make_scheduler(optimizer)]

    def on_fit_start(self) -> None:  # noqa: D102
        if self._compile_trained:
            for name, part in self.named_children():
                if name not in ("loss", "metrics") and any(p.requires_grad for p in part.parameters()):
                    part.compile()  # in place: names and checkpoints stay as they are

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Back-propagates the losses of a batch; every ``accumulate_batches`` batches an optimiser step follows."""
        self.on_step(self.global_step)
        self._backward(batch)
        for name, term in self._learning_terms():
            if name in self._auxiliary:
                self.step_auxiliary(name, term.learning_losses())
        if (batch_idx + 1) % self._accumulate_batches == 0:
            self._step()

    def step_auxiliary(self, name: str, losses: Iterable[WeightedLoss]) -> None:
        """Takes one step of an auxiliary optimiser for each loss, and logs the raw losses."""
        for loss in losses:
            self._auxiliary[name].step(loss.value * loss.weight, self.trainer)
            self.log(f"train/loss/{loss.name}", loss.value.detach())

    def _step(self) -> None:
        """Takes a step of the method's optimiser and of its scheduler."""
        optimizers: Any = self.optimizers()
        optimizer = optimizers[0] if isinstance(optimizers, list) else optimizers
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        average_gradients(trained, self.trainer.strategy, self.trainer.world_size)
        if self._gradient_clip_norm is not None:
            clip_norm = self._gradient_clip_norm * self._loss_scale()
            self.clip_gradients(optimizer, clip_norm, gradient_clip_algorithm="norm")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()  # type: ignore[union-attr]

    def _loss_scale(self) -> float:
        """Returns the factor by which float16 training scales the gradients; ``optimizer.step`` divides by it."""
        precision = self.trainer.precision_plugin
        if not isinstance(precision, MixedPrecision) or precision.scaler is None:
            return 1.0
        return precision.scaler.get_scale()

    def _backward(self, batch: Mapping[str, Tensor]) -> None:
        """Accumulates the gradients of all backward passes of a batch and logs the mean of each loss term."""
        sums: dict[str, Tensor] = {}
        passes = 0
        # DDP expects one backward pass that reaches every parameter; here there may be several, or unused parameters.
        # So each rank accumulates its own gradients, which are averaged once per optimiser step.
        with without_sync(self.trainer), self.with_classes(batch.get("class")):
            for terms in _each(self.training_losses(batch)):
                self.manual_backward(terms["total"] / self._accumulate_batches)
                passes += 1
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0) + value.detach()
        self.log_dict({f"train/loss/{name}": value / passes for name, value in sums.items() if name != "total"})
        self.log("train/loss/total", sums["total"] / passes, prog_bar=True)

    def _learning_terms(self) -> list[tuple[str, LearningTerm]]:
        if self.loss is None:
            return []
        return [(name, term) for name, term in self.loss.terms.items() if isinstance(term, LearningTerm)]


def _each(losses: dict[str, Tensor] | Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    if isinstance(losses, dict):
        yield losses
    else:
        yield from losses
