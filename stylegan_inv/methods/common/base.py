"""The interface of an inversion method, which turns images into an `Inversion`."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol, runtime_checkable

import pytorch_lightning as pl
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.feature_maps import FeatureChange, change_rows
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.methods.common.image_means import ImageMeans
from stylegan_inv.methods.common.reached_distances import DistanceRecord, ReachedDistances
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.frozen_module import Frozen, check_frozen, frozen_hashes


@runtime_checkable
class FixedSize(Protocol):
    """A network that takes images of one size only.

    Attributes:
        resolution: Side length of the images, in pixels.
    """

    resolution: int


@dataclass
class Step:
    """One iteration of a method that refines its result.

    Attributes:
        w: Latent codes, (B, L, D).
        image: Reconstructions, (B, 3, R, R).
        name: Caption in panels; empty for the number of the iteration.
    """

    w: Tensor
    image: Tensor
    name: str = ""


@dataclass
class Inversion:
    """The result of a method for a batch of images.

    Attributes:
        w: Latent codes in W+, (B, L, D).
        image: Reconstructions at the generator's resolution, (B, 3, R, R), nominally in [-1, 1].
        steps: All iterations, first to last, of methods that refine; None otherwise.
        noise: Optimised noise maps, one (B, 1, h, w) per layer; None for the generator's own.
        features: Changes of feature maps by layer, as ``synthesis(features=…)`` takes them: maps (B, C, h, w) that
            replace those of the synthesis, or pairs ``(scale, shift)``; None for none.
        weights: Per-image difference of the tuned synthesis network's weights, each with a leading batch dimension,
            see `generators.variants.low_rank_difference`; None for the shared generator.
        kept: What the networks of a method with ``edits_with_networks`` read to edit the image, (B, ...) each;
            None for other methods.
    """

    w: Tensor
    image: Tensor
    steps: list[Step] | None = None
    noise: list[Tensor] | None = None
    features: dict[str, FeatureChange] | None = None
    weights: dict[str, Tensor] | None = None
    kept: dict[str, Tensor] | None = None

    def select(self, rows: slice | Tensor) -> Inversion:
        """Returns the inversion of some of the images, or of all in another order.

        Args:
            rows: A slice, or the indices of the images, (N,).
        """

        def of(tensors: Mapping[str, Tensor] | None) -> dict[str, Tensor] | None:
            return None if tensors is None else {name: tensor[rows] for name, tensor in tensors.items()}

        return replace(
            self,
            w=self.w[rows],
            image=self.image[rows],
            steps=None
            if self.steps is None
            else [Step(step.w[rows], step.image[rows], step.name) for step in self.steps],
            noise=None if self.noise is None else [m[rows] for m in self.noise],
            features=None if self.features is None else {n: change_rows(c, rows) for n, c in self.features.items()},
            weights=of(self.weights),
            kept=of(self.kept),
        )


class InversionMethod(pl.LightningModule):
    """Base class of all inversion methods.

    A subclass must define :meth:`invert`; all commands use nothing else. Subclasses are of one of two kinds:
    `TrainedMethod` learns from a data set, `PerImageMethod` optimises each image by itself.

    Batches are dicts: ``image`` (B, 3, H, W) is the target of the reconstruction, ``source`` the input of the method
    where it differs from the target (translation tasks), ``mask`` (B, 1, H, W) the region of interest.

    The generator and the networks of losses and metrics are frozen. They follow the module's device and precision, but
    are not part of its ``state_dict``; checkpoints identify them by their hashes.

    Args:
        generator: Frozen StyleGAN2.
        metrics: Name -> torchmetrics metric with ``update(image, target)``, logged as ``val/<name>``.

    Attributes:
        reached: The distances of the reconstructions in the last validation, which checkpoints hold; None if they are
            not known.
        settings_hash: Hash of the settings in the config of the run that the method was loaded from; None if there is
            none. A checkpoint of a method that starts from this one holds it.
    """

    #: Number of channels of the input images.
    in_channels: int = 3
    #: Domain of the images that the method was made for, see `utils.domains`; None if it is unknown.
    domain: str | None = None
    #: Batch entries that training requires besides ``image``.
    required_entries: tuple[str, ...] = ()
    #: Whether :meth:`render_edited` runs networks of the method, so that saved inversions need it to be edited.
    edits_with_networks: bool = False
    #: Whether its inversions have ``weights``.
    tunes_weights: bool = False

    def __init__(self, generator: Generator, metrics: Mapping[str, Any] | None = None) -> None:
        super().__init__()
        self._generator = Frozen(generator)
        self.metrics = nn.ModuleDict(dict(metrics or {}))
        self.reached: ReachedDistances | None = None
        self.settings_hash: str | None = None
        self._input_size: int | None = None
        self._means = ImageMeans()
        self._distances = DistanceRecord()

    # -- the interface -------------------------------------------------------------------------------------------------

    def invert(self, images: Tensor) -> Inversion:
        """Inverts images.

        Args:
            images: (B, C, H, W), RGB in [-1, 1] unless ``in_channels`` differs from 3.
        """
        raise NotImplementedError

    def edit(self, inversion: Inversion, edit: Callable[[Tensor], Tensor]) -> Tensor:
        """Returns images of edited latent codes, (B, 3, R, R), nominally in [-1, 1].

        Args:
            inversion: Result of :meth:`invert`.
            edit: Maps latent codes (B, L, D) to edited ones, for example
                ``partial(load_direction("smile").apply, strength=2.0)``.
        """
        return self.render_edited(inversion, edit(inversion.w))

    def render_edited(self, inversion: Inversion, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Returns the images of edited codes, (B, 3, R, R).

        The noise maps, features and weights of the inversion are used as they are. Methods whose paper edits in another
        way override this, and set ``edits_with_networks`` if they need more than the generator.

        Args:
            inversion: Result of :meth:`invert`.
            w: Edited codes (B, L, D), in the order of the inversion.
            noise: Noise maps that replace those of the inversion; None for these.
        """
        weights = None
        if inversion.weights is not None:
            weights = LowRankDifference(inversion.weights, self.generator.synthesis)
        images: Tensor = self.generator.synthesis(
            w, noise=noise or inversion.noise or "const", features=inversion.features, weights=weights
        )
        return images

    @property
    def generator(self) -> Generator:
        """The frozen generator."""
        generator: Generator = self._generator.network
        return generator

    @property
    def input_size(self) -> int:
        """Side length of the images that the method was made for, in pixels."""
        return self.default_input_size() if self._input_size is None else self._input_size

    @input_size.setter
    def input_size(self, size: int) -> None:
        self._input_size = whole_number("input_size", size)

    def default_input_size(self) -> int:
        """Returns the side length of input images where none has been set: the generator's resolution."""
        return self.generator.resolution

    # -- classes of a conditional generator ----------------------------------------------------------------------------

    def starting_methods(self) -> list[InversionMethod]:
        """Returns the methods whose results this one refines."""
        return []

    def set_class(self, value: int | str | None) -> None:
        """Sets the class of a conditional generator, see :meth:`.Generator.set_class`, also for starting methods."""
        self.generator.set_class(value)
        for method in self.starting_methods():
            method.set_class(value)

    @contextlib.contextmanager
    def with_classes(self, labels: Tensor | None) -> Iterator[None]:
        """Within the block, the images are of these classes (B,), see :meth:`.Generator.with_classes`."""
        with contextlib.ExitStack() as stack:
            stack.enter_context(self.generator.with_classes(labels))
            for method in self.starting_methods():
                stack.enter_context(method.with_classes(labels))
            yield

    # -- helpers for subclasses ----------------------------------------------------------------------------------------

    @staticmethod
    def source(batch: Mapping[str, Tensor]) -> Tensor:
        """Returns the input of the method: ``source`` (B, C, H, W) if the batch has one, else ``image``."""
        return batch.get("source", batch["image"])

    def average_codes(self, batch_size: int) -> Tensor:
        """Returns the latent average of the generator, (B, L, D)."""
        return self.generator.w_avg.expand(batch_size, self.generator.num_ws, -1)

    @torch.no_grad()
    def average_image(self, size: int) -> Tensor:
        """Returns the image of the latent average with constant noise, pooled to (1, 3, size, size).

        Where each image of the batch has a class of its own, the images of these classes, (B, 3, size, size).
        """
        average = self.generator.w_avg
        codes = self.average_codes(1 if average.ndim == 1 else len(average))
        return pool(self.generator.synthesis(codes, noise="const"), size)

    # -- validation ----------------------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        for metric in self.metrics.values():
            metric.reset()  # type: ignore[operator]
        self._means = ImageMeans()
        self._distances = DistanceRecord()

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> dict[str, Inversion]:
        """Inverts held-out images and scores the result.

        Returns:
            The inversion under the key ``inversion``, for callbacks.
        """
        with self.with_classes(batch.get("class")):
            inversion = self.invert(self.source(batch))
            self.score(batch, inversion)
        return {"inversion": inversion}

    def score(self, batch: Mapping[str, Tensor], inversion: Inversion) -> None:
        """Updates the metrics and the mean errors with the inversion of a batch."""
        target = batch["image"]
        size = target.shape[-1]
        image = pool(inversion.image, size)
        for metric in self.metrics.values():
            metric.update(image.float(), target)  # type: ignore[operator]
        distances = mse(image, target)
        self._means.add("mse", distances)
        self._distances.add(distances, target)
        if "mask" in batch:
            self._means.add("mse_interest", masked_mse(image, target, batch["mask"]))
        self._means.add("mse_average_image", mse(self.average_image(size), target))
        steps = inversion.steps or []
        for number, step in enumerate(steps, start=1):
            self._means.add(f"mse_step{number}", mse(pool(step.image, size), target))
        if len(steps) > 1:
            first, last = (mse(pool(steps[i].image, size), target) for i in (0, -1))
            self._means.add("step_gain", (last < first).float())

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        values = self._means.compute(self.trainer.world_size)
        if not values:
            raise UserError("none of the validation images can be read; repair them, or give others")
        values["mse_ratio"] = values["mse"] / values.pop("mse_average_image")
        values.update({name: metric.compute() for name, metric in self.metrics.items()})  # type: ignore[operator]
        # All values are already averaged over the ranks.
        self.log_dict({f"val/{name}": value for name, value in values.items()}, rank_zero_only=True)
        reached = self._distances.compute(self.trainer.world_size)
        if not self.trainer.sanity_checking:
            self.reached = reached

    # -- checkpoints ---------------------------------------------------------------------------------------------------

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["generator_hash"] = self.generator.source_hash
        checkpoint["frozen"] = {name: value for name, value in frozen_hashes(self).items() if name != "_generator"}
        checkpoint["start"] = [start.settings_hash for start in self.starting_methods()]
        checkpoint["method"] = type(self).__name__
        checkpoint["reached"] = None if self.reached is None else self.reached.to_plain()

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Checks that a checkpoint was made by this method and with this generator.

        Raises:
            UserError: The method, the generator or a frozen network differs.
        """
        if "global_step" in checkpoint:  # by which methods restore their stage
            whole_number("global_step", checkpoint["global_step"], 0)
        made_by, made_with = checkpoint.get("method"), checkpoint.get("generator_hash")
        own, own_hash = type(self).__name__, self.generator.source_hash
        if made_by not in (None, own):
            raise UserError(f"checkpoint of method {made_by}, expected {own}; choose the method it was made by")
        if made_with not in (None, own_hash):
            raise UserError(
                f"checkpoint was trained with generator {str(made_with)[:12]}, got {str(own_hash)[:12]}; "
                "give generator=… the file it was trained with"
            )
        stored = checkpoint.get("reached")  # absent in the files of earlier versions
        self.reached = None if stored is None else ReachedDistances.from_plain(stored)
        starts = [start.settings_hash for start in self.starting_methods()]
        for before, now in zip(checkpoint.get("start", []), starts, strict=False):
            if before is not None and now not in (None, before):
                raise UserError(
                    f"checkpoint was trained with settings {str(before)[:12]} of method.start, got {str(now)[:12]}; "
                    "give the run it was trained with, as it was"
                )
        # The networks of metrics may differ from those of the training run.
        made = checkpoint.get("frozen", {})
        check_frozen(self, {name: value for name, value in made.items() if not name.startswith("metrics.")})


def pool(image: Tensor, size: int) -> Tensor:
    """Resizes (B, 3, R, R) to (B, 3, size, size) by area averaging, as pSp's ``face_pool``."""
    return image if image.shape[-1] == size else F.adaptive_avg_pool2d(image, (size, size))


def mse(image: Tensor, target: Tensor) -> Tensor:
    """Returns the mean squared error of each image, (B,), in squared units of [-1, 1]."""
    return (image.float() - target.float()).square().flatten(1).mean(1)


def masked_mse(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Returns ``sum m (x - y)^2 / (3 sum m)`` of each image, (B,), for a mask (B, 1, H, W) in [0, 1]."""
    error = (image.float() - target.float()).square().mean(1, keepdim=True)
    return (mask * error).sum((1, 2, 3)) / mask.sum((1, 2, 3)).clamp_min(1e-6)
