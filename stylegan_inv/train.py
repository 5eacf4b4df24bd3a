"""Trains a method: ``python -m stylegan_inv.train method=restyle``.

Composes the config, builds the objects, fits the method, and writes a run folder with the resolved config, versions,
metrics, panels and checkpoints. The last lines of the output give their paths. The same command with ``resume=auto``
continues a run that was stopped.
"""

from __future__ import annotations

import copy
import functools
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
from hydra.core.hydra_config import HydraConfig
from hydra.types import RunMode
from omegaconf import DictConfig, OmegaConf
from pytorch_lightning.loggers import Logger

from stylegan_inv import config
from stylegan_inv.callbacks.checkpoints import Checkpoints
from stylegan_inv.callbacks.throughput import Throughput
from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.datamodules.loaders import is_worker_death, size_of
from stylegan_inv.errors import UserError
from stylegan_inv.generators.grey import GREY
from stylegan_inv.methods.common.base import InversionMethod
from stylegan_inv.methods.common.domain_parts import domain_parts
from stylegan_inv.methods.common.fit_check import check_fit
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.methods.generator.generator_training import GeneratorTraining
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.runtime import rank_processes
from stylegan_inv.runtime.allocator import leave_new_tensors_unfilled, tune_allocator
from stylegan_inv.runtime.atomic_checkpoints import AtomicCheckpointIO
from stylegan_inv.runtime.library_messages import errors_of_log_files_hidden, silence_library_messages
from stylegan_inv.runtime.metrics_csv import MetricsCSV
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.runtime.run_location import RunLocation, select_location
from stylegan_inv.runtime.training_state import NewRun, checked_checkpoint
from stylegan_inv.trust.config_check import checked_trust
from stylegan_inv.utils.compat import is_fast_dev_run, launched_processes
from stylegan_inv.utils.domains import DOMAINS, check_domains, domain_of
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.parent_process import die_with_parent, known_to_children
from stylegan_inv.utils.text import json_text
from stylegan_inv.visualization.metrics_table import print_metrics

#: Time limits for the other ranks to end; after that they are taken to hang.
_WAIT_SECONDS, _WAIT_SECONDS_AFTER_ERROR = 60.0, 1.0


@dataclass
class Job:
    """What is built and checked before the run folder exists.

    Attributes:
        method: The module to fit.
        data: Its data.
        location: Where the run writes, and what it continues.
    """

    method: pl.LightningModule
    data: pl.LightningDataModule
    location: RunLocation

    @property
    def run_dir(self) -> Path:
        """Folder of the run."""
        return self.location.run_dir


def prepare(cfg: DictConfig) -> Job:
    """Checks the config and builds method and data.

    Raises:
        UserError: Bad input; nothing has been written.
    """
    config.check_fields(cfg)
    pl.seed_everything(cfg.seed, workers=True, verbose=False)
    location = select_location(cfg, *_wanted_folder(cfg))
    config.check_logger(cfg.get("logger"), location.run_dir)
    data = config.instantiate(cfg.dataset)
    if not isinstance(data, pl.LightningDataModule):
        raise UserError(f"dataset: got a {type(data).__name__}, expected a LightningDataModule")
    data.setup("fit")  # raises for missing folders, empty folders and splits that are too small
    method = config.instantiate_method(cfg.method, checked_trust(cfg.trust))
    if not isinstance(method, pl.LightningModule):
        raise UserError(f"method: got a {type(method).__name__}, expected a LightningModule")
    name = f"dataset={choice}" if (choice := config.chosen_option("dataset")) else type(data).__name__
    if isinstance(data, ImageDataModule) and data.domain is None and not cfg.any_domain:
        raise UserError(
            f"{name}: has no domain; give +dataset.domain=<one of {', '.join(DOMAINS)}>, or any_domain=true"
        )
    check_domains(f"the data ({name}) are", domain_of(data), domain_parts(method), cfg.any_domain)
    if isinstance(method, GeneratorTraining):
        _check_resolution(method, cfg)
    if isinstance(method, StyleGAN2Training) and isinstance(data, ImageDataModule):
        method.check_batch_size(data.batch_size)
    if isinstance(data, ImageDataModule):
        _use_classes_and_channels(cfg, method, data)
    if isinstance(method, InversionMethod) and isinstance(data, ImageDataModule):
        check_fit(method, data.panel_batch(1), data.entries("train"))
    configured = _check_fit_options(cfg, method, data)
    trainer = _check_parts(cfg, location.run_dir)
    if location.ckpt_path is not None:
        location.ckpt_path = checked_checkpoint(location, NewRun(method, data, trainer, configured))
    location.create()
    return Job(method, data, location)


def _check_fit_options(cfg: DictConfig, method: pl.LightningModule, data: pl.LightningDataModule) -> Any:
    """Checks the options of optimiser, scheduler and Trainer with the method and the data.

    Returns:
        The result of ``method.configure_optimizers()``, which is thrown away; None for a method without training.

    Raises:
        UserError: An option that would fail when the training begins, or that does nothing.
    """
    if isinstance(data, ImageDataModule):
        config.check_endless_stream(cfg.trainer, size_of(data.get("train")), data.batch_size)
    if isinstance(method, InversionMethod) and not isinstance(method, TrainedMethod):
        return None
    if not method.automatic_optimization:
        has_options = isinstance(method, TrainedMethod)
        config.check_manual_optimization(cfg.trainer, type(method).__name__, has_options)
    try:
        return method.configure_optimizers()  # Lightning calls it again
    except (TypeError, ValueError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"optimizer or scheduler: {' '.join(str(error).split())}") from error


def _check_parts(cfg: DictConfig, run_dir: Path) -> pl.Trainer:
    """Builds callbacks and Trainer once, to be thrown away: the run builds its own, in its folder.

    Raises:
        UserError: One of them cannot be built.
    """
    silence_library_messages()
    cfg = copy.deepcopy(cfg)
    OmegaConf.update(cfg, "paths.run_dir", str(run_dir))
    return _build_trainer(cfg, _build_callbacks(cfg), [MetricsCSV(run_dir)], AtomicCheckpointIO())


def _build_callbacks(cfg: DictConfig) -> list[pl.Callback]:
    callbacks = []
    for name, node in cfg.callbacks.items():
        if node is None:
            continue
        built = config.instantiate_part(f"callbacks.{name}", node) if OmegaConf.is_dict(node) else node
        if not isinstance(built, pl.Callback):
            raise UserError(f"callbacks.{name}={built}: expected a callback, {{_target_: …}}, or null")
        callbacks.append(built)
    return callbacks


def _build_trainer(
    cfg: DictConfig, callbacks: list[pl.Callback], loggers: list[Logger], saver: AtomicCheckpointIO
) -> pl.Trainer:
    trainer: pl.Trainer = config.instantiate_part(
        "trainer", cfg.trainer, callbacks=callbacks, logger=loggers, plugins=[saver]
    )
    return trainer


def _check_resolution(method: GeneratorTraining, cfg: DictConfig) -> None:
    size, wanted = cfg.dataset.get("resolution"), method.generator.resolution
    if size not in (None, wanted):
        other = f" or generator.resolution={size}" if "resolution" in cfg.generator else ""
        raise UserError(
            f"dataset.resolution={size}: the generator that is trained has {wanted} px; give "
            f"dataset.resolution={wanted}{other}"
        )


def _use_classes_and_channels(cfg: DictConfig, method: pl.LightningModule, data: ImageDataModule) -> None:
    """Gives the images the channels and the classes that the generator of the method needs.

    Raises:
        UserError: No such class, or images without the classes that are needed.
    """
    if isinstance(method, GeneratorTraining):
        if cfg["class"] is not None:
            raise UserError(
                f"class={cfg['class']}: a generator is trained with the classes of all images; leave class out"
            )
        data.grey = method.generator.img_channels == GREY
        if method.generator.c_dim and method.learns_classes:
            data.use_classes(method.generator.c_dim, trains_generator=True)
    elif isinstance(method, InversionMethod):
        if cfg["class"] is not None:
            method.set_class(cfg["class"])
        data.grey = method.generator.grey
        if method.generator.class_per_image:
            data.use_classes(method.generator.c_dim)


def _wanted_folder(cfg: DictConfig) -> tuple[Path, bool]:
    """Returns Hydra's folder for this run, and whether the user named it (otherwise it is named after the time).

    Raises:
        UserError: The files of the run would be in another folder, which has not been checked.
    """
    if not HydraConfig.initialized():
        return Path(cfg.paths.run_dir), True
    hydra_cfg = HydraConfig.get()
    if Path(str(cfg.paths.run_dir)).absolute() != Path(str(hydra_cfg.runtime.output_dir)).absolute():
        raise UserError(f"paths.run_dir={cfg.paths.run_dir}: is set by Hydra; give hydra.run.dir=<folder>")
    if hydra_cfg.mode == RunMode.MULTIRUN:
        return Path(hydra_cfg.runtime.output_dir), True
    return Path(str(hydra_cfg.run.dir)), any(o.startswith("hydra.run.dir=") for o in hydra_cfg.overrides.hydra)


def train(cfg: DictConfig, job: Job) -> float | None:
    """Fits the method and returns the value that sweeps optimise."""
    started = time.perf_counter()
    run = RunFolder(Path(cfg.paths.run_dir))
    if job.location.finished:
        print(f"{run.path}: finished before; nothing to do (give another hydra.run.dir, or more trainer.max_steps)")
        return run.metrics().get(cfg.optimized_metric)
    die_with_parent()
    silence_library_messages()
    leave_new_tensors_unfilled()
    if cfg.tune_allocator:
        tune_allocator()
    write_origin = functools.partial(run.write_origin, config.plain(cfg), job.location.command)
    write_origin()
    callbacks = _build_callbacks(cfg)
    saver = AtomicCheckpointIO(recreate=write_origin)
    trainer = _build_trainer(cfg, callbacks, config.instantiate(cfg.get("logger")) or [], saver)
    with known_to_children(), errors_of_log_files_hidden():
        _fit(trainer, job, callbacks)

    metrics = {**_final_metrics(trainer, callbacks), "seconds": time.perf_counter() - started}
    if trainer.is_global_zero and not is_fast_dev_run(trainer):
        problem = _try_to_write(run, write_origin, metrics, _state_at_end(cfg, job.method, saver))
        if saver.failure is not None:
            raise UserError(f"trained to the end, but {saver.failure}; the progress since the last checkpoint is lost")
        if problem is not None:
            raise UserError(f"trained to the end, but {problem}; the last checkpoint has all steps")
        print_metrics(metrics, title=f"{cfg.method_name}, {trainer.global_step} steps")
        _report_files(run)
    return metrics.get(cfg.optimized_metric)


def _state_at_end(cfg: DictConfig, method: pl.LightningModule, saver: AtomicCheckpointIO) -> dict[str, Any]:
    """Returns what a later command needs to know about the run; empty if the last checkpoint was not written."""
    if saver.failure is not None:
        return {}
    found = {"finished_steps": OmegaConf.select(cfg, "trainer.max_steps")}
    if isinstance(method, InversionMethod) and method.reached is not None:
        found["distances"] = method.reached.to_plain()
    return found


def _try_to_write(
    run: RunFolder, write_origin: Callable[[], None], metrics: dict[str, float], state: dict[str, Any]
) -> str | None:
    """Writes the metrics, and the state into ``run.json``; returns the reason if that is not possible."""
    try:
        if not run.config_file.is_file():
            write_origin()
        with atomic_write(run.metrics_file) as temporary:
            temporary.write_text(json_text(metrics), encoding="utf-8")
        if state:
            run.update_record(**state)
    except OSError as error:
        return f"{error.filename or run.path}: cannot be written ({error.strerror or error})"
    return None


def _fit(trainer: pl.Trainer, job: Job, callbacks: list[Any]) -> None:
    seconds = _WAIT_SECONDS_AFTER_ERROR
    try:
        if isinstance(job.method, InversionMethod) and not isinstance(job.method, TrainedMethod):
            return _validate_only(trainer, job)
        trainer.fit(job.method, datamodule=job.data, ckpt_path=job.location.ckpt_path, weights_only=True)
        if any(isinstance(callback, Checkpoints) and callback.validation_due for callback in callbacks):
            # The run was stopped in its last validation, and `fit` does not validate without a training step.
            trainer.validate(job.method, datamodule=job.data, verbose=False, weights_only=True)
        seconds = _WAIT_SECONDS
    except SystemExit:  # a graceful stop
        seconds = _WAIT_SECONDS
        raise
    except Exception as error:
        rank_processes.report_rank(error, trainer)
        if is_worker_death(error):
            raise RuntimeError("DataLoader worker exited unexpectedly while it handed over a batch") from error
        raise
    finally:
        failed = rank_processes.end_processes(launched_processes(trainer), seconds)
    if failed:
        raise UserError(f"{failed} of {trainer.world_size} ranks failed; their messages are above")


def _final_metrics(trainer: pl.Trainer, callbacks: list[Any]) -> dict[str, float]:
    """Returns the last value of each metric, and the throughput."""
    metrics = {name: float(value) for name, value in sorted(trainer.callback_metrics.items()) if "/" in name}
    for callback in callbacks:
        if isinstance(callback, Throughput) and callback.images:
            metrics["images_per_second"] = callback.images_per_second
            metrics["waiting_share"] = callback.waiting_share
    return metrics


def _validate_only(trainer: pl.Trainer, job: Job) -> None:
    """Validates a method that has nothing to train, and saves a checkpoint, so that it loads like any other run."""
    name = type(job.method).__name__
    print(f"{name} optimises each image by itself and trains nothing; it is validated on held-out images instead.")
    print(
        "To invert your own images: python -m stylegan_inv.invert input=... with the same method=..., or with "
        "run=<this run>"
    )
    trainer.validate(job.method, datamodule=job.data, verbose=False, weights_only=True)
    if not math.isfinite(float(trainer.callback_metrics.get("val/mse", 0.0))):
        raise UserError(f"{name}: the reconstructions are not finite; give a smaller learning rate or smaller weights")
    if not is_fast_dev_run(trainer):
        trainer.save_checkpoint(RunFolder(job.run_dir).last_checkpoint)


def _report_files(run: RunFolder) -> None:
    """Prints where the results are."""
    for what, path in {
        "panel": run.path / "panels" / "last.png",
        "metrics": run.metrics_file,
        "checkpoint": run.last_checkpoint,
    }.items():
        if path.exists():
            print(f"{what + ':':<12}{path}")
    print(f"{'run:':<12}{run.path}")


main = config.entry_point("train", prepare)(train)

if __name__ == "__main__":
    main()
