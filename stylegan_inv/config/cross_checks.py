"""Checks of config values that are made before any work, including those that depend on several fields."""

from __future__ import annotations

import torch
from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number

_POSITIVE = (
    "dataset.batch_size",
    "dataset.val_size",
    "dataset.val_batch_size",
    "dataset.resolution",
    "trainer.max_steps",
    "method.iterations",
)


def check_fields(cfg: DictConfig) -> None:
    """Checks the config of a training.

    Raises:
        UserError: A size, count or batch size that is not positive, a resolution that no network here takes, or
            ``sync_batchnorm`` with a single process or where PyTorch does not support it.
    """
    for key in _POSITIVE:
        value = OmegaConf.select(cfg, key)
        if value is not None:
            whole_number(key, value)
    if OmegaConf.select(cfg, "trainer.sync_batchnorm"):
        _check_sync_batchnorm(cfg.trainer)
    resolution = OmegaConf.select(cfg, "dataset.resolution")
    if resolution is not None and resolution % 16:
        raise UserError(f"dataset.resolution={resolution}: expected a multiple of 16, e.g. 64 or 256")


def _check_sync_batchnorm(trainer: DictConfig) -> None:
    if OmegaConf.select(trainer, "strategy") is None:
        raise UserError("trainer.sync_batchnorm=true: got a single process; expected trainer=ddp, which has several")
    # PyTorch supports it on CUDA only, and would stop in the first forward pass.
    if trainer.accelerator not in ("auto", "gpu", "cuda") or not torch.cuda.is_available():
        raise UserError(
            f"trainer.sync_batchnorm=true: needs CUDA GPUs, got trainer.accelerator={trainer.accelerator} and "
            f"{torch.cuda.device_count()} of them; leave it out, then each rank normalises by its own images"
        )
