"""Logs the training throughput as ``perf/images_per_second``."""

from __future__ import annotations

import time
from typing import Any

import pytorch_lightning as pl


class Throughput(pl.Callback):
    """Measures wall-clock throughput of training without validation, and the share of time spent waiting for data.

    Attributes:
        images: Number of training images, over all ranks.
        seconds: Wall-clock seconds in and between training batches, without validation.
        waiting_seconds: Seconds between batches, in which the loader makes the next one and metrics are logged.
    """

    def __init__(self) -> None:
        self.images, self.seconds, self.waiting_seconds = 0, 0.0, 0.0
        self._last_time: float | None = None

    def on_train_batch_start(self, *args: Any, **kwargs: Any) -> None:  # noqa: D102
        now = time.perf_counter()
        if self._last_time is None:
            self._last_time = now
        self.waiting_seconds += now - self._last_time

    def on_train_batch_end(  # noqa: D102
        self, trainer: pl.Trainer, module: pl.LightningModule, outputs: Any, batch: Any, *_: Any
    ) -> None:
        now = time.perf_counter()
        assert self._last_time is not None
        self.images += len(batch["image"]) * trainer.world_size
        self.seconds += now - self._last_time
        self._last_time = now
        module.log("perf/images_per_second", self.images_per_second, prog_bar=True)

    def on_validation_start(self, *args: Any) -> None:  # noqa: D102
        self._last_time = None

    @property
    def images_per_second(self) -> float:
        """Mean since the start."""
        return self.images / self.seconds if self.seconds else 0.0

    @property
    def waiting_share(self) -> float:
        """Share of the time spent waiting: an upper bound on what a faster loader could save."""
        return self.waiting_seconds / self.seconds if self.seconds else 0.0
