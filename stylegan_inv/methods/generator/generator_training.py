"""What all trainings of generators share: the average generator, its samples, validation and export."""

from __future__ import annotations

import copy
import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor, nn

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.class_choice import one_hot
from stylegan_inv.generators.grey import GREY, check_picture_channels
from stylegan_inv.generators.io.formats import save_generator
from stylegan_inv.generators.progressive import Growth, Stage, enlarged
from stylegan_inv.metrics.full_set import FullFrechetDistance
from stylegan_inv.optim.gradient_averaging import update_moving_average
from stylegan_inv.utils.checks import real_number, whole_number
from stylegan_inv.utils.domains import domain_of

_log = logging.getLogger(__name__)


class GeneratorTraining(pl.LightningModule):
    """Base class of trainings that update a generator and an exponential moving average of its weights.

    A subclass defines :meth:`update`. The state dict contains everything that a resumed run needs; random numbers are a
    function of seed, batch number and rank.

    Args:
        generator: Generator to train.
        generator_ema: Moving average of the weights to start from; None starts from the weights of ``generator``.
        growth: Schedule of a progressive generator; None for others.
        ema_images: Half-life of the average generator, in images.
        ema_rampup: Limits the half-life to this fraction of the images seen; None for no limit.
        metrics: Name -> metric with ``update(images, real=...)``; None for none.
        total_images: Number of images after which the training stops; None leaves it to the trainer.
        samples: Number of samples in the panel.
        seed: Seed of the training and of the panel.
        export: File of the average generator, written at the end, relative to the run folder; None for none.
    """

    #: Whether a conditional generator learns from the classes of the images.
    learns_classes = True

    generator: Any
    generator_ema: Any
    fixed_z: Tensor
    images_seen: Tensor
    batches: Tensor

    def __init__(
        self,
        generator: Generator,
        *,
        generator_ema: Generator | None = None,
        growth: Growth | None = None,
        ema_images: int = 10_000,
        ema_rampup: float | None = 0.05,
        metrics: Mapping[str, Any] | None = None,
        total_images: int | None = None,
        samples: int = 64,
        seed: int = 0,
        export: str | Path | None = None,
    ) -> None:
        super().__init__()
        self.automatic_optimization = False
        check_picture_channels(generator.img_channels, "generator: ")
        self.generator = generator
        if generator_ema is not None:
            _check_same_shape(generator, generator_ema)
        self.generator_ema = copy.deepcopy(generator_ema or generator).eval().requires_grad_(False)
        self.growth = growth
        self.ema_images = whole_number("method.ema_images", ema_images, least=0)
        self.ema_rampup = None if ema_rampup is None else real_number("method.ema_rampup", ema_rampup, least=0)
        self.total_images, self.seed, self.export_path = total_images, seed, export
        self.metrics: Any = nn.ModuleDict(dict(metrics or {}))
        self.register_buffer("images_seen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("batches", torch.zeros((), dtype=torch.int64))
        random = torch.Generator().manual_seed(seed)
        fixed_z = torch.randn(whole_number("method.samples", samples), self.generator.z_dim, generator=random)
        self.register_buffer("fixed_z", fixed_z, persistent=False)

    def update(self, batch: Mapping[str, Tensor], seen: int, number: int) -> None:
        """Updates the networks.

        Args:
            batch: ``image`` (B, C, R, R) in [-1, 1] with the channels of the generator, and what else the training
                needs: ``class`` (B,) for a conditional generator.
            seen: Number of images seen before, on all ranks.
            number: Number of the batch, from 0.
        """
        raise NotImplementedError

    # -- training ------------------------------------------------------------------------------------------------------

    def training_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Updates the networks with a batch, then the average generator."""
        seen, number = int(self.images_seen), int(self.batches)
        torch.manual_seed((self.seed * 1_000_003 + number) * self.trainer.world_size + self.global_rank)
        self.update({**batch, "image": self.own_channels(batch["image"])}, seen, number)
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

    def own_channels(self, images: Tensor) -> Tensor:
        """Returns images (B, 3, R, R) with the channels of the generator: those of a grey one have one."""
        return images[:, :1] if self.generator.img_channels == GREY else images

    def condition(self, batch: Mapping[str, Tensor]) -> Tensor | None:
        """Returns the condition (B, c_dim) of a batch; None for an unconditional generator."""
        return one_hot(batch["class"], self.generator.c_dim) if self.generator.c_dim and self.learns_classes else None

    @property
    def stage(self) -> Stage | None:
        """Current stage of progressive networks; None for others."""
        return None if self.growth is None else self.growth.stage(int(self.images_seen))

    def synthesize(self, generator: Any, ws: Tensor, noise: str) -> Tensor:
        """Returns the images of codes (B, L, D) at the current resolution."""
        stage = self.stage
        images: Tensor = generator.synthesis(ws, noise=noise, **({} if stage is None else {"stage": stage}))
        return images

    # -- validation and results ----------------------------------------------------------------------------------------

    def on_validation_epoch_start(self) -> None:  # noqa: D102
        self._sampler = torch.Generator().manual_seed(self.seed * 1_000_003 + 1 + self.global_rank)

    def validation_step(self, batch: Mapping[str, Tensor], batch_idx: int) -> None:
        """Updates the metrics with real images and as many samples of the average generator, of the same classes."""
        metrics = [metric for metric in self.metrics.values() if not isinstance(metric, FullFrechetDistance)]
        if not metrics:
            return
        z = torch.randn(len(batch["image"]), self.generator.z_dim, generator=self._sampler).to(self.device)
        fake = self.sample(z, c=self.condition(batch))
        for metric in metrics:
            metric.update(batch["image"], real=True)
            metric.update(fake.expand(-1, 3, -1, -1), real=False)  # networks take RGB

    def on_validation_epoch_end(self) -> None:  # noqa: D102
        for name, metric in self.metrics.items():
            if isinstance(metric, FullFrechetDistance):
                self._fill(metric)
            value = metric.compute()
            values = value if isinstance(value, dict) else {name: value}
            self.log_dict({f"val/{key}": number.float() for key, number in values.items()}, rank_zero_only=True)
            metric.reset()

    def _fill(self, metric: FullFrechetDistance) -> None:
        """Adds all training images, and images of the average generator with random noise, to a metric."""
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        if not isinstance(data, ImageDataModule):
            raise UserError(f"metrics.{metric.name}: expected a data set with all training images, or leave it out")
        labels = data.class_labels("train") if self.learns_classes else None
        seed = self.seed * 1_000_003 + 500_000 + self.global_rank
        sampler = torch.Generator().manual_seed(seed)

        def real() -> Iterator[Tensor]:
            return (batch["image"].to(self.device) for batch in data.full_loader("train"))

        def sample(count: int) -> Tensor:
            z = torch.randn(count, self.generator.z_dim, generator=sampler).to(self.device)
            c = None
            if labels is not None and self.generator.c_dim:
                rows = torch.randint(len(labels), (count,), generator=sampler)
                c = one_hot(labels[rows].to(self.device), self.generator.c_dim)
            return self.sample(z, c=c, noise="random").expand(-1, 3, -1, -1)  # networks take RGB

        with torch.random.fork_rng([self.device] if self.device.type == "cuda" else []):
            torch.manual_seed(seed)  # of the noise
            metric.fill(real, sample, data.val_batch_size, self.global_rank, self.trainer.world_size)

    @torch.no_grad()
    def sample(self, z: Tensor, psi: float = 1.0, c: Tensor | None = None, noise: str = "const") -> Tensor:
        """Returns images of the average generator, (B, C, R, R) in [-1, 1]; enlarged while the generator grows.

        Args:
            z: (B, Z).
            psi: Truncation; 1 for none.
            c: Condition (B, c_dim) of a conditional generator.
            noise: Noise of the synthesis network: ``const`` or ``random``.
        """
        image = self.synthesize(self.generator_ema, self.generator_ema.mapping(z, psi, c=c), noise)
        return enlarged(image, self.generator.resolution).clamp(-1, 1)

    def panel_columns(self) -> dict[str, Tensor]:
        """Returns the columns of the panel: images of fixed z at three truncations; the classes take turns."""
        count = self.generator.c_dim if self.learns_classes else 0
        turns = torch.arange(len(self.fixed_z), device=self.device)
        parts = [
            (z, one_hot(k % count, count) if count else None)
            for z, k in zip(self.fixed_z.split(16), turns.split(16), strict=True)
        ]
        return {f"psi {psi:g}": torch.cat([self.sample(z, psi, c) for z, c in parts]) for psi in (1.0, 0.7, 0.5)}

    def on_fit_end(self) -> None:
        """Writes the average generator."""
        if self.export_path is None or not self.trainer.is_global_zero or self.trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        if self.growth is not None and self.images_seen < self.growth.images:
            _log.warning(
                "the generator has not grown up: %d of %d images; a longer run, or smaller method.grow_images and "
                "method.fade_images",
                int(self.images_seen), self.growth.images,
            )  # fmt: skip
        path = Path(self.trainer.default_root_dir) / self.export_path
        path.parent.mkdir(parents=True, exist_ok=True)
        metadata = {"images": str(int(self.images_seen)), "trained_by": type(self).__name__}
        exported = copy.deepcopy(self.generator_ema).cpu()
        data = self.trainer.datamodule  # type: ignore[attr-defined]
        exported.domain = domain_of(data) or exported.domain
        save_generator(exported, path, metadata)


def _check_same_shape(generator: Generator, average: Generator) -> None:
    """Raises a UserError if a moving average is not that of a generator of the same shape."""
    own, other = ({k: tuple(v.shape) for k, v in network.state_dict().items()} for network in (generator, average))
    if own != other:
        raise UserError(
            f"method.generator_ema: has {average.resolution} px and other layers than the generator of "
            f"{generator.resolution} px, expected the moving average of its weights; give both from one file"
        )
