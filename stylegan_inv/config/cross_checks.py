"""Checks of config values that are made before any work, including those that depend on several fields."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import hydra
import torch
from omegaconf import DictConfig, OmegaConf

from stylegan_inv.config.trainer_options import check_trainer_options
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.loggers import check_logger_arguments, make_loggers
from stylegan_inv.utils.checks import LARGEST_SEED, whole_number

_POSITIVE = (
    "dataset.batch_size",
    "dataset.val_size",
    "dataset.val_batch_size",
    "dataset.resolution",
    "method.iterations",
)
#: Parts that a training cannot do without.
_REQUIRED = ("dataset", "method", "trainer", "callbacks", "paths")


def check_fields(cfg: DictConfig) -> None:
    """Checks the config of a training.

    Raises:
        UserError: A part that is missing, a seed, size, count or batch size out of range, a resolution that no network
            here takes, ``sync_batchnorm`` with a single process or where PyTorch does not support it, or another
            option of the Trainer that is wrong, see `check_trainer_options`.
    """
    for name in _REQUIRED:
        if not OmegaConf.is_dict(cfg.get(name)):
            raise UserError(f"{name}: left out or no section, but a training needs it; {name}.<key>=null omits a key")
    whole_number("seed", cfg.seed, 0, LARGEST_SEED)
    check_trainer_options(cfg.trainer)
    for key in _POSITIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None:
            whole_number(key, value)
    if OmegaConf.select(cfg, "trainer.sync_batchnorm"):
        _check_sync_batchnorm(cfg.trainer)
    resolution = OmegaConf.select(cfg, "dataset.resolution")
    if resolution is not None and resolution % 16:
        raise UserError(f"dataset.resolution={resolution}: expected a multiple of 16, e.g. 64 or 256")


def check_logger(node: DictConfig | None, run_dir: Path) -> None:
    """Checks the config of the loggers without building them: building connects to a server and writes files.

    Args:
        node: Config with ``_target_``; None for no logger.
        run_dir: Folder of the run.

    Raises:
        UserError: A ``_target_`` that does not exist, an argument that it does not take, or a folder that wandb cannot
            write to.
    """
    if node is None:
        return
    plain: Any = OmegaConf.to_container(node) if OmegaConf.is_dict(node) else {}
    if "_target_" not in plain:
        raise UserError(f"logger={node}: expected csv, wandb or none, or a logger of your own, {{_target_: …}}")
    arguments = {str(key): value for key, value in plain.items() if not str(key).startswith("_")}
    try:
        target = hydra.utils.get_object(plain["_target_"])
        inspect.signature(target).bind(**arguments)
    except (ImportError, ValueError, TypeError) as error:
        raise UserError(f"logger: {plain['_target_']}: {' '.join(str(error).split())}") from error
    if target is make_loggers:
        check_logger_arguments(arguments.get("csv", True), arguments.get("wandb"), run_dir)


def _check_sync_batchnorm(trainer: DictConfig) -> None:
    if OmegaConf.select(trainer, "strategy") is None:
        raise UserError("trainer.sync_batchnorm=true: got a single process; expected trainer=ddp, which has several")
    # PyTorch supports it on CUDA only, and would stop in the first forward pass.
    if trainer.accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        raise UserError(
            f"trainer.sync_batchnorm=true: needs CUDA GPUs, got trainer.accelerator={trainer.accelerator} and "
            f"{torch.cuda.device_count()} of them; leave it out, then each rank normalises by its own images"
        )
