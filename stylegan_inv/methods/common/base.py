"""The one abstraction: a method turns images into an :class:`Inversion`, and knows how to learn to.

Train, evaluate, invert and edit use nothing but :meth:`InversionMethod.invert`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.losses.compose import LossInputs, LossTerms
from stylegan_inv.optim.gradient_averaging import average_gradients, step_beside, without_sync
from stylegan_inv.utils.frozen_module import Frozen, check_frozen, frozen_hashes


@dataclass
class Step:
    """One iteration of a refinement: codes ``w`` (B, L, D), their picture ``image`` (B, 3, H, W), perhaps a name."""

    w: Tensor
    image: Tensor
    name: str = ""


@dataclass
class Inversion:
    """What a method found for a batch of images.

    Attributes:
        w: Latent codes in W+, (B, L, D).
        image: Reconstructions at the generator's resolution, (B, 3, R, R), nominally in [-1, 1].
        steps: Every iteration, first to last, for methods that refine; None otherwise.
        noise: Optimised noise maps, one (B, 1, h, w) for each layer; None means the generator's own.
        generator: Tuned per-image weights as a state-dict difference; None means the shared generator.
    """

    w: Tensor
    image: Tensor
    steps: list[Step] | None = None
    noise: list[Tensor] | None = None
    generator: dict[str, Tensor] | None = None


class InversionMethod(pl.LightningModule):
    """Base of all inversion methods.

    A subclass must write :meth:`invert`. :meth:`training_losses`, :meth:`parameter_groups` and :meth:`on_step` have
    defaults. Batches are dicts: ``image`` is what a reconstruction is compared with, ``source`` what the method sees
    where that is something else (translation tasks), ``mask`` the region of interest.

    The generator and the networks inside losses and metrics are frozen: they follow the module's device and precision
    but are neither in its ``state_dict`` nor in its checkpoints, which name the generator by its hash.

    Args:
        generator: Frozen StyleGAN2.
        loss: Weighted loss terms; None for methods that do not train.
        optimizer: Partial of a torch optimiser, called with :meth:`parameter_groups`.
        scheduler: Partial of a torch learning-rate scheduler, called with the optimiser, stepped once a step.
        metrics: Name -> torchmetrics metric with ``update(image, target)``, logged as ``val/<name>``.
        accumulate_batches: Batches whose gradients are averaged before one optimiser step.
        gradient_clip_norm: Largest global norm of the gradient; None leaves it alone.
        compile_trained: Pass what is trained through ``torch.compile`` when a fit starts (needs a C++ compiler).
    """

    #: False for methods that have nothing to train: a training run then measures them on held-out images. A trained
    #: method is loaded without its loss, whose networks then need not be there.
    trains = True
    #: Channels of what it sees; and entries of a batch that training cannot do without.
    in_channels: int = 3
    needs: tuple[str, ...] = ()

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
        super().__init__()
        # Several backward passes make one step in ReStyle and its kin, which Lightning's automatic mode cannot do.
        self.automatic_optimization = False
        self._generator = Frozen(generator)
        self.loss, self.metrics = loss, nn.ModuleDict(dict(metrics or {}))
        self._make_optimizer, self._make_scheduler = optimizer, scheduler
        self._accumulate_batches, self._gradient_clip_norm = accumulate_batches, gradient_clip_norm
        self._compile_trained = compile_trained
        self._validation: dict[str, Tensor] = {}

    # -- what a method defines ---------------------------------------------------------------------------------

    def invert(self, images: Tensor) -> Inversion:
        """Find the codes of ``images`` (B, 3, H, W), RGB in [-1, 1]."""
        raise NotImplementedError

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor] | Iterable[dict[str, Tensor]]:
        """The raw loss terms with their weighted sum as ``total``.

        A method that back-propagates several times before one optimiser step yields one dict for each.
        """
        return self.losses(self.invert(self.source(batch)), batch)

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Parameter groups for the optimiser; the name of a group labels its learning rate in the logs."""
        return [{"params": [p for p in self.parameters() if p.requires_grad], "name": "encoder"}]

    def on_step(self, step: int) -> None:
        """Called before optimiser step ``step``: schedules go here."""

    def further_optimizers(self) -> list[torch.optim.Optimizer]:
        """Optimisers beside the main one: those of image discriminators in the loss. A method's own ones go first."""
        return [term.optimizer() for term in self._learning_terms()]

    # -- helpers for methods -----------------------------------------------------------------------------------

    @property
    def generator(self) -> Generator:
        """The frozen generator."""
        return self._generator.network

    @staticmethod
    def source(batch: Mapping[str, Tensor]) -> Tensor:
        """What the method sees of a batch: ``source`` (B, C, H, W), or the ``image`` itself."""
        return batch.get("source", batch["image"])

    def average_codes(self, batch_size: int) -> Tensor:
        """The generator's mean code, (B, L, D)."""
        return self.generator.w_avg.expand(batch_size, self.generator.num_ws, -1)

    @torch.no_grad()
    def average_image(self, size: int) -> Tensor:
        """The picture of the mean code with fixed noise, pooled to ``size``: (1, 3, size, size)."""
        return pool(self.generator.synthesis(self.average_codes(1), noise="const"), size)

    def losses(self, inversion: Inversion | Step, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Compare an inversion with the batch it came from, at the batch's resolution."""
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

    # -- Lightning ---------------------------------------------------------------------------------------------

    def configure_optimizers(self) -> Any:  # noqa: D102
        if self._make_optimizer is None:
            raise UserError(f"{type(self).__name__} got no optimizer, expected one; give optimizer=adam")
        optimizer = self._make_optimizer(self.parameter_groups())
        optimizers = [optimizer, *self.further_optimizers()]
        return optimizers, [] if self._make_scheduler is None else [self._make_scheduler(optimizer)]

    def on_fit_start(self) -> None:  # noqa: D102
        if self._compile_trained:
            for name, part in self.named_children():
                if name not in ("loss", "metrics") and any(p.requires_grad for p in part.parameters()):
                    part.compile()  # in place: names and checkpoints stay as they are

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """All backward passes of one batch, then one optimiser step (every ``accumulate_batches`` batches)."""
        optimizers: Any = self.optimizers()
        optimizers = optimizers if isinstance(optimizers, list) else [optimizers]
        optimizer = optimizers[0]
        self.on_step(self.global_step)
        sums: dict[str, Tensor] = {}
        passes = 0
        # DDP's reducer expects one backward pass that reaches every parameter; here there may be several, or idle
        # parts of the encoder. So each rank sums up its own gradients, and they are averaged once a step.
        with without_sync(self.trainer):
            for terms in _each(self.training_losses(batch)):
                self.manual_backward(terms["total"] / self._accumulate_batches)
                passes += 1
                for name, value in terms.items():
                    sums[name] = sums.get(name, 0) + value.detach()
        self.log_dict({f"train/loss/{name}": value / passes for name, value in sums.items() if name != "total"})
        self.log("train/loss/total", sums["total"] / passes, prog_bar=True)
        learning = self._learning_terms()
        for term, other in zip(learning, optimizers[len(optimizers) - len(learning) :], strict=True):
            for name, value, weight in term.learning_losses():
                step_beside(self.trainer, other.optimizer, value * weight)
                self.log(f"train/loss/{name}", value.detach())
        if (batch_idx + 1) % self._accumulate_batches:
            return
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        average_gradients(trained, self.trainer.strategy, self.trainer.world_size)
        if self._gradient_clip_norm is not None:
            # With float16 the gradients still carry the loss scale, which `optimizer.step` takes out.
            scaler = getattr(self.trainer.precision_plugin, "scaler", None)
            scale = 1.0 if scaler is None else scaler.get_scale()
            self.clip_gradients(optimizer, self._gradient_clip_norm * scale, gradient_clip_algorithm="norm")
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)
        scheduler = self.lr_schedulers()
        if scheduler is not None:
            scheduler.step()  # type: ignore[union-attr]

    def _learning_terms(self) -> list[Any]:
        return [] if self.loss is None else [term for term in self.loss.terms.values() if getattr(term, "lr", 0)]

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        for metric in self.metrics.values():
            metric.reset()  # type: ignore[operator]
        self._validation = {}

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Inversion]:
        """Invert held-out images and score what was found; callbacks are handed the ``inversion``."""
        inversion = self.invert(self.source(batch))
        self.score(batch, inversion)
        return {"inversion": inversion}

    def score(self, batch: Mapping[str, Tensor], inversion: Inversion) -> None:
        """Score the last step of an inversion against its batch; errors are per image, then averaged."""
        target = batch["image"]
        size = target.shape[-1]
        image = pool(inversion.image, size)
        for metric in self.metrics.values():
            metric.update(image.float(), target)  # type: ignore[operator]
        self._add("mse", mse(image, target))
        if "mask" in batch:
            self._add("mse_interest", masked_mse(image, target, batch["mask"]))
        self._add("mse_average_image", mse(self.average_image(size), target))
        steps = inversion.steps or []
        for number, step in enumerate(steps, start=1):
            self._add(f"mse_step{number}", mse(pool(step.image, size), target))
        if len(steps) > 1:
            first, last = (mse(pool(steps[i].image, size), target) for i in (0, -1))
            self._add("step_gain", (last < first).float())

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        totals = self._of_all_ranks(self._validation)
        if not totals:
            raise UserError("none of the validation images can be read; repair them, or give others")
        values = {name: total[0] / total[1] for name, total in totals.items()}
        values["mse_ratio"] = values["mse"] / values.pop("mse_average_image")
        values.update({name: metric.compute() for name, metric in self.metrics.items()})  # type: ignore[operator]
        # Every value is already the mean over all ranks.
        self.log_dict({f"val/{name}": value for name, value in values.items()}, rank_zero_only=True)

    def _of_all_ranks(self, sums: dict[str, Tensor]) -> dict[str, Tensor]:
        if self.trainer.world_size == 1:
            return sums
        # As objects: a rank whose images cannot be read has no sums, and must not let the others wait for them.
        everyones: list[dict[str, Tensor]] = [{}] * self.trainer.world_size
        torch.distributed.all_gather_object(everyones, {name: pair.cpu() for name, pair in sums.items()})
        names = dict.fromkeys(name for theirs in everyones for name in theirs)
        return {name: torch.stack([theirs[name] for theirs in everyones if name in theirs]).sum(0) for name in names}

    def _add(self, name: str, per_image: Tensor) -> None:
        pair = torch.stack([per_image.double().sum(), torch.full_like(per_image[0], len(per_image)).double()])
        self._validation[name] = self._validation.get(name, 0) + pair

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["generator_hash"] = self.generator.source_hash
        checkpoint["frozen"] = {name: value for name, value in frozen_hashes(self).items() if name != "_generator"}
        checkpoint["method"] = type(self).__name__

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:  # noqa: D102
        made_by, made_with = checkpoint.get("method"), checkpoint.get("generator_hash")
        own, own_hash = type(self).__name__, self.generator.source_hash
        if made_by not in (None, own):
            raise UserError(f"checkpoint of method {made_by}, expected {own}; choose the method it was made by")
        if made_with not in (None, own_hash):
            raise UserError(
                f"checkpoint was trained with generator {str(made_with)[:12]}, got {str(own_hash)[:12]}; "
                "give generator=… the file it was trained with"
            )
        # Networks that only measure are named too, but others may measure what was trained.
        made = checkpoint.get("frozen", {})
        check_frozen(self, {name: value for name, value in made.items() if not name.startswith("metrics.")})


def pool(image: Tensor, size: int) -> Tensor:
    """Bring (B, 3, R, R) to (B, 3, size, size) by area averaging (pSp's ``face_pool``); the identity if it fits."""
    return image if image.shape[-1] == size else F.adaptive_avg_pool2d(image, (size, size))


def mse(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error of each image, (B,), in squared units of [-1, 1]."""
    return (image.float() - target.float()).square().flatten(1).mean(1)


def masked_mse(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``sum m (x - y)^2 / (3 sum m)`` of each image, (B,): the error inside the mask (B, 1, H, W) in [0, 1]."""
    error = (image.float() - target.float()).square().mean(1, keepdim=True)
    return (mask * error).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1e-6)


def _each(losses: dict[str, Tensor] | Iterable[dict[str, Tensor]]) -> Iterator[dict[str, Tensor]]:
    if isinstance(losses, dict):
        yield losses
    else:
        yield from losses
