"""Functions that config values name, as ``${ranks:…}``: numbers that depend on the number of processes.

NVlabs/stylegan2-ada-pytorch (d72cc7d, ``train.py``) divides the batch over the GPUs, and its settings ``auto`` depend
on their number and on the resolution; see conf/preset.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from omegaconf import OmegaConf

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, whole_number


def rank_count(devices: int | str | Sequence[int], nodes: int = 1) -> int:
    """Returns the number of processes of a training.

    Args:
        devices: ``trainer.devices``: a number, a list of devices, or ``auto`` or -1 for all GPUs, one without any.
        nodes: ``trainer.num_nodes``.
    """
    if isinstance(devices, int | str):
        is_number = isinstance(devices, int) and devices >= 0
        local = int(devices) if is_number else max(1, torch.cuda.device_count())
    else:
        local = len(devices)
    return local * whole_number("trainer.num_nodes", nodes)


def per_rank(batch: int, ranks: int) -> int:
    """Returns the batch size of each rank.

    Raises:
        UserError: The batch cannot be divided over the ranks.
    """
    if ranks < 1 or batch % ranks:
        raise UserError(
            f"trainer.devices: got {ranks} ranks for a batch of {batch} images; expected a divisor of {batch}, or give "
            "dataset.batch_size=<images of each rank>"
        )
    return batch // ranks


def steps_of(images: int, batch: int, ranks: int) -> int:
    """Returns the number of steps in which ``images`` are seen, with ``batch`` images on each rank."""
    return max(1, -(-images // (batch * ranks)))


def auto_setting(name: str, resolution: int, ranks: int) -> float:
    """Returns a setting of NVIDIA's ``--cfg=auto``.

    Args:
        name: ``batch`` (over all ranks), ``mbstd_group_size``, ``channel_base``, ``lr``, ``r1_gamma``, ``ema_images``.
        resolution: Side of the images in pixels.
        ranks: Number of processes.
    """
    batch = max(min(ranks * min(4096 // resolution, 32), 64), ranks)
    settings: dict[str, Callable[[], float]] = {
        "batch": lambda: batch,
        "mbstd_group_size": lambda: min(batch // ranks, 4),
        "channel_base": lambda: 32768 if resolution >= 512 else 16384,
        "lr": lambda: 0.002 if resolution >= 1024 else 0.0025,
        "r1_gamma": lambda: 0.0002 * resolution**2 / batch,
        "ema_images": lambda: batch * 10_000 // 32,
    }
    return settings[one_of("auto", name, settings)]()


def register_resolvers() -> None:
    """Makes the functions known to OmegaConf."""
    functions: dict[str, Callable[..., float]] = {
        "ranks": rank_count,
        "per_rank": per_rank,
        "steps_of": steps_of,
        "auto": auto_setting,
    }
    for name, function in functions.items():
        OmegaConf.register_new_resolver(name, function, replace=True)
