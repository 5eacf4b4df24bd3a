"""LMDBs of images: rosinality's, with each image in one or more sizes, and LSUN's, with a hash for a key.

rosinality/stylegan2-pytorch, ``prepare_data.py``: keys ``256-00000``, ``256-00001``, ... and ``length``. Ours add
``manifest``, which says what the images were called.
"""

from __future__ import annotations

import re
from pathlib import Path

from stylegan_inv.data.images.image_files import SUFFIXES
from stylegan_inv.data.sources.archive_files import ArchiveSource
from stylegan_inv.data.sources.class_labels import read_json
from stylegan_inv.data.sources.lmdb_file import value_places
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError

LENGTH, MANIFEST = b"length", b"manifest"
_SIZED = re.compile(rb"([1-9]\d{0,4})-\d{5,9}")
_MAX_TEXT = 1 << 28


def image_key(size: int, index: int) -> bytes:
    """Rosinality's key of an image."""
    return b"%d-%05d" % (size, index)


def open_lmdb(path: Path, resolution: int) -> Source:
    """List the images of an LMDB; of several sizes the smallest that is at least ``resolution``, or else the largest.

    Args:
        path: The folder of ``data.mdb``, or the file itself.
        resolution: What is needed.

    Raises:
        UserError: Damaged, without images, or not of one of the two kinds.
    """
    file = path / "data.mdb" if path.is_dir() else path
    places = {key: (offset, length) for key, offset, length in value_places(file)}
    if LENGTH not in places:
        keys = list(places)
        names = [_lsun_name(key) for key in keys]
    else:
        count = _count(path, read_place(file, *places[LENGTH]), len(places))
        sizes = {int(match[1]) for match in map(_SIZED.fullmatch, places) if match}
        if not sizes:
            raise UserError(f"{path}: has 'length' but no key like 256-00000, as rosinality's LMDBs do")
        size = min((s for s in sizes if s >= resolution), default=max(sizes))
        keys = [image_key(size, index) for index in range(count)]
        if missing := [key.decode() for key in keys if key not in places]:
            raise UserError(f"{path}: has no {missing[0]} ({len(missing)} of {count} images are missing at {size} px)")
        names = [f"{index:05d}.png" for index in range(count)]
        if MANIFEST in places:
            names = _manifest_names(path, read_place(file, *places[MANIFEST]), count)
    check_names(path, names)
    return ArchiveSource(path, names, [file], [(0, *places[key]) for key in keys])


def read_place(file: Path, offset: int, length: int) -> bytes:
    """A text in a file, of at most 256 MB."""
    if length > _MAX_TEXT:
        raise UserError(f"{file}: a list of names of {length:,} bytes, expected at most {_MAX_TEXT:,}")
    with open(file, "rb") as opened:
        opened.seek(offset)
        return opened.read(length)


def _lsun_name(key: bytes) -> str:
    text = key.decode("latin-1")
    plain = re.fullmatch(r"\w[\w.-]{0,199}", text, re.ASCII)
    name = text if plain else key.hex()
    return name if name.endswith(SUFFIXES) else f"{name}.webp"


def _count(path: Path, length: bytes, entries: int) -> int:
    text = length[:32].decode("latin-1")
    if not re.fullmatch("[0-9]{1,10}", text) or not 0 < int(text) <= entries:
        raise UserError(f"{path}: 'length' is {ascii(text)[:40]}, expected 1 to {entries}, its number of entries")
    return int(text)


def _manifest_names(path: Path, manifest: bytes, count: int) -> list[str]:
    content = read_json(manifest, f"{path}: manifest")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, dict) or len(images) != count:
        raise UserError(f"{path}: its manifest does not name its {count} images; was it changed after it was packed?")
    return list(images)
