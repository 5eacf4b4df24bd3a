"""Where a training is, said the same way everywhere."""

from __future__ import annotations

from typing import Any

import pytorch_lightning as pl


def batches_done(trainer: pl.Trainer) -> int:
    """Training batches that are finished, over all resumes.

    Not ``global_step``, which counts gradient accumulation as one and every optimiser of a GAN.
    """
    progress: Any = trainer.fit_loop.epoch_loop.batch_progress.total
    return int(progress.processed)


def validation_due(trainer: pl.Trainer) -> bool:
    """Whether a validation comes after the training batch that has just ended (intervals counted in batches)."""
    every = getattr(trainer, "val_check_batch", None)
    if trainer.check_val_every_n_epoch is not None or not trainer.enable_validation or not isinstance(every, int):
        return False
    return batches_done(trainer) % every == 0
