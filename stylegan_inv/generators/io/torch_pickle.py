"""Reads PyTorch's files, in both formats, and pickles of objects, without executing their content."""

from __future__ import annotations

import functools
import io
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any, BinaryIO, TypeAlias

import torch
from torch import Tensor

from stylegan_inv.generators.io.pickle_machine import BoundedStream, Record, RefusedCode, RefusedPickle, load
from stylegan_inv.generators.io.pickle_objects import STORAGE_TYPES, Names, Storage, storage_id, torch_names
from stylegan_inv.utils.plain_data import MOST_LEVELS
from stylegan_inv.utils.regular_files import file_size, open_regular

#: Files in an archive, by name.
Entries: TypeAlias = dict[str, zipfile.ZipInfo]
#: The optimisers of the largest encoders have 10,000 values.
MOST_CONTENT = 1_000_000
_LEGACY_NUMBER = 0x1950A86A20F9469CFC6C
_LEGACY_PROTOCOL = 1001
_SAVE_AGAIN = "read it with torch.load(..., weights_only=True) on this machine and save the result with torch.save"
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

        def values(entries: Entries, root: str, key: str, dtype: torch.dtype, count: int) -> Tensor:
            info = entries[f"{root}data/{key}"]
            if info.file_size != count * dtype.itemsize:
                raise EOFError("a storage whose length differs from the pickle")
            with archive.open(info) as stream:
                return _read_values(stream, dtype, count)

        return _read_archive(archive, file_size(file), values)


def load_checked(path: Path) -> Any:
    """Returns what ``torch.load(weights_only=True)`` returns, which itself believes all sizes in a file.

    A file that passes the check has no more tensors than it has bytes, and neither code, compressed entries, endless
    nesting nor lists that expand.

    Raises:
        RefusedPickle: The file has more than data.
        Exception: Of many types, if the file is damaged.
    """
    with open_regular(path, "a file of weights") as file:
        head = file.read(len(LEGACY_START))
        file.seek(0)
        if head == LEGACY_START:
            check_size(read_legacy(file, file_size(file)))
        else:
            _check_zip(file)
    return torch.load(path, map_location="cpu", weights_only=True)


def _check_zip(file: BinaryIO) -> None:
    """Checks a file as `read_zip` does, without reading the numbers of its tensors."""

    def values(entries: Entries, root: str, key: str, dtype: torch.dtype, count: int) -> Tensor:
        if entries[f"{root}data/{key}"].file_size != count * dtype.itemsize:
            raise EOFError("a storage whose length differs from the pickle")
        return torch.empty(count, dtype=dtype, device="meta")

    with zipfile.ZipFile(file) as archive:
        check_size(_read_archive(archive, file_size(file), values))


def check_size(content: Any, most_values: int = MOST_CONTENT, most_levels: int = MOST_LEVELS) -> None:
    """Counts the values in nested containers, as often as they occur.

    Raises:
        RefusedPickle: There are too many, or too many levels of them.
    """
    level, values = 0, [content]
    count = 1
    while values:
        inner: list[Any] = []
        for value in values:
            if isinstance(value, Record):
                value = value.state
            parts = (*value.keys(), *value.values()) if isinstance(value, dict) else value
            if isinstance(parts, (tuple, list, set, frozenset)):
                count += len(parts)
                if count > most_values:
                    raise RefusedPickle(f"has more than {most_values:,} values")
                inner.extend(parts)
        level, values = level + 1, inner
        if level > most_levels and values:
            raise RefusedPickle(f"is nested more than {most_levels} levels deep")


def _read_archive(
    archive: zipfile.ZipFile, size: int, values: Callable[[Entries, str, str, torch.dtype, int], Tensor]
) -> Any:
    entries = {info.filename: info for info in archive.infolist()}
    # PyTorch's reader ignores case and would take another one of two entries than this one.
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
    storages = _Storages(size, functools.partial(values, entries, root))
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
