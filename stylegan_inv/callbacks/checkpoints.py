"""Writes checkpoints so that a run can be stopped at any moment and resumed exactly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from pytorch_lightning.callbacks import ModelCheckpoint

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.checkpoint_io import LAST
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.utils import compat
from stylegan_inv.utils.files import remove_partial


class Checkpoints(ModelCheckpoint):
    """Lightning's `ModelCheckpoint` for runs that may be stopped at any moment.

    The differences:

    * The end of training is always saved, not only if it falls on ``every_n_train_steps``.
    * A checkpoint that is followed by a validation records that the validation is due, and is written again after it. A
      run that is stopped in between validates first when it is resumed.
    * Weights that are not finite are never saved.
    * The run folder may be moved.
    * A checkpoint that names files outside of the folder of checkpoints does not get them removed.
    """

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._validation_due = False
        self._validated_batches = -1  # finished batches at the last validation

    @property
    def validation_due(self) -> bool:
        """Whether the last step still has to be validated."""
        return self._validation_due

    def save(self, trainer: pl.Trainer) -> None:
        """Writes ``last.ckpt`` now, unless it has been written after this step."""
        if compat.skips_checkpoint(self, trainer) or not self.save_last:
            return
        self._update_validation_due(trainer)
        compat.save_last_checkpoint(self, trainer)

    def _update_validation_due(self, trainer: pl.Trainer) -> None:
        every, done = compat.validation_interval(trainer), compat.finished_batches(trainer)
        self._validation_due = every is not None and done % every == 0 and self._validated_batches != done

    def setup(self, trainer: pl.Trainer, pl_module: pl.LightningModule, stage: str) -> None:  # noqa: D102
        super().setup(trainer, pl_module, stage)
        if trainer.is_global_zero and stage == "fit" and self.dirpath:
            remove_partial(self.dirpath)  # of an earlier process that was killed while it wrote

    def on_train_start(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        super().on_train_start(trainer, pl_module)
        compat.mark_step_saved(self, trainer)
        done = compat.finished_batches(trainer)
        for logger in trainer.loggers:
            if isinstance(logger, MetricsCSV):
                logger.drop_rows_after(done, validation_too=self._validation_due)
        if self._validation_due and not compat.is_fast_dev_run(trainer):
            compat.run_validation(trainer)

    def on_train_batch_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule, *args: Any) -> None:  # noqa: D102
        self._update_validation_due(trainer)
        super().on_train_batch_end(trainer, pl_module, *args)

    def on_validation_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        was_due, self._validation_due = self._validation_due, False
        self._validated_batches = compat.finished_batches(trainer)
        super().on_validation_end(trainer, pl_module)
        if was_due and compat.has_saved_step(self, trainer) and self.save_last and trainer.state.fn == "fit":
            compat.save_last_checkpoint(self, trainer)

    def on_train_end(self, trainer: pl.Trainer, pl_module: pl.LightningModule) -> None:  # noqa: D102
        self.save(trainer)

    def state_dict(self) -> dict[str, Any]:  # noqa: D102
        return {**super().state_dict(), "validation_due": self._validation_due}

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:  # noqa: D102
        texts, best = ("best_model_path", "kth_best_model_path", "last_model_path"), state_dict.get("best_k_models", {})
        if not isinstance(best, dict) or not all(isinstance(state_dict.get(name, ""), str) for name in texts):
            raise UserError("callbacks.checkpoint: the checkpoint has no paths of checkpoints, expected texts")
        scores = {name: [state_dict.get(name)] for name in ("best_model_score", "kth_value", "current_score")}
        for name, values in (scores | {"best_k_models": list(best.values())}).items():
            for value in values:
                if value is not None and not _is_score(value):
                    raise UserError(f"callbacks.checkpoint: {name} holds {value!r:.60}, expected a number")
        self._validation_due = bool(state_dict.get("validation_due", False))
        if str(state_dict.get("dirpath")) == str(self.dirpath):
            super().load_state_dict(_own_paths_only(state_dict, Path(str(self.dirpath))))
        else:  # moved, or resumed in another folder: the files in the old one must not be removed
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
                f"{Path(self.dirpath or '') / LAST}"
            )
        super()._save_checkpoint(trainer, filepath)


def _is_score(value: Any) -> bool:
    """Returns whether a value can be compared with a metric; it is infinite before the first one."""
    if isinstance(value, torch.Tensor):
        return value.ndim == 0 and not value.is_complex() and not bool(value.isnan())
    return isinstance(value, int | float) and not isinstance(value, bool) and not math.isnan(value)


def _own_paths_only(state: Mapping[str, Any], folder: Path) -> dict[str, Any]:
    """Returns the state of the callback without paths of files that are not in its folder.

    Lightning removes older checkpoints by the paths in this state, also remote ones and whole folders.
    """

    def own(path: Any) -> bool:
        return isinstance(path, str) and "://" not in path and Path(path).resolve().parent == folder.resolve()

    names = ("best_model_path", "kth_best_model_path", "last_model_path")
    return {
        **state,
        **{name: path if own(path := state.get(name)) else "" for name in names},
        "best_k_models": {path: score for path, score in state.get("best_k_models", {}).items() if own(path)},
    }
