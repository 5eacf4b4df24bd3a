"""The progress bar: rich in a terminal, plain lines in a log file."""

from __future__ import annotations

import math
import sys
import time
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.callbacks import ProgressBar, RichProgressBar, Timer

from stylegan_inv.utils.checks import real_number
from stylegan_inv.utils.command_line import print_line


def progress_bar(every_seconds: float = 20.0) -> ProgressBar:
    """Returns a rich progress bar with losses and images/s if the output is a terminal, else `PlainProgress`.

    Args:
        every_seconds: Seconds between plain lines.
    """
    real_number("callbacks.progress.every_seconds", every_seconds, least=0)
    return TerminalProgress(leave=True) if sys.stdout.isatty() else PlainProgress(every_seconds)


def end_of_training(trainer: pl.Trainer) -> str:
    """Returns what ends a training, and at which step, e.g. ``step 400 (trainer.max_steps)``."""
    ends = [(trainer.max_steps, "trainer.max_steps")] if trainer.max_steps != -1 else []
    if trainer.max_epochs not in (None, -1) and math.isfinite(trainer.num_training_batches):
        ends.append((int(trainer.max_epochs * trainer.num_training_batches), "trainer.max_epochs"))
    text = "step {} ({})".format(*min(ends)) if ends else "an interruption"
    timed = any(isinstance(callback, Timer) for callback in trainer.callbacks)  # type: ignore[attr-defined]
    return f"{text} or trainer.max_time" if timed else text


class TerminalProgress(RichProgressBar):
    """Lightning's rich progress bar, which also says what ends the training."""

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        super().on_train_start(trainer, pl_module)
        if self.is_enabled:
            print_line(f"training until {end_of_training(trainer)}")


class PlainProgress(ProgressBar):
    """Prints lines with the step, the remaining time, losses and images/s.

    Args:
        every_seconds: Seconds between lines.
    """

    def __init__(self, every_seconds: float) -> None:
        super().__init__()
        self._every_seconds, self._enabled = every_seconds, True
        self._start_time, self._last_time, self._first_step = 0.0, 0.0, 0

    def disable(self) -> None:  # noqa: D102
        self._enabled = False

    def enable(self) -> None:  # noqa: D102
        self._enabled = True

    @property
    def is_enabled(self) -> bool:
        """Whether lines are printed; `LightningModule.print` reads it."""
        return self._enabled

    def on_train_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: D102
        self._start_time = self._last_time = time.monotonic()
        self._first_step = trainer.global_step
        if self._enabled:
            print_line(f"training until {end_of_training(trainer)}")

    def on_train_batch_end(self, trainer: pl.Trainer, module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        now, step, total = time.monotonic(), trainer.global_step, trainer.max_steps
        if not self._enabled or now - self._last_time < self._every_seconds:
            return
        self._last_time = now
        done = max(1, step - self._first_step)
        left = (now - self._start_time) / done * max(0, total - step)
        metrics = "  ".join(
            f"{name} {value:.4g}"
            for name, value in self.get_metrics(trainer, module).items()
            if isinstance(value, float)
        )
        print_line(f"step {step}/{total}  {left / 60:.1f} min left  {metrics}")

    def on_validation_start(self, trainer: pl.Trainer, module: pl.LightningModule) -> None:  # noqa: D102
        if self._enabled and not trainer.sanity_checking:
            print_line(f"step {trainer.global_step}: validating")
