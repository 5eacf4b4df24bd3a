"""When checkpoints are written, and when not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from stylegan_inv.callbacks.step_count import batches_done, validation_due
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.utils.files import remove_partial


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint` for runs that are stopped at any moment.

    What differs: the end of training is always saved, not only when it falls on ``every_n_train_steps``. Where a
    validation follows, the checkpoint says that it is due, and is written again when it is done; so a run stopped in
    between validates first when it is continued. Weights that are not finite are never saved. A run folder may be
    moved.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._validation_due = False
        self._validated = -1  # after how many batches

    @property
    def validation_due(self) -> bool:
        """Whether the newest step still has to be validated."""
        return self._validation_due

    def save(self, trainer: pl.Trainer) -> None:
        """Write ``last.ckpt`` now, unless this step has one."""
        if self._should_skip_saving_checkpoint(trainer) or not self.save_last:
            return
        self._note(trainer)
        self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def _note(self, trainer: pl.Trainer) -> None:
        self._validation_due = validation_due(trainer) and self._validated != batches_done(trainer)

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero and stage == "fit" and self.dirpath:
            remove_partial(self.dirpath)  # of a former life that was killed while it wrote

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        super().on_train_start(trainer, pl_module)
        self._last_global_step_saved = trainer.global_step
        done = batches_done(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.forget_from(done, validation_too=self._validation_due)
        if self._validation_due and not trainer.fast_dev_run:  # type: ignore[attr-defined]
            loop = trainer.fit_loop.epoch_loop.val_loop
            loop.restarting = False
            trainer.validating = True
            loop.run()
            trainer.training = True

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        self._note(trainer)
        super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        was_due, self._validation_due = self._validation_due, False
        self._validated = batches_done(trainer)
        super().on_validation_end(trainer, pl_module)
        saved = self._last_global_step_saved == trainer.global_step and bool(self._last_checkpoint_saved)
        if was_due and saved and self.save_last and trainer.state.fn == "fit":
            self._save_last_checkpoint(trainer, self._monitor_candidates(trainer))

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        self.save(trainer)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {**super().state_dict(), "validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        self._validation_due = bool(state_dict.get("validation_due", False))
        if str(state_dict.get("dirpath")) == str(self.dirpath):
            super().load_state_dict(state_dict)
        else:  # moved, or continued elsewhere: what lies there is not ours to remove
            self.best_model_score = state_dict.get("best_model_score")

    def _save_checkpoint(self, trainer: pl.Trainer, filepath: str) -> None:
        broken = [
            name
            for name, value in trainer.lightning_module.state_dict().items()
            if isinstance(value, torch.Tensor) and value.is_floating_point() and not torch.isfinite(value).all()
        ]
        if broken:
            raise UserError(
                f"step {trainer.global_step}: {', '.join(broken[:3])}{' ...' if len(broken) > 3 else ''} "
                f"({len(broken)}) not finite; nothing was saved, the last good checkpoint is "
                f"{Path(self.dirpath or '') / 'last.ckpt'}"
            )
        super()._save_checkpoint(trainer, filepath)
