"""Writing files so that a reader sees the old content or the new, never a part of it."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from stylegan_inv.errors import UserError

_MARK = ".partial"


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Write a file by way of a temporary one beside it.

    ``with atomic_write("last.ckpt") as temporary: torch.save(state, temporary)``

    The temporary file lies in the folder of its target: across file systems (``$TMPDIR`` often is another one) a rename
    becomes a copy, and a copy can be cut short (Lightning #21253). It is flushed to disk before it takes the target's
    name, so after a power cut the name does not point at an empty file. If the block raises, the target stays as it was
    and the temporary file is removed; after ``kill -9`` it stays, for :func:`remove_partial`.

    Args:
        path: Where the file shall be. The folder must exist. A symbolic link is replaced, not followed.

    Yields:
        The path to write to: hidden, and with the suffix of the target, as some libraries choose the format by it.
    """
    path = Path(path)
    # Cut the stem: with the additions a long name would pass the 255 bytes that file systems allow.
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}{_MARK}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def remove_partial(folder: str | os.PathLike[str]) -> list[Path]:
    """Remove what killed writers left in ``folder`` (not in folders below), for a run that owns it, at its start."""
    removed = []
    for file in sorted(Path(folder).glob(f".*{_MARK}*")):
        # The mark is the last or last but one suffix: a user's ".x.partial.old.png" is not ours.
        if file.is_file() and _MARK in file.suffixes[-2:]:
            file.unlink(missing_ok=True)
            removed.append(file)
    return removed


def check_output(folder: Path, overwrite: bool = False) -> None:
    """Checks that results can be written to a folder, without writing.

    Args:
        folder: Output folder; need not exist.
        overwrite: Whether the folder may have content.

    Raises:
        UserError: The path is a file, the folder has content, or it is not writable.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder}: is a file, expected a folder")
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise UserError(f"output={folder}: the folder has content; give another one, or overwrite=true")
    for parent in (folder, *folder.absolute().parents):
        if parent.exists():
            if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
                raise UserError(f"output={folder}: cannot be made, as {parent} is not writable; give another folder")
            return


def _sync_folder(folder: Path) -> None:
    # The rename itself is durable only when the folder is. Not every system can open one (Windows), so best effort.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
