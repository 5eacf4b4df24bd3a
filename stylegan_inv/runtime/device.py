"""Selects the device of a command."""

from __future__ import annotations

import torch

from stylegan_inv.errors import UserError


def device_named(name: str, local_rank: int = 0) -> torch.device:
    """Returns the device of a name.

    Args:
        name: ``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:<number>``.
        local_rank: Number of this process on its machine; each process gets its own GPU unless one is named.

    Raises:
        UserError: Another name, or a GPU that does not exist.
    """
    if name == "auto":
        name = "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and torch.cuda.device_count() > 1:
        name = f"cuda:{local_rank % torch.cuda.device_count()}"
    device: torch.device | None
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise UserError(f"device={name}: expected auto, cpu, cuda or cuda:<number>")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: got {torch.cuda.device_count()} CUDA devices here; give device=cpu or auto")
    return device
