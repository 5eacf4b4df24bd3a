"""Whether a file in the cache of downloaded weights is the one that was published.

Where the whole hash is published, the file must have it. Of other files only the first digits are known, or nothing:
the hash of the first download is noted beside the file, and the file must keep it.
"""

from __future__ import annotations

import contextlib
import functools
import hashlib
from pathlib import Path

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.regular_files import open_regular, read_bytes
from stylegan_inv.weights.table import Weights

_CHUNK = 1 << 20
_DIGITS = 64


def file_hash(path: str | Path) -> str:
    """Returns the sha256 of a file as 64 hexadecimal digits."""
    digest = hashlib.sha256()
    with open_regular(path) as f:
        while block := f.read(_CHUNK):
            digest.update(block)
    return digest.hexdigest()


def is_intact(target: Path, entry: Weights) -> bool:
    """Returns whether a file of the cache exists and is the published one.

    Args:
        target: The file.
        entry: What is known about it.

    Raises:
        UserError: The file has changed since it was downloaded, and no hash is published.
    """
    if not target.is_file() or entry.size not in (None, target.stat().st_size):
        return False
    digest = _hash_once(target)
    if not matches(digest, entry):
        return False
    note = _note(target)
    if _is_whole(entry):
        return True
    if not note.is_file():
        remember(target, digest, entry)
    elif read_bytes(note, _CHUNK).decode("ascii", errors="replace").strip() != digest:
        raise UserError(
            f"{target}: has changed since it was downloaded (sha256 {digest}); delete it to download it again, or "
            f"delete {note} to use it as it is"
        )
    return True


def matches(digest: str, entry: Weights) -> bool:
    """Returns whether a hash is the published one, of which perhaps the first digits are known."""
    if entry.sha256 is None:
        return True
    return digest == entry.sha256 if _is_whole(entry) else digest.startswith(entry.sha256)


def remember(target: Path, digest: str, entry: Weights) -> None:
    """Notes the hash of a file whose whole hash is not published."""
    if not _is_whole(entry):
        with contextlib.suppress(OSError), atomic_write(_note(target)) as temporary:  # a cache that is read only
            temporary.write_text(f"{digest}\n", encoding="ascii")


def _is_whole(entry: Weights) -> bool:
    return entry.sha256 is not None and len(entry.sha256) == _DIGITS


def _note(target: Path) -> Path:
    return target.with_name(f".{target.name}.sha256")


def _hash_once(target: Path) -> str:
    """Returns the hash of a file, which is read again only if it has changed."""
    found = target.stat()
    return _hash_of_version(target, (found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino))


@functools.lru_cache(maxsize=64)
def _hash_of_version(target: Path, version: tuple[int, ...]) -> str:
    return file_hash(target)
