"""Images per second of training, as ``perf/images_per_second``."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class Throughput(pl.Callback):
    """Measures wall-clock throughput of training alone, and how much of the time it waits for data.

    Attributes:
        images: Images trained on, over all ranks.
        seconds: Wall-clock seconds spent in training batches and between them, validation not counted.
        waiting_seconds: Those between batches, in which the loader makes the next one (and figures are logged).
    """

    def __init__(self) -> None:
        self.images, self.seconds, self.waiting_seconds = 0, 0.0, 0.0
        self._mark: float | None = None

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        now = time.perf_counter()
        if self._mark is None:
            self._mark = now
        self.waiting_seconds += now - self._mark

    def on_train_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        now = time.perf_counter()
        assert self._mark is not None
        self.images += len(batch["image"]) * trainer.world_size
        self.seconds += now - self._mark
        self._mark = now
        module.log("perf/images_per_second", self.images_per_second, prog_bar=True)

    def on_validation_start(self, *args: Any) -> None:  # noqa: D102
        self._mark = None

    @property
    def images_per_second(self) -> float:
        """The mean since the start."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting: without the loader, training would be faster by at most so much."""
        return self.waiting_seconds / self.seconds if self.seconds else 0.0
