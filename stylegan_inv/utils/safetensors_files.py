"""Reads and writes safetensors files: tensors by name, and dataclasses of tensors.

The structure of a dataclass is kept as JSON in the metadata.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar, get_args, get_origin, get_type_hints

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.regular_files import open_regular
from stylegan_inv.utils.text import readable

T = TypeVar("T")


@contextlib.contextmanager
def open_safetensors(path: str | Path, device: str = "cpu") -> Iterator[Any]:
    """Opens a file as ``safetensors.safe_open`` does, which takes no path that is not UTF-8.

    Args:
        path: The file.
        device: Device of its tensors.

    Yields:
        The open file.

    Raises:
        UserError: There is no such file, or it is no regular one.
    """
    name = str(path)
    with open_regular(path, "a safetensors file") as opened:
        if readable(name) != name:
            name = f"/proc/self/fd/{opened.fileno()}"
        with safe_open(name, framework="pt", device=device) as file:
            yield file


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


def save_dataclass(value: object, path: Path, key: str) -> None:
    """Writes a dataclass to a file, atomically.

    Args:
        value: Dataclass of tensors, numbers, strings, None, dataclasses, and lists and dicts of these.
        path: File; its folder is created.
        key: Identifies what the file belongs to.
    """
    tensors: list[Tensor] = []
    structure = _encode(value, tensors)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        named = {str(number): tensor.detach().contiguous() for number, tensor in enumerate(tensors)}
        save_file(named, temporary, {"key": key, "structure": json.dumps(structure)})


def load_dataclass(kind: type[T], path: Path, key: str, device: torch.device) -> T | None:
    """Returns the dataclass in a file.

    Args:
        kind: The dataclass.
        path: File that `save_dataclass` wrote.
        key: Key that the file was written with.
        device: Device of the tensors.

    Returns:
        None if there is no such file, or if its key is another.

    Raises:
        UserError: The file is damaged, or was written by another version.
    """
    if not path.is_file():
        return None
    try:
        with open_safetensors(path, str(device)) as file:
            metadata = file.metadata() or {}
            if metadata.get("key") != key:
                return None
            # Clones own their memory: in the last bit, results depend on its alignment.
            tensors = {name: file.get_tensor(name).clone() for name in file.keys()}  # noqa: SIM118 (not a dict)
            structure = json.loads(metadata["structure"])
        decoded: T = _decode(kind, structure, tensors)
        return decoded
    except (SafetensorError, OSError, KeyError, TypeError, ValueError) as error:
        raise UserError(f"{path}: cannot be continued ({error!r}); remove the file to start again") from error


def _encode(value: Any, tensors: list[Tensor]) -> Any:
    if isinstance(value, Tensor):
        tensors.append(value)
        return {"tensor": len(tensors) - 1}
    if dataclasses.is_dataclass(value):
        return {item.name: _encode(getattr(value, item.name), tensors) for item in dataclasses.fields(value)}
    if isinstance(value, dict):
        return {name: _encode(one, tensors) for name, one in value.items()}
    if isinstance(value, list):
        return [_encode(one, tensors) for one in value]
    return value


def _decode(kind: Any, value: Any, tensors: dict[str, Tensor]) -> Any:
    """Rebuilds a value whose type is ``kind``."""
    if value is None:
        return None
    arguments = get_args(kind)
    if Tensor in (kind, *arguments) and get_origin(kind) not in (dict, list):
        return tensors[str(value["tensor"])]
    if dataclasses.is_dataclass(kind):
        hints = get_type_hints(kind)
        return kind(**{name: _decode(hints[name], one, tensors) for name, one in value.items()})  # type: ignore[operator]
    if get_origin(kind) is dict:
        return {name: _decode(arguments[1], one, tensors) for name, one in value.items()}
    if get_origin(kind) is list:
        return [_decode(arguments[0], one, tensors) for one in value]
    return value
