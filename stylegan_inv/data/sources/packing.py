"""Writers of packed data sets: NVIDIA's zip, rosinality's LMDB, WebDataset's tar shards.

Each continues where a killed one stopped: it is told how many images it holds for certain, and drops what is behind.
Times are left out, so that the same images give the same file.
"""

from __future__ import annotations

import io
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from stylegan_inv.data.sources.lmdb import LENGTH, MANIFEST, image_key, read_place
from stylegan_inv.data.sources.lmdb_file import value_places
from stylegan_inv.errors import UserError

MANIFEST_FILE = "manifest.json"
_START = (1980, 1, 1, 0, 0, 0)  # the first time that a zip can hold
_LOCAL_HEADER = 30


class Packer(ABC):
    """A packed data set that is being written.

    Args:
        content: The file or folder to write; what it holds of earlier is continued.
        done: Name and length of each image that it holds for certain.
    """

    #: Images between two calls of :meth:`flush`.
    interval = 500

    def __init__(self, content: Path, done: Sequence[tuple[str, int]]) -> None:
        self.content, self.count = content, len(done)

    @abstractmethod
    def add(self, name: str, data: bytes) -> None:
        """Append an image."""

    @abstractmethod
    def flush(self) -> None:
        """Bring all images so far to disk."""

    @abstractmethod
    def abandon(self) -> None:
        """Let go of the file as it is, after an error."""

    @abstractmethod
    def finish(self, extra: dict[str, bytes]) -> None:
        """Write what goes with the images, and close."""


class ZipPacker(Packer):
    """Stored files, as NVIDIA's dataset tool writes them."""

    def __init__(self, content: Path, done: Sequence[tuple[str, int]]) -> None:
        super().__init__(content, done)
        self._file = open(content, "r+b" if content.exists() else "w+b")
        entries = [self._entry_again(name, length) for name, length in done]
        self._file.truncate()
        self._zip = zipfile.ZipFile(self._file, "w")
        # A killed writer leaves no directory; it is made again from the entries that are whole.
        self._zip.filelist.extend(entries)
        self._zip.NameToInfo.update({entry.filename: entry for entry in entries})

    def _entry_again(self, name: str, length: int) -> zipfile.ZipInfo:
        entry = _entry(name)
        entry.header_offset = self._file.tell()
        self._file.seek(_LOCAL_HEADER + len(name.encode()), os.SEEK_CUR)
        entry.CRC = zlib.crc32(self._file.read(length))
        entry.file_size = entry.compress_size = length
        entry.flag_bits = 0 if name.isascii() else 0x800
        return entry

    def add(self, name: str, data: bytes) -> None:  # noqa: D102
        self._zip.writestr(_entry(name), data)

    def flush(self) -> None:  # noqa: D102
        self._file.flush()
        os.fsync(self._file.fileno())

    def finish(self, extra: dict[str, bytes]) -> None:  # noqa: D102
        for name, data in extra.items():
            self._zip.writestr(_entry(name), data, zipfile.ZIP_DEFLATED)
        self._zip.close()
        self.flush()
        self._file.close()

    def abandon(self) -> None:  # noqa: D102
        self._zip.fp = None  # or it would write a directory when it is collected
        self._file.close()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _START)
    entry.external_attr = 0o644 << 16
    return entry


class LmdbPacker(Packer):
    """rosinality's keys, with a ``manifest`` that tells the names."""

    def __init__(self, content: Path, done: Sequence[tuple[str, int]], size: int) -> None:
        super().__init__(content, done)
        try:
            import lmdb
        except ImportError:
            raise UserError("writing an LMDB needs the package lmdb: pip install 'stylegan_inv[data]'") from None
        # Not as large as the file will be: this much of the address space, which costs nothing on 64-bit systems.
        self._environment = lmdb.open(str(content), map_size=1 << 40)
        self._size, self._waiting = size, list[tuple[bytes, bytes]]()

    def add(self, name: str, data: bytes) -> None:  # noqa: D102
        self._waiting.append((image_key(self._size, self.count), data))
        self.count += 1

    def flush(self) -> None:  # noqa: D102
        with self._environment.begin(write=True) as transaction:
            for key, data in self._waiting:
                transaction.put(key, data)
        self._waiting.clear()

    def finish(self, extra: dict[str, bytes]) -> None:  # noqa: D102
        self._waiting += [(LENGTH, b"%d" % self.count), (MANIFEST, extra[MANIFEST_FILE])]
        self.flush()
        self._environment.close()
        (self.content / "lock.mdb").unlink(missing_ok=True)

    def abandon(self) -> None:  # noqa: D102
        self._environment.close()


class ShardPacker(Packer):
    """Tar files of ``interval`` images each; a shard appears when it is full."""

    def __init__(self, content: Path, done: Sequence[tuple[str, int]], images: int) -> None:
        super().__init__(content, done)
        content.mkdir(exist_ok=True)
        self.interval, self._waiting = images, list[tuple[str, bytes]]()

    def add(self, name: str, data: bytes) -> None:  # noqa: D102
        # A dot in the name of a sample would end it.
        folder, base = str(PurePosixPath(name).parent), PurePosixPath(name)
        plain = base.stem.replace(".", "_") + base.suffix
        self._waiting.append((plain if folder == "." else f"{folder}/{plain}", data))
        self.count += 1

    def flush(self) -> None:  # noqa: D102
        if not self._waiting:
            return
        path = self.content / f"{(self.count - 1) // self.interval:06d}.tar"
        with open(path, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for name, data in self._waiting:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
            file.flush()
            os.fsync(file.fileno())
        self._waiting.clear()

    def finish(self, extra: dict[str, bytes]) -> None:  # noqa: D102
        self.flush()
        (self.content / MANIFEST_FILE).write_bytes(extra[MANIFEST_FILE])

    def abandon(self) -> None:  # noqa: D102
        self._waiting.clear()


def open_packer(kind: str, content: Path, done: Sequence[tuple[str, int]], size: int, shard_images: int) -> Packer:
    """The writer of a kind: ``zip``, ``lmdb`` or ``shards``."""
    kinds: dict[str, Any] = {
        "zip": lambda: ZipPacker(content, done),
        "lmdb": lambda: LmdbPacker(content, done, size),
        "shards": lambda: ShardPacker(content, done, shard_images),
    }
    return kinds[kind]()


def read_manifest(path: Path) -> bytes | None:
    """The manifest of a packed data set, if it has one."""
    if path.is_dir() and (path / MANIFEST_FILE).is_file():
        return (path / MANIFEST_FILE).read_bytes()
    if (path / "data.mdb").is_file():
        places = {key: place for key, *place in value_places(path / "data.mdb")}
        return read_place(path / "data.mdb", *places[MANIFEST]) if MANIFEST in places else None
    if zipfile.is_zipfile(path):
        with zipfile.ZipFile(path) as archive:
            return archive.read(MANIFEST_FILE) if MANIFEST_FILE in archive.namelist() else None
    return None
