"""LMDBs of images: rosinality's, with each image in one or more sizes, and LSUN's, with hashes as keys.

The keys of rosinality/stylegan2-pytorch (``prepare_data.py``) are ``256-00000``, ``256-00001``, ... and ``length``.
LMDBs written here also have the key ``manifest``, with the names of the images.
"""

from __future__ import annotations

import re
from pathlib import Path

from stylegan_inv.data.images.image_files import SUFFIXES
from stylegan_inv.data.sources.archive_files import ArchiveSource
from stylegan_inv.data.sources.class_labels import read_json
from stylegan_inv.data.sources.lmdb_file import value_locations
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import open_regular

LENGTH, MANIFEST = b"length", b"manifest"
_SIZED = re.compile(rb"([1-9]\d{0,4})-\d{5,9}")
_MAX_TEXT = 1 << 28
_ADVICE = "download, copy or pack it again"


def image_key(size: int, index: int) -> bytes:
    """Returns rosinality's key of an image."""
    return b"%d-%05d" % (size, index)


def open_lmdb(path: Path, resolution: int) -> Source:
    """Opens an LMDB of images.

    Of several sizes, it uses the smallest one that is at least ``resolution``, or else the largest one.

    Args:
        path: Folder of ``data.mdb``, or the file itself.
        resolution: Required resolution.

    Raises:
        UserError: The LMDB is damaged, has no images, or has other keys.
    """
    file = path / "data.mdb" if path.is_dir() else path
    locations = {key: (offset, length) for key, offset, length in value_locations(file)}
    if LENGTH not in locations:
        keys = list(locations)
        names = [_lsun_name(key) for key in keys]
    else:
        count = _count(file, read_text_value(file, *locations[LENGTH]), len(locations))
        sizes = {int(match[1]) for match in map(_SIZED.fullmatch, locations) if match}
        if not sizes:
            raise UserError(
                f"{file}: has 'length' but no key like 256-00000, expected an LMDB of rosinality; {_ADVICE}"
            )
        size = min((s for s in sizes if s >= resolution), default=max(sizes))
        keys = [image_key(size, index) for index in range(count)]
        if missing := [key.decode() for key in keys if key not in locations]:
            raise UserError(
                f"{file}: has no {missing[0]} ({len(missing)} of {count} images are missing at {size} px); {_ADVICE}"
            )
        names = [f"{index:05d}.png" for index in range(count)]
        if MANIFEST in locations:
            names = _manifest_names(file, read_text_value(file, *locations[MANIFEST]), count)
    check_names(path, names)
    return ArchiveSource(path, names, [file], [(0, *locations[key]) for key in keys])


def read_text_value(file: Path, offset: int, length: int) -> bytes:
    """Returns the bytes of a text value of an LMDB.

    Args:
        file: The ``data.mdb`` file.
        offset: Offset of the value in bytes.
        length: Length of the value in bytes.

    Raises:
        UserError: The value is larger than 256 MB.
    """
    if length > _MAX_TEXT:
        raise UserError(f"{file}: a list of names of {length:,} bytes, expected at most {_MAX_TEXT:,}")
    with open_regular(file, "an LMDB") as opened:
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
        raise UserError(
            f"{path}: 'length' is {ascii(text)[:40]}, expected 1 to {entries}, its number of entries; {_ADVICE}"
        )
    return int(text)


def _manifest_names(path: Path, manifest: bytes, count: int) -> list[str]:
    content = read_json(manifest, f"{path}: manifest")
    images = content.get("images") if isinstance(content, dict) else None
    if not isinstance(images, dict) or len(images) != count:
        raise UserError(f"{path}: the manifest does not name its {count} images; {_ADVICE}")
    return list(images)
