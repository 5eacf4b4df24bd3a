"""LMDBs of images: rosinality's, with each image in one or more sizes, and LSUN's, with a hash for a key.

rosinality/stylegan2-pytorch, ``prepare_data.py``: keys ``256-00000``, ``256-00001``, ... and ``length``. Ours add
``manifest``, which says what the images were called.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stylegan_inv.data.classes import read_json
from stylegan_inv.data.decoding import MAX_BYTES, BadImage
from stylegan_inv.data.images import SUFFIXES
from stylegan_inv.data.sources import Names, PerProcess, Source, check_names
from stylegan_inv.errors import UserError

MANIFEST = b"manifest"
_SIZED = re.compile(rb"(\d{1,5})-(\d{5,9})")


def open_environment(path: Path, **options: Any) -> Any:
    """Open an LMDB, by default for reading.

    Raises:
        UserError: The package is missing, or the database damaged or cut off (LMDB itself would crash on that).
    """
    try:
        import lmdb
    except ImportError:
        raise UserError(f"{path}: reading an LMDB needs the package lmdb; pip install 'stylegan_inv[data]'") from None
    reading = {"readonly": True, "lock": False, "readahead": False, "meminit": False}
    folder = path.parent if path.name == "data.mdb" else path
    try:
        environment = lmdb.open(str(folder), subdir=folder.is_dir(), **(options or reading))
    except lmdb.Error as error:
        raise UserError(f"{path}: is no LMDB, or damaged ({error}); download or copy it again") from error
    if not options:
        size = (folder / "data.mdb" if folder.is_dir() else folder).stat().st_size
        needed = (environment.info()["last_pgno"] + 1) * environment.stat()["psize"]
        if size < needed:
            environment.close()
            raise UserError(f"{path}: has {size:,} bytes of {needed:,}; download or copy it again")
    return environment


def open_lmdb(path: Path, resolution: int) -> LmdbSource:
    """List the images of an LMDB; of several sizes the smallest that is at least ``resolution``, or else the largest.

    Raises:
        UserError: Damaged, without images, or not of one of the two kinds.
    """
    environment = open_environment(path)
    try:
        with environment.begin() as transaction:
            length = transaction.get(b"length")
            if length is None:
                keys = [bytes(key) for key in transaction.cursor().iternext(values=False)]
                names = [_lsun_name(key) for key in keys]
            else:
                count = _count(path, length, environment.stat()["entries"])
                sizes = _sizes(transaction)
                if not sizes:
                    raise UserError(f"{path}: has 'length' but no key like 256-00000, as rosinality's LMDBs do")
                size = min((s for s in sizes if s >= resolution), default=max(sizes))
                keys = [b"%d-%05d" % (size, index) for index in range(count)]
                names = _manifest_names(path, transaction.get(MANIFEST), count) or [
                    f"{i:05d}.png" for i in range(count)
                ]
    finally:
        environment.close()
    check_names(path, names)
    return LmdbSource(path, names, keys)


class LmdbSource(Source):
    """Images in an LMDB, by their keys."""

    def __init__(self, path: Path, names: list[str], keys: list[bytes]) -> None:
        self.path, self.names = path, Names(names)
        self._keys = Names(key.decode("latin-1") for key in keys)
        self._environment = PerProcess(self._open)

    def _open(self) -> Any:
        return open_environment(self.path)

    def read(self, index: int) -> bytes:  # noqa: D102
        key = self._keys[index]
        with self._environment.get().begin(buffers=True) as transaction:
            value = transaction.get(key.encode("latin-1"))
            if value is None:
                raise BadImage(f"{self.where(index)}: the LMDB has no key {key!r}")
            if len(value) > MAX_BYTES:
                raise BadImage(f"{self.where(index)}: {len(value):,} bytes, expected an image of at most {MAX_BYTES:,}")
            return bytes(value)


def _lsun_name(key: bytes) -> str:
    text = key.decode("latin-1")
    plain = re.fullmatch(r"[\w.-]{1,200}", text, re.ASCII) and text.strip(".")
    name = text if plain else key.hex()
    return name if name.endswith(SUFFIXES) else f"{name}.webp"


def _count(path: Path, length: bytes, entries: int) -> int:
    text = bytes(length[:32]).decode("latin-1")
    if not re.fullmatch("[0-9]{1,10}", text) or not 0 < int(text) <= entries:
        raise UserError(f"{path}: 'length' is {ascii(text)[:40]}, expected 1 to {entries}, its number of entries")
    return int(text)


def _sizes(transaction: Any) -> list[int]:
    """The sizes in the keys; jumps from one to the next."""
    sizes, cursor = [], transaction.cursor()
    found = cursor.first()
    while found:
        match = _SIZED.fullmatch(bytes(cursor.key()))
        if match:
            sizes.append(int(match[1]))
            found = cursor.set_range(match[1] + b"-:")  # ':' follows '9'
        else:
            found = cursor.next()
    return sizes


def _manifest_names(path: Path, manifest: bytes | None, count: int) -> list[str] | None:
    if manifest is None:
        return None
    content = read_json(bytes(manifest), f"{path}: manifest")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, dict) or len(images) != count:
        raise UserError(f"{path}: its manifest does not name its {count} images; was it changed after it was packed?")
    return list(images)
