"""Records in wandb which generator a run uses and which checkpoint it makes."""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from pytorch_lightning.loggers import WandbLogger

from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.utils.compat import is_fast_dev_run, use_artifact_offline

_log = logging.getLogger(__name__)


class Artifacts(pl.Callback):
    """Records the generator of a run as a used artifact, and its last checkpoint as a logged one.

    The generator is the artifact ``generator-<first digits of its hash>`` with the full hash as content: runs on the
    same file use the same version of the same artifact, whatever the file is called. The checkpoint is
    ``checkpoint-<run id>`` with the hash, the method, the step and the validation metrics as metadata.

    Args:
        run_dir: Folder of the run.
        upload: Upload the checkpoint; otherwise it is recorded as a reference with a checksum.
    """

    def __init__(self, run_dir: str, upload: bool = False) -> None:
        self._file, self._upload = RunFolder(Path(run_dir)).last_checkpoint, upload

    def setup(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        """Records that the run uses its generator."""
        sha256 = _generator_hash(module)
        if sha256 is None:
            return
        for run in _runs(trainer):
            import wandb

            generator = module.generator
            facts = {"sha256": sha256, "resolution": generator.resolution, "num_ws": generator.num_ws}
            artifact = wandb.Artifact(f"generator-{sha256[:12]}", type="generator", metadata=facts)
            with artifact.new_file("generator.json") as file:
                json.dump(facts, file, indent=2, sort_keys=True)
            with _warn_on_errors():
                if run.offline:
                    use_artifact_offline(run, artifact)
                else:
                    run.use_artifact(artifact)

    def teardown(self, trainer: pl.Trainer, module: Any, stage: str) -> None:
        """Records the last checkpoint."""
        if not self._file.is_file() or is_fast_dev_run(trainer):
            return
        for run in _runs(trainer):
            import wandb

            facts = {
                "method": type(module).__name__,
                "step": trainer.global_step,
                "generator_sha256": _generator_hash(module),
                **{k: float(v) for k, v in trainer.callback_metrics.items() if k.startswith("val/")},
            }
            artifact = wandb.Artifact(f"checkpoint-{run.id}", type="model", metadata=facts)
            if self._upload:
                artifact.add_file(str(self._file))
            else:
                artifact.add_reference(self._file.absolute().as_uri())
            with _warn_on_errors():
                run.log_artifact(artifact, aliases=["latest", f"step_{trainer.global_step}"])


def _generator_hash(module: Any) -> str | None:
    return module.generator.source_hash if isinstance(module, InversionMethod | StyleGAN2Training) else None


def _runs(trainer: pl.Trainer) -> list[Any]:
    """Returns the wandb runs of the first rank; other ranks have none."""
    if not trainer.is_global_zero or is_fast_dev_run(trainer):
        return []
    return [logger.experiment for logger in trainer.loggers if isinstance(logger, WandbLogger)]


@contextlib.contextmanager
def _warn_on_errors() -> Iterator[None]:
    """Turns errors of wandb, of any kind, into warnings: none of them is a reason to lose a training."""
    try:
        yield
    except Exception as error:
        reason = str(error).splitlines()[0] if str(error) else type(error)
        _log.warning("wandb has not recorded an artifact: %s", reason)
