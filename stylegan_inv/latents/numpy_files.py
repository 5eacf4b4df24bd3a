"""Reads arrays of numbers from the ``.npy`` and ``.npz`` files of strangers.

NumPy allocates what the header of a file claims, before it looks at what the file holds. Here the claim is compared
with the file first.
"""

from __future__ import annotations

import math
import zipfile
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stylegan_inv.utils.regular_files import file_size, open_regular

#: A million codes of 18 layers would be 37 GB; NVIDIA's projector writes one, of 37 kB, and directions are smaller.
LARGEST_ARRAY = 1 << 28
_HEADERS = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}


def read_npy(path: Path) -> np.ndarray:
    """Returns the array of a ``.npy`` file.

    Raises:
        UserError: The file cannot be opened.
        Exception: Of many types, if the file is damaged, or holds something else than numbers.
    """
    with open_regular(path, "a .npy file") as file:
        return _read(file, file_size(file))


def read_npz(path: Path, name: str) -> np.ndarray:
    """Returns one array of a ``.npz`` file, compressed or not.

    Raises:
        UserError: The file cannot be opened.
        Exception: Of many types, if the file is damaged, has no such array, or one of something else than numbers.
    """
    with open_regular(path, "a .npz file") as file, zipfile.ZipFile(file) as members:
        member = members.getinfo(f"{name}.npy")
        with members.open(member) as stream:
            return _read(stream, member.file_size)  # type: ignore[arg-type]


def _read(file: BinaryIO, size: int) -> np.ndarray:
    """Reads an array from the beginning of a file of ``size`` bytes."""
    if size > LARGEST_ARRAY:
        raise ValueError(f"holds {size:,} bytes, expected at most {LARGEST_ARRAY:,}")
    version = np.lib.format.read_magic(file)
    if version not in _HEADERS:  # version 3 is for structures with names that are not ASCII
        raise ValueError(f"has version {version[0]}.{version[1]} of NumPy's format, expected an array of numbers")
    shape, is_fortran, dtype = _HEADERS[version](file)
    if dtype.hasobject or dtype.kind not in "fiu":
        raise ValueError(f"holds {'objects' if dtype.hasobject else str(dtype)[:40]}, expected numbers")
    length, left = math.prod(shape) * dtype.itemsize, size - file.tell()
    if length != left or min(shape, default=1) < 0:
        raise ValueError(f"claims an array {str(shape)[:60]} of {length:,} bytes, but has {left:,}; copy it again")
    content = file.read(length)
    if len(content) != length:
        raise ValueError(f"has {len(content):,} of the {length:,} bytes of its array; copy it again")
    array = np.frombuffer(content, dtype).reshape(shape, order="F" if is_fortran else "C")
    return array.astype(dtype.newbyteorder("="))  # a copy, which may be written to
