"""The device that a command shall use."""

from __future__ import annotations

import torch

from stylegan_inv.errors import UserError


def device_named(name: str) -> torch.device:
    """``auto`` (a GPU if there is one), ``cpu``, ``cuda`` or ``cuda:1`` as a device.

    Raises:
        UserError: another word, or a GPU that is not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError):
        raise UserError(f"device={name}: expected auto, cpu, cuda or cuda:<number>") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise UserError(f"device={name}: got {torch.cuda.device_count()} CUDA devices here; give device=cpu or auto")
    return device
