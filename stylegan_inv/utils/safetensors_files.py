"""Reads safetensors files whole, with one error for whatever is wrong with them."""

from __future__ import annotations

from pathlib import Path

from safetensors import SafetensorError, safe_open
from torch import Tensor

from stylegan_inv.errors import UserError


def read_safetensors(path: str | Path, expected: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Returns the metadata and the tensors of a file.

    Args:
        path: The file.
        expected: What it should hold, for the error.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with safe_open(path, framework="pt") as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); expected {expected}") from None
