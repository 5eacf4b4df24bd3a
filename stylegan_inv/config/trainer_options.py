"""Checks of the options of Lightning's Trainer, which would fail during a training, or do nothing."""

from __future__ import annotations

import math
from typing import Any

import torch
from omegaconf import DictConfig, OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import MOST_PROCESSES, one_of, whole_number

_SINGLE, _BFLOAT16, _FLOAT16 = ("32-true", "32"), ("bf16-mixed", "bf16"), ("16-mixed", "16")
_STRATEGIES = ("auto", "ddp")
#: Arguments of the Trainer that `stylegan_inv.train` gives, and what to give instead.
_GIVEN = {
    "callbacks": "+callbacks.<name>={_target_: …}",
    "logger": "logger=csv, wandb or none",
    "plugins": "nothing: checkpoints are written by a plugin of this package",
}
#: Whole numbers, and the smallest allowed one.
_COUNTS = {"max_steps": 1, "val_check_interval": 1, "log_every_n_steps": 0}


def check_trainer_options(trainer: DictConfig) -> None:
    """Checks the options that do not depend on the method and the data.

    Args:
        trainer: The config node.

    Raises:
        UserError: An option that is wrong, or for which this package has another one.
    """
    # The folder is not known yet.
    options = {str(name): _plain(trainer[name]) for name in trainer if name != "default_root_dir"}
    for name, instead in _GIVEN.items():
        if options.get(name) is not None:
            raise UserError(f"trainer.{name}: has no effect here; give {instead}")
    for name, least in _COUNTS.items():
        if name in options:
            hint = "counted in training batches" if name == "val_check_interval" else ""
            whole_number(f"trainer.{name}", options[name], least, hint=hint)
    for name in ("limit_train_batches", "overfit_batches"):
        value = options.get(name)
        if value not in (None, 1.0, 0.0) or isinstance(value, bool):
            whole_number(f"trainer.{name}", value, hint="a fraction of an endless stream of images is not defined")
    one_of("trainer.deterministic", options.get("deterministic"), (None, True, False, "warn"))
    if options.get("barebones"):
        raise UserError("trainer.barebones=true: allows no loggers and no callbacks, so no checkpoints; leave it out")
    if options.get("enable_checkpointing") is False:
        raise UserError("trainer.enable_checkpointing=false: give callbacks.checkpoint=null instead")
    _check_precision(options)
    _check_devices(options)


def check_endless_stream(trainer: DictConfig, images: int, batch_size: int) -> None:
    """Checks the options that count epochs, for data whose training images are an endless stream.

    Args:
        trainer: The config node.
        images: Number of training images.
        batch_size: Number of images in a training batch.

    Raises:
        UserError: An epoch is counted, but never ends.
    """
    limited = any(isinstance(trainer.get(name), int) for name in ("limit_train_batches", "overfit_batches"))
    if (limited and trainer.get("overfit_batches") != 0) or trainer.get("fast_dev_run"):
        return  # epochs of that number of batches
    for name in ("max_epochs", "min_epochs"):
        epochs = trainer.get(name)
        if epochs in (None, -1):
            continue
        whole_number(f"trainer.{name}", epochs)
        steps = math.ceil(epochs * images / batch_size)
        raise UserError(
            f"trainer.{name}={epochs}: the training images are an endless stream, whose epochs do not end; {epochs} "
            f"times {images} images in batches of {batch_size} are trainer.{name.replace('epochs', 'steps')}={steps}"
        )
    if trainer.get("check_val_every_n_epoch") is not None:
        raise UserError(
            f"trainer.check_val_every_n_epoch={trainer.check_val_every_n_epoch}: the training images are an endless "
            "stream, whose epochs do not end; give trainer.val_check_interval=<batches>"
        )


def check_manual_optimization(trainer: DictConfig, method: str, has_options: bool) -> None:
    """Checks the options that Lightning refuses for methods that step their optimisers themselves.

    Args:
        trainer: The config node.
        method: Name of the method.
        has_options: Whether the method has options of its own in their place.

    Raises:
        UserError: Gradient clipping or accumulation by the Trainer.
    """
    clip, batches = trainer.get("gradient_clip_val"), trainer.get("accumulate_grad_batches") or 1
    for name, value, default, own in (
        ("gradient_clip_val", clip, None, "gradient_clip_norm"),
        ("accumulate_grad_batches", batches, 1, "accumulate_batches"),
    ):
        if value != default:
            instead = f"give +method.{own}={value}" if has_options else "leave it out"
            raise UserError(f"trainer.{name}={value}: {method} steps its optimisers itself; {instead}")


def _plain(value: Any) -> Any:
    return OmegaConf.to_container(value, resolve=True) if OmegaConf.is_config(value) else value


def _check_precision(options: dict[str, Any]) -> None:
    precision = options.get("precision")
    if precision is None:
        return
    one_of(
        "trainer.precision",
        str(precision),
        (*_SINGLE, *_BFLOAT16, *_FLOAT16),
        hint="the frozen networks of losses and metrics compute in 32 bits, so the weights do too",
    )
    on_cpu = options.get("accelerator") == "cpu" or not (torch.cuda.is_available() or torch.backends.mps.is_available())
    if str(precision) in _FLOAT16 and on_cpu:
        raise UserError(f"trainer.precision={precision}: float16 needs a GPU; give bf16-mixed or 32-true on a CPU")


def _check_devices(options: dict[str, Any]) -> None:
    accelerator, strategy = options.get("accelerator", "auto"), options.get("strategy", "auto")
    one_of("trainer.accelerator", accelerator, ("auto", "cpu", "gpu", "cuda", "mps"))
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "gpu": torch.cuda.is_available() or torch.backends.mps.is_available(),
    }
    if not available.get(str(accelerator), True):
        raise UserError(f"trainer.accelerator={accelerator}: PyTorch finds none here; give auto or cpu")
    if isinstance(strategy, str):
        one_of("trainer.strategy", strategy, _STRATEGIES, hint="give trainer=ddp for several processes")
    devices, single = options.get("devices", "auto"), strategy == "auto"
    if isinstance(devices, int):
        whole_number("trainer.devices", devices, least=-1, most=MOST_PROCESSES)
    if devices == 0 or isinstance(devices, bool):
        raise UserError(f"trainer.devices={devices}: expected a whole number of at least 1, or auto")
    count = len(devices) if isinstance(devices, list) else devices if isinstance(devices, int) else 1
    if devices in ("auto", "-1", -1) and accelerator != "cpu":
        count = torch.cuda.device_count()
    if single and count > 1:
        raise UserError(f"trainer.devices={devices}: several processes need trainer=ddp")
