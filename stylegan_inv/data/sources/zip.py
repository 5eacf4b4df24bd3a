"""Zips of images, as NVIDIA's dataset tool writes them: stored files, and ``dataset.json`` with the classes."""

from __future__ import annotations

import functools
import stat
import struct
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import BinaryIO

import numpy as np

from stylegan_inv.data.images.decoding import MAX_BYTES, BadImage
from stylegan_inv.data.images.image_files import is_image, is_other_image, natural_key
from stylegan_inv.data.sources.archive_files import PerProcess
from stylegan_inv.data.sources.class_labels import CLASSES, MAX_CLASSES_BYTES, parse_classes
from stylegan_inv.data.sources.source import CompactStrings, Source, check_names
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import file_size, open_regular

#: Local file header; its last two fields are the lengths of the name and of the extra field.
_LOCAL_HEADER = struct.Struct("<4s5H3L2H")
#: Largest accepted compression ratio. Deflate reaches 1032:1 on zeros; encoded images hardly shrink.
_MAX_RATIO = 100
#: Larger than any file.
_MOST_BYTES = 1 << 60
#: What reading a damaged entry raises.
_DAMAGES = (OSError, OverflowError, MemoryError, struct.error, zlib.error)
#: Size up to which any compression ratio is accepted.
_SMALL_FILE = 1 << 20


class ZipSource(Source):
    """Images in a zip, stored or deflated. They are read by their offsets; nothing is unpacked to disk.

    Args:
        path: The zip file.

    Raises:
        UserError: The zip is damaged or encrypted, or has links, names that lead out of a folder, or files that would
            unpack to many times their size.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            with open_regular(path, "a zip file") as file, zipfile.ZipFile(file) as archive:
                size = file_size(file)
                entries = [entry for entry in archive.infolist() if _is_shown(entry, is_image)]
                self.left_out = [entry.filename for entry in archive.infolist() if _is_shown(entry, is_other_image)]
                check_names(path, [entry.filename for entry in entries])
                for entry in archive.infolist():
                    _check(path, entry, size)
                entries.sort(key=lambda entry: natural_key(Path(entry.filename)))
                self.names = CompactStrings(entry.filename for entry in entries)
        except UserError:
            raise
        except Exception as error:  # zipfile raises struct.error, ValueError, NotImplementedError ... for damaged files
            reason = " ".join(str(error).split())[:100] or type(error).__name__
            raise UserError(f"{path}: damaged zip ({reason}); download or copy it again") from error
        self._size = size
        self._entries = np.array([_location(entry) for entry in entries], dtype=np.int64).reshape(-1, 5)
        self._file = PerProcess(self._open)

    @functools.cached_property
    def classes(self) -> np.ndarray | None:  # noqa: D102
        try:
            with open_regular(self.path, "a zip file") as file:
                with zipfile.ZipFile(file) as archive:
                    if CLASSES not in archive.namelist():
                        return None
                    labels = archive.getinfo(CLASSES)
                if labels.file_size > MAX_CLASSES_BYTES:
                    raise UserError(f"{self.path}: {CLASSES} is larger than {MAX_CLASSES_BYTES:,} bytes")
                text = _content(file, self._size, _location(labels))
        except UserError:
            raise
        except Exception as error:  # as in the constructor
            raise UserError(f"{self.path}: {CLASSES} is damaged; copy the zip again") from error
        return parse_classes(text, f"{self.path}: {CLASSES}", self.names)

    def _open(self) -> BinaryIO:
        return open_regular(self.path, "a zip file")

    def read(self, index: int) -> bytes:  # noqa: D102
        try:
            return _content(self._file.get(), self._size, self._entries[index].tolist())
        except ValueError as error:
            raise BadImage(f"{self.where(index)}: {error}") from error
        except _DAMAGES as error:
            raise BadImage(f"{self.where(index)}: cannot be read from the zip ({error})") from error


def _location(entry: zipfile.ZipInfo) -> list[int]:
    """Returns the offset, the packed size, the size, the method and the checksum of an entry.

    The directory of a zip may claim any size, also more than 64 bits hold; that is an error when the entry is read.
    """
    sizes = [min(value, _MOST_BYTES) for value in (entry.header_offset, entry.compress_size, entry.file_size)]
    return [*sizes, entry.compress_type, entry.CRC]


def _content(file: BinaryIO, file_size: int, location: list[int]) -> bytes:
    """Reads one entry; never more than it claims, and never more than the file has.

    Raises:
        OSError: The file cannot be read.
        ValueError: The entry is damaged.
    """
    offset, packed, size, method, crc = location
    if not 0 <= offset <= file_size - _LOCAL_HEADER.size or not 0 <= packed <= file_size - offset:
        raise ValueError(f"damaged in the zip (it claims {packed:,} bytes at {offset:,} of {file_size:,})")
    file.seek(offset)
    header = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    file.seek(header[-2] + header[-1], 1)  # skips the name and the extra field
    data = file.read(packed)
    if method == zipfile.ZIP_DEFLATED:
        data = zlib.decompressobj(-15).decompress(data, size + 1)
    if header[0] != b"PK\3\4" or len(data) != size or zlib.crc32(data) != crc:
        raise ValueError("damaged in the zip (its checksum differs)")
    return data


def _is_shown(entry: zipfile.ZipInfo, kind: Callable[[str], bool]) -> bool:
    """Returns whether an entry is a file of a kind, and not hidden."""
    folders, _, base = entry.filename.rpartition("/")
    hidden = base.startswith(".") or "__MACOSX" in folders.split("/")
    return not entry.is_dir() and not hidden and kind(base)


def _check(path: Path, entry: zipfile.ZipInfo, file_size: int) -> None:
    label = ascii(entry.filename)[:80]
    if stat.S_ISLNK(entry.external_attr >> 16):
        raise UserError(f"{path}: rejected, as {label} is a link; expected files")
    if not _is_shown(entry, is_image):
        return
    if entry.flag_bits & 1:
        raise UserError(f"{path}: {label} is encrypted; unpack it and give the folder")
    if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
        raise UserError(f"{path}: {label} is packed by method {entry.compress_type}; expected a stored or deflated zip")
    if entry.compress_size > file_size:
        return  # damaged; an error of this image alone
    stored = entry.compress_type == zipfile.ZIP_STORED and entry.compress_size != entry.file_size
    bomb = entry.file_size > max(_SMALL_FILE, _MAX_RATIO * entry.compress_size)
    if stored or bomb or entry.file_size > MAX_BYTES:
        raise UserError(
            f"{path}: rejected, as {label} would unpack from {entry.compress_size:,} to {entry.file_size:,} bytes"
        )
