"""Reads safetensors files whole, with one error for whatever is wrong with them, and writes them."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.text import readable


@contextlib.contextmanager
def open_safetensors(path: str | Path, device: str = "cpu") -> Iterator[Any]:
    """Opens a file as ``safetensors.safe_open`` does, which takes no path that is not UTF-8.

    Args:
        path: The file.
        device: Device of its tensors.

    Yields:
        The open file.
    """
    name, handle = str(path), None
    if readable(name) != name:
        handle = os.open(path, os.O_RDONLY)
        name = f"/proc/self/fd/{handle}"
    try:
        with safe_open(name, framework="pt", device=device) as file:
            yield file
    finally:
        if handle is not None:
            os.close(handle)


def read_safetensors(path: str | Path, expected: str) -> tuple[dict[str, str], dict[str, Tensor]]:
    """Returns the metadata and the tensors of a file.

    Args:
        path: The file.
        expected: What it should hold, for the error.

    Raises:
        UserError: The file cannot be read.
    """
    try:
        with open_safetensors(path) as file:
            return file.metadata() or {}, {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a readable safetensors file ({error}); expected {expected}") from None


def write_safetensors(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> None:
    """Writes a file atomically, and creates its folder.

    Args:
        path: The file.
        tensors: Name -> contiguous tensor.
        metadata: Texts; bytes of file names that are not UTF-8 are replaced, see `readable`.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        save_file(dict(tensors), temporary, {key: readable(value) for key, value in metadata.items()})
