"""Writers of packed datasets: NVIDIA's zip, rosinality's LMDB and WebDataset's tar shards.

A writer resumes after an interruption: it is given the images that are known to be complete, and drops what follows
them. Files contain no time stamps, so that the same images give the same file.
"""

from __future__ import annotations

import contextlib
import io
import os
import tarfile
import zipfile
import zlib
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from stylegan_inv.data.sources.lmdb import LENGTH, MANIFEST, image_key, read_text_value
from stylegan_inv.data.sources.lmdb_file import value_locations
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import named_errors
from stylegan_inv.utils.regular_files import open_regular, read_bytes

MANIFEST_FILE = "manifest.json"
#: A manifest has about 150 bytes for each image.
MAX_MANIFEST_BYTES = 1 << 28
_EPOCH = (1980, 1, 1, 0, 0, 0)  # the earliest time stamp of a zip
_LOCAL_HEADER = 30


class Packer(ABC):
    """Base class of the writers of packed datasets.

    Args:
        content: File or folder to write; an existing one is continued.
        done: Name and length in bytes of each image that ``content`` is known to hold.
    """

    #: Number of images between two calls of :meth:`flush`.
    interval = 500

    def __init__(self, content: Path, done: Sequence[tuple[str, int]]) -> None:
        self.content, self.count = content, len(done)

    @abstractmethod
    def add(self, name: str, data: bytes) -> None:
        """Appends an image file."""

    @abstractmethod
    def flush(self) -> None:
        """Writes all images so far to disk."""

    @abstractmethod
    def abandon(self) -> None:
        """Closes the file as it is, after an error."""

    @abstractmethod
    def finish(self, extra: dict[str, bytes]) -> None:
        """Writes the files that accompany the images, by name, and closes the dataset."""


class ZipPacker(Packer):
    """Writes a zip of stored (not compressed) files, as NVIDIA's dataset tool does."""

    def __init__(self, content: Path, done: Sequence[tuple[str, int]]) -> None:
        super().__init__(content, done)
        self._file = open(content, "r+b" if content.exists() else "w+b")
        entries = [self._recover_entry(name, length) for name, length in done]
        self._file.truncate()
        self._zip = zipfile.ZipFile(self._file, "w")
        # An interrupted writer leaves no central directory; it is rebuilt from the complete entries.
        self._zip.filelist.extend(entries)
        self._zip.NameToInfo.update({entry.filename: entry for entry in entries})

    def _recover_entry(self, name: str, length: int) -> zipfile.ZipInfo:
        entry = _entry(name)
        entry.header_offset = self._file.tell()
        self._file.seek(_LOCAL_HEADER + len(name.encode()), os.SEEK_CUR)
        entry.CRC = zlib.crc32(self._file.read(length))
        entry.file_size = entry.compress_size = length
        entry.flag_bits = 0 if name.isascii() else 0x800
        return entry

    def add(self, name: str, data: bytes) -> None:  # noqa: D102
        with named_errors(self.content):
            self._zip.writestr(_entry(name), data)

    def flush(self) -> None:  # noqa: D102
        with named_errors(self.content):
            self._file.flush()
            os.fsync(self._file.fileno())

    def finish(self, extra: dict[str, bytes]) -> None:  # noqa: D102
        with named_errors(self.content):
            for name, data in extra.items():
                self._zip.writestr(_entry(name), data, zipfile.ZIP_DEFLATED)
            self._zip.close()
            self.flush()
            self._file.close()

    def abandon(self) -> None:  # noqa: D102
        self._zip.fp = None  # otherwise the destructor would write a central directory
        with contextlib.suppress(OSError):  # what is buffered on a full disk; the error before says so
            self._file.close()


def _entry(name: str) -> zipfile.ZipInfo:
    entry = zipfile.ZipInfo(name, _EPOCH)
    entry.external_attr = 0o644 << 16
    return entry


@contextlib.contextmanager
def _lmdb_errors(content: Path) -> Iterator[None]:
    """Turns errors of the LMDB library, which are no OSError, into one that says what to do."""
    import lmdb

    try:
        yield
    except lmdb.Error as error:
        reason = str(error).removeprefix(f"{content}: ")
        raise UserError(
            f"{content}: cannot be written ({reason}); free the disk, lift limits of memory (ulimit -v), as an LMDB "
            "reserves 1 TB of addresses, or give --to zip"
        ) from error


class LmdbPacker(Packer):
    """Writes an LMDB with rosinality's keys, and a ``manifest`` with the names.

    Args:
        content: See :class:`Packer`.
        done: See :class:`Packer`.
        size: Side of the images in pixels, which is part of the keys.
    """

    def __init__(self, content: Path, done: Sequence[tuple[str, int]], size: int) -> None:
        super().__init__(content, done)
        try:
            import lmdb
        except ImportError:
            raise UserError("writing an LMDB needs the package lmdb: pip install 'stylegan_inv[data]'") from None
        # The map size limits the file and reserves address space, of which a 64-bit system has plenty.
        with _lmdb_errors(content):
            self._environment = lmdb.open(str(content), map_size=1 << 40)
        self._size, self._pending = size, list[tuple[bytes, bytes]]()

    def add(self, name: str, data: bytes) -> None:  # noqa: D102
        self._pending.append((image_key(self._size, self.count), data))
        self.count += 1

    def flush(self) -> None:  # noqa: D102
        with _lmdb_errors(self.content), self._environment.begin(write=True) as transaction:
            for key, data in self._pending:
                transaction.put(key, data)
        self._pending.clear()

    def finish(self, extra: dict[str, bytes]) -> None:  # noqa: D102
        self._pending += [(LENGTH, b"%d" % self.count), (MANIFEST, extra[MANIFEST_FILE])]
        self.flush()
        self._environment.close()
        (self.content / "lock.mdb").unlink(missing_ok=True)

    def abandon(self) -> None:  # noqa: D102
        self._environment.close()


def sample_names(names: Sequence[str]) -> list[str]:
    """Returns the names of images in shards: without dots, as WebDataset ends the name of a sample at its first dot.

    ``a.b.png`` becomes ``a_b.png``. Where that is the name of several images, each gets its number.
    """
    paths = [PurePosixPath(name) for name in names]
    stems = [str(path.with_name(path.stem.replace(".", "_"))) for path in paths]
    counts = Counter(stems)
    numbered = [stem if counts[stem] == 1 else f"{stem}_{number:06d}" for number, stem in enumerate(stems)]
    return [stem + path.suffix for stem, path in zip(numbered, paths, strict=True)]


class ShardPacker(Packer):
    """Writes tar shards; a shard is written when it is full.

    Args:
        content: See :class:`Packer`.
        done: See :class:`Packer`.
        images: Number of images per shard.
    """

    def __init__(self, content: Path, done: Sequence[tuple[str, int]], images: int) -> None:
        super().__init__(content, done)
        content.mkdir(exist_ok=True)
        self.interval, self._pending = images, list[tuple[str, bytes]]()

    def add(self, name: str, data: bytes) -> None:  # noqa: D102
        self._pending.append((name, data))
        self.count += 1

    def flush(self) -> None:  # noqa: D102
        if not self._pending:
            return
        path = self.content / f"{(self.count - 1) // self.interval:06d}.tar"
        with named_errors(path), open(path, "wb") as file:
            with tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as archive:
                for name, data in self._pending:
                    member = tarfile.TarInfo(name)
                    member.size = len(data)
                    archive.addfile(member, io.BytesIO(data))
            file.flush()
            os.fsync(file.fileno())
        self._pending.clear()

    def finish(self, extra: dict[str, bytes]) -> None:  # noqa: D102
        self.flush()
        with named_errors(self.content / MANIFEST_FILE):
            (self.content / MANIFEST_FILE).write_bytes(extra[MANIFEST_FILE])

    def abandon(self) -> None:  # noqa: D102
        self._pending.clear()


def open_packer(kind: str, content: Path, done: Sequence[tuple[str, int]], size: int, shard_images: int) -> Packer:
    """Opens a writer.

    Args:
        kind: ``zip``, ``lmdb`` or ``shards``.
        content: File or folder to write.
        done: Name and length in bytes of each image that ``content`` is known to hold.
        size: Side of the images in pixels, for an LMDB.
        shard_images: Number of images per shard.
    """
    kinds: dict[str, Any] = {
        "zip": lambda: ZipPacker(content, done),
        "lmdb": lambda: LmdbPacker(content, done, size),
        "shards": lambda: ShardPacker(content, done, shard_images),
    }
    return kinds[kind]()


def read_manifest(path: Path) -> bytes | None:
    """Returns the manifest of a packed dataset, or None if it has none.

    Raises:
        UserError: The manifest is damaged or too large.
    """
    if path.is_dir() and (path / MANIFEST_FILE).is_file():
        return read_bytes(path / MANIFEST_FILE, MAX_MANIFEST_BYTES, "a manifest")
    if (path / "data.mdb").is_file():
        locations = {key: location for key, *location in value_locations(path / "data.mdb")}
        return read_text_value(path / "data.mdb", *locations[MANIFEST]) if MANIFEST in locations else None
    if path.suffix.lower() != ".zip":
        return None
    try:
        with open_regular(path, "a zip file") as file, zipfile.ZipFile(file) as archive:
            if MANIFEST_FILE not in archive.namelist():
                return None
            if (size := archive.getinfo(MANIFEST_FILE).file_size) > MAX_MANIFEST_BYTES:
                raise UserError(f"{size:,} bytes, expected at most {MAX_MANIFEST_BYTES:,}")
            return archive.read(MANIFEST_FILE)
    except Exception as error:  # zipfile raises errors of many types for damaged files
        reason = " ".join(str(error).split())[:100] or type(error).__name__
        raise UserError(f"{path}: its {MANIFEST_FILE} cannot be read ({reason}); pack the images again") from error
