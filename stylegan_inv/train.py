"""Train a method: ``python -m stylegan_inv.train method=restyle``.

Composes the config, builds the objects, fits, and leaves a run folder with the resolved config, versions, metrics,
panels and checkpoints. The last lines say where everything is. The same command with ``resume=auto`` goes on where a
run was stopped.
"""

from __future__ import annotations

import functools
import json
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf

from stylegan_inv import config
from stylegan_inv.callbacks.checkpoints import Checkpoints
from stylegan_inv.callbacks.throughput import Throughput
from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.datamodules.loaders import is_worker_death
from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.fit_check import check_fit
from stylegan_inv.runtime import ranks, run_dirs, run_folder
from stylegan_inv.runtime.allocator import tune_allocator
from stylegan_inv.runtime.checkpoint_io import AtomicCheckpointIO, check_state, read_checkpoint
from stylegan_inv.runtime.quiet import quiet_libraries
from stylegan_inv.utils.tables import print_metrics

#: Other ranks have left by then, or hang.
_CHILDREN_SECONDS, _CHILDREN_SECONDS_AFTER_ERROR = 60.0, 1.0


@dataclass
class Job:
    """Everything that is built and checked before the run folder exists."""

    method: pl.LightningModule
    data: pl.LightningDataModule
    place: run_dirs.Place

    @property
    def run_dir(self) -> Path:
        """Where it goes."""
        return self.place.run_dir


def prepare(cfg: DictConfig) -> Job:
    """Check the config and build method and data; raises UserError before anything is written."""
    config.check_geometry(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    place = run_dirs.choose(cfg, *_wanted_folder(cfg))
    data = config.instantiate(cfg.dataset)
    data.setup("fit")  # finds missing folders, empty folders and splits that are too small
    method = config.instantiate_method(cfg.method)
    if isinstance(method, InversionMethod) and isinstance(data, ImageDataModule):
        check_fit(method, data.panel_batch(1), data.entries("train"))
    if place.ckpt_path is not None:
        checkpoint = read_checkpoint(place.ckpt_path)
        method.on_load_checkpoint(checkpoint)
        check_state(method, checkpoint["state_dict"], place.ckpt_path)
    place.claim()
    return Job(method, data, place)


def _wanted_folder(cfg: DictConfig) -> tuple[Path, bool]:
    """Hydra's folder for this run, and whether it was given rather than made from the time."""
    if not HydraConfig.initialized():
        return Path(cfg.paths.run_dir), True
    hydra_cfg = HydraConfig.get()
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return Path(hydra_cfg.runtime.output_dir), True
    return Path(hydra_cfg.run.dir), any(o.startswith("hydra.run.dir=") for o in hydra_cfg.overrides.hydra)


def train(cfg: DictConfig, job: Job) -> float | None:
    """Fit the method; returns the value that sweeps optimise."""
    started = time.perf_counter()
    run_dir = Path(cfg.paths.run_dir)
    if job.place.finished:
        metrics = json.loads((run_dir / "metrics.json").read_text())
        print(f"{run_dir}: finished before; nothing to do (give another hydra.run.dir, or more trainer.max_steps)")
        return metrics.get(cfg.optimized_metric)
    ranks.die_with_parent()
    quiet_libraries()
    if cfg.tune_allocator:
        tune_allocator()
    describe = functools.partial(run_folder.describe, run_dir, config.plain(cfg), job.place.command)
    describe()
    callbacks = [config.instantiate(node) for node in cfg.callbacks.values() if node]
    saver = AtomicCheckpointIO(recreate=describe)
    trainer: pl.Trainer = config.instantiate(
        cfg.trainer, callbacks=callbacks, logger=config.instantiate(cfg.logger), plugins=[saver]
    )
    _fit(trainer, job, callbacks)

    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items()) if "/" in name}
    for callback in callbacks:
        if isinstance(callback, Throughput) and callback.images:
            metrics["images_per_second"] = callback.images_per_second
            metrics["waiting_share"] = callback.waiting_share
    metrics["seconds"] = time.perf_counter() - started
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        if not (run_dir / "config.yaml").is_file():
            describe()
        (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        if saver.failure is not None:
            raise UserError(f"trained to the end, but {saver.failure}; what was learnt since the last one is lost")
        run_dirs.write_record(run_dir, finished_steps=OmegaConf.select(cfg, "trainer.max_steps"))
        print_metrics(metrics, title=f"{cfg.method_name}, {trainer.global_step} steps")
        _say_where(run_dir)
    return metrics.get(cfg.optimized_metric)


def _fit(trainer: pl.Trainer, job: Job, callbacks: list[Any]) -> None:
    seconds = _CHILDREN_SECONDS_AFTER_ERROR
    try:
        if not getattr(job.method, "trains", True):
            return _measure(trainer, job)
        trainer.fit(job.method, datamodule=job.data, ckpt_path=job.place.ckpt_path, weights_only=True)
        if any(isinstance(callback, Checkpoints) and callback.validation_due for callback in callbacks):
            # Stopped in its last validation: there is no training step left in which `fit` would catch up on it.
            trainer.validate(job.method, datamodule=job.data, verbose=False, weights_only=True)
        seconds = _CHILDREN_SECONDS
    except SystemExit:  # a graceful stop
        seconds = _CHILDREN_SECONDS
        raise
    except Exception as error:
        ranks.say_rank(error, trainer)
        if is_worker_death(error):
            raise RuntimeError("DataLoader worker exited unexpectedly while it handed over a batch") from error
        raise
    finally:
        failed = ranks.end_children(trainer, seconds)
    if failed:
        raise UserError(f"{failed} of {trainer.world_size} ranks failed; their messages are above")


def _measure(trainer: pl.Trainer, job: Job) -> None:
    """The run of a method that has nothing to train: measured on held-out images, it loads like any other."""
    name = type(job.method).__name__
    print(f"{name} optimises each image by itself and trains nothing; it is measured on held-out images instead.")
    print(
        "To invert your own: python -m stylegan_inv.invert input=... with the same method=..., or with run=<this one>"
    )
    trainer.validate(job.method, datamodule=job.data, verbose=False, weights_only=True)
    if not trainer.fast_dev_run:  # type: ignore[attr-defined]
        trainer.save_checkpoint(job.run_dir / "checkpoints" / "last.ckpt")


def _say_where(run_dir: Path) -> None:
    """The last lines: what lies where."""
    for what, path in {
        "picture": run_dir / "panels" / "last.png",
        "metrics": run_dir / "metrics.json",
        "checkpoint": run_dir / "checkpoints" / "last.ckpt",
    }.items():
        if path.exists():
            print(f"{what + ':':<12}{path}")
    print(f"{'run:':<12}{run_dir}")


main = config.entry_point("train", prepare)(train)

if __name__ == "__main__":
    main()
