"""Reads PyTorch's files, in both formats, and pickles of objects, without executing their content."""

from __future__ import annotations

import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from types import NoneType
from typing import Any, BinaryIO

import torch
from torch import Tensor

from stylegan_inv.generators.io.pickle_machine import BoundedStream, RefusedCode, RefusedPickle, load
from stylegan_inv.generators.io.pickle_objects import STORAGE_TYPES, Names, Storage, storage_id, torch_names
from stylegan_inv.utils.plain_data import MOST_LEVELS
from stylegan_inv.utils.regular_files import file_size, open_regular

#: The optimisers of the largest encoders have 10,000 values.
MOST_CONTENT = 1_000_000
_LEGACY_NUMBER = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_SAVE_AGAIN = "read it with torch.load(..., weights_only=True) on this machine and save the result with torch.save"
_PLAIN = (Tensor, str, bytes, bytearray, int, float, dict, list, tuple, set, frozenset, NoneType)
#: First bytes of a file in the format before PyTorch 1.6: the number above as a pickle.
LEGACY_START = b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19."


def _read_values(stream: Any, dtype: torch.dtype, count: int) -> Tensor:
    raw = torch.empty(count * dtype.itemsize, dtype=torch.uint8)
    rest = raw.numpy().data
    while rest:
        got = stream.readinto(rest)
        if not got:
            raise EOFError("a storage is truncated")
        rest = rest[got:]
    return raw.view(dtype) if count else torch.empty(0, dtype=dtype)


class _Storages:
    """Maps persistent ids to storages, which together cannot be larger than the file."""

    def __init__(self, size: int, values: Callable[[str, torch.dtype, int], Tensor]) -> None:
        self.found: dict[str, Storage] = {}
        self._left, self._values = size, values

    def __call__(self, pid: Any) -> Storage:
        dtype, key, count = storage_id(pid)
        if key not in self.found:
            self._left -= count * dtype.itemsize
            if self._left < 0:
                raise EOFError("storages that are larger than the file")
            self.found[key] = Storage(self._values(key, dtype, count))
        storage = self.found[key]
        if storage.values.dtype != dtype or storage.values.numel() != count:
            raise ValueError("a storage with two types or lengths")
        return storage


def read_zip(path: Path) -> Any:
    """Reads a file in the format of `torch.save` since PyTorch 1.6."""
    with open_regular(path, "a file of weights") as file, zipfile.ZipFile(file) as archive:
        return _read_archive(archive, file_size(file))


def load_checked(path: Path) -> Any:
    """Returns the content of a file of `torch.save`, as ``torch.load(weights_only=True)`` does, within bounds.

    The content has no more tensors than the file has bytes, and neither code, compressed entries, endless nesting nor
    lists that expand. Reading the file a second time by `torch.load` would not be safe: zip archives can be made so
    that two readers find different entries in them.

    Raises:
        RefusedPickle: The file has more than data.
        Exception: Of many types, if the file is damaged.
    """
    with open_regular(path, "a file of weights") as file:
        is_legacy = file.read(len(LEGACY_START)) == LEGACY_START
        file.seek(0)
        content = read_legacy(file, file_size(file)) if is_legacy else read_zip(path)
    check_content(content)
    return content


def check_content(content: Any, most_values: int = MOST_CONTENT, most_levels: int = MOST_LEVELS) -> None:
    """Checks that nested containers hold plain values and tensors, and counts them as often as they occur.

    Raises:
        RefusedPickle: There are other objects, too many values, or too many levels of them.
    """
    level, values = 0, [content]
    count = 1
    while values:
        inner: list[Any] = []
        for value in values:
            if not isinstance(value, _PLAIN):
                raise RefusedPickle(f"holds a {type(value).__name__}, expected tensors, texts, numbers and containers")
            parts = (*value.keys(), *value.values()) if isinstance(value, dict) else value
            if isinstance(parts, (tuple, list, set, frozenset)):
                count += len(parts)
                if count > most_values:
                    raise RefusedPickle(f"has more than {most_values:,} values")
                inner.extend(parts)
        level, values = level + 1, inner
        if level > most_levels and values:
            raise RefusedPickle(f"is nested more than {most_levels} levels deep")


def _read_archive(archive: zipfile.ZipFile, size: int) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    # PyTorch's reader ignores case.
    if len({name.lower() for name in entries}) != len(archive.infolist()):
        raise RefusedPickle("has two entries of one name")
    pickles = [name for name in entries if name.endswith("/data.pkl")]
    if len(pickles) != 1:
        raise RefusedPickle("is a zip archive, but was not written by torch.save; give a file of weights")
    root = pickles[0].removesuffix("data.pkl")
    if any(name.startswith(f"{root}code/") for name in entries):
        raise RefusedCode("is a TorchScript program")
    if any(info.compress_type != zipfile.ZIP_STORED for info in entries.values()):
        raise RefusedPickle(f"is a compressed archive, which torch.save does not write; {_SAVE_AGAIN}")
    if sum(info.file_size for info in archive.infolist()) > size:
        raise EOFError("entries that are larger than the file")
    if f"{root}byteorder" in entries and archive.read(f"{root}byteorder").strip() != b"little":
        raise RefusedPickle(f"comes from a big-endian machine; {_SAVE_AGAIN}")

    with archive.open(entries[pickles[0]]) as stream:
        pickle = io.BytesIO(stream.read())

    def values(key: str, dtype: torch.dtype, count: int) -> Tensor:
        info = entries[f"{root}data/{key}"]
        if info.file_size != count * dtype.itemsize:
            raise EOFError("a storage whose length differs from the pickle")
        with archive.open(info) as numbers:
            return _read_values(numbers, dtype, count)

    storages = _Storages(size, values)
    return load(BoundedStream(pickle, len(pickle.getbuffer())), torch_names(size), storages)


def _read_legacy(stream: BoundedStream, names: Names) -> Any:
    if load(stream, {}) != _LEGACY_NUMBER or load(stream, {}) != _LEGACY_PROTOCOL:
        raise ValueError("not PyTorch's older format")
    system = load(stream, {})
    if not isinstance(system, dict) or system.get("little_endian") is not True:
        raise RefusedPickle(f"comes from a big-endian machine; {_SAVE_AGAIN}")
    # The numbers follow the pickle, so the storages are zero until then.
    storages = _Storages(stream.left, lambda _, dtype, count: torch.zeros(count, dtype=dtype))
    content = load(stream, names, storages)
    keys = load(stream, {})
    if not isinstance(keys, list) or sorted(keys) != sorted(storages.found):
        raise ValueError("storages that differ from those of the tensors")
    for key in keys:
        values = storages.found[key].values
        (count,) = struct.unpack("<q", stream.read(8))
        if count != values.numel():
            raise ValueError("a storage whose length differs from the pickle")
        values.copy_(_read_values(stream, values.dtype, count))
    return content


def read_legacy(file: BinaryIO, size: int) -> Any:
    """Reads a file in the format of `torch.save` before PyTorch 1.6 (``_use_new_zipfile_serialization=False``)."""
    return _read_legacy(BoundedStream(file, size), torch_names(size))


def read_objects(file: BinaryIO, size: int) -> Any:
    """Reads a plain pickle of objects, such as NVIDIA's networks.

    Its storages are files of PyTorch's older format inside the pickle. PyTorch's function for them,
    `torch.storage._load_from_bytes`, unpickles without restrictions. Here the inner file may contain only a storage.
    """
    left = size

    def storage_from_bytes(data: Any) -> Storage:
        nonlocal left
        if not isinstance(data, bytes):
            raise RefusedPickle("has a storage that is not bytes")
        left -= len(data)
        if left < 0:
            raise EOFError("storages that are larger than the file")
        content = _read_legacy(BoundedStream(io.BytesIO(data), len(data)), dict.fromkeys(STORAGE_TYPES))
        if not isinstance(content, Storage):
            raise RefusedPickle("has bytes of a storage that contain something else")
        return content

    names = {**torch_names(size), "torch.storage._load_from_bytes": storage_from_bytes}
    return load(BoundedStream(file, size), names)
