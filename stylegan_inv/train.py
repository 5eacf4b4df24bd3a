"""Train a method: ``python -m stylegan_inv.train method=restyle``.

Composes the config, builds the objects, fits, and leaves a run folder with the resolved config, versions, metrics,
panels and checkpoints. The last lines say where everything is.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass
from pathlib import Path

import pytorch_lightning as pl
from omegaconf import DictConfig

from stylegan_inv import config
from stylegan_inv.callbacks.throughput import Throughput
from stylegan_inv.runtime import run_folder
from stylegan_inv.runtime.allocator import tune_allocator
from stylegan_inv.runtime.quiet import quiet_libraries
from stylegan_inv.runtime.report import print_metrics


@dataclass
class Job:
    """Everything that is built and checked before the run folder exists."""

    method: pl.LightningModule
    data: pl.LightningDataModule
    ckpt_path: str | None


def prepare(cfg: DictConfig) -> Job:
    """Check the config and build method and data; raises UserError before anything is written."""
    config.check_geometry(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    ckpt_path = run_folder.checkpoint_to_resume(cfg)
    data = config.instantiate(cfg.dataset)
    data.setup("fit")  # finds missing folders, empty folders and splits that are too small
    return Job(config.instantiate(cfg.method), data, ckpt_path)


@config.entry_point("train", prepare)
def main(cfg: DictConfig, job: Job) -> float | None:
    """Fit the method; returns the value that sweeps optimise."""
    started = time.perf_counter()
    quiet_libraries()
    if cfg.tune_allocator:
        tune_allocator()
    run_dir = Path(cfg.paths.run_dir)
    run_folder.describe(run_dir, config.plain(cfg))
    callbacks = [config.instantiate(node) for node in cfg.callbacks.values() if node]
    trainer: pl.Trainer = config.instantiate(cfg.trainer, callbacks=callbacks, logger=config.instantiate(cfg.logger))
    trainer.fit(job.method, datamodule=job.data, ckpt_path=job.ckpt_path, weights_only=True)

    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items()) if "/" in name}
    for callback in callbacks:
        if isinstance(callback, Throughput):
            metrics["images_per_second"] = callback.images_per_second
    metrics["seconds"] = time.perf_counter() - started
    if trainer.is_global_zero and not trainer.fast_dev_run:  # type: ignore[attr-defined]
        (run_dir / "metrics.json").write_text(json.dumps(metrics, indent=2) + "\n")
        print_metrics(metrics, title=f"{cfg.method_name}, {trainer.global_step} steps")
        _say_where(run_dir)
    return metrics.get(cfg.optimized_metric)


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


if __name__ == "__main__":
    main()
