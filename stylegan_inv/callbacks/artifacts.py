"""Lineage for wandb: which generator a run used, and which checkpoint it made."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from stylegan_inv.runtime.run_folder import RunFolder

_log = logging.getLogger(__name__)


class Artifacts(pl.Callback):
    """Tells wandb that the run uses its generator, and at the end that it made its last checkpoint.

    The generator is the artifact ``generator-<the first digits of its hash>``, whose content is its full hash: runs on
    the same file use the same version of the same artifact, whatever the file is called. The checkpoint is
    ``checkpoint-<run id>`` with the hash, the method, the step and the validation figures as metadata.

    Args:
        run_dir: The run's folder.
        upload: Send the checkpoint; otherwise it is a reference with a checksum, and the file stays where it is.
    """

    def __init__(self, run_dir: str, upload: bool = False) -> None:
        self._file, self._upload = RunFolder(Path(run_dir)).last_checkpoint, upload

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:  # noqa: D102
        generator: Any = getattr(module, "generator", None)
        sha256 = getattr(generator, "source_hash", None)
        if sha256 is None:
            return
        for run in _runs(trainer):
            import wandb

            facts = {"sha256": sha256, "resolution": generator.resolution, "num_ws": generator.num_ws}
            artifact = wandb.Artifact(f"generator-{sha256[:12]}", type="generator", metadata=facts)
            with artifact.new_file("generator.json") as file:
                json.dump(facts, file, indent=2, sort_keys=True)
            _use(run, artifact)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:  # noqa: D102
        if not self._file.is_file() or trainer.fast_dev_run:  # type: ignore[attr-defined]
            return
        for run in _runs(trainer):
            import wandb

            figures = {k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")}
            hash_ = getattr(getattr(module, "generator", None), "source_hash", None)
            facts = {"method": type(module).__name__, "step": trainer.global_step, "generator_sha256": hash_, **figures}
            artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model", metadata=facts)
            if self._upload:
                artifact.add_file(str(self._file))
            else:
                artifact.add_reference(self._file.absolute().as_uri())
            with _never_fatal():
                run.log_artifact(artifact, aliases=["latest", f"step_{trainer.global_step}"])


def _runs(trainer: pl.Trainer) -> list[Any]:
    """The wandb runs of the first rank; other ranks have none."""
    if not trainer.is_global_zero or trainer.fast_dev_run:  # type: ignore[attr-defined]
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]


def _use(run: Any, artifact: Any) -> None:
    with _never_fatal():
        if run.offline:
            # `use_artifact` wants a server, to wait for its answer. This is what it writes down before it waits, and
            # what `wandb sync` acts upon.
            run._log_artifact(artifact, is_user_created=True, use_after_commit=True)
        else:
            run.use_artifact(artifact)


@contextlib.contextmanager
def _never_fatal() -> Iterator[None]:
    try:
        yield
    except Exception as error:  # of many kinds, and none of them is a reason to lose a training
        _log.warning(
            "wandb has not recorded an artifact: %s", str(error).splitlines()[0] if str(error) else type(error)
        )
