"""Writes files atomically: a reader sees either the old content or the new one."""

from __future__ import annotations

import contextlib
import os
import re
import secrets
from collections.abc import Iterator
from pathlib import Path

from stylegan_inv.errors import UserError

_MARK = ".partial"
_PARTIAL = re.compile(rf"\..{{0,40}}\.[0-9a-f]{{4,8}}{re.escape(_MARK)}(\.[^.]*)?", re.DOTALL)


@contextlib.contextmanager
def atomic_write(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Writes a file through a temporary one in the same folder.

    ``with atomic_write("last.ckpt") as temporary: torch.save(state, temporary)``

    The temporary file is in the folder of its target, because across file systems (``$TMPDIR`` is often another one) a
    rename becomes a copy, which can be interrupted (Lightning #21253). It is flushed to disk before it gets the
    target's name, so that after a power failure the name does not refer to an empty file. If the block raises, the
    target does not change and the temporary file is removed; if the process is killed, the temporary file stays, and
    :func:`remove_partial` removes it later.

    Args:
        path: Target. Its folder must exist. A symbolic link is replaced, not followed.

    Yields:
        Path to write to. It is hidden and has the suffix of the target, from which some libraries derive the format.
    """
    path = Path(path)
    # The stem is cut because file systems limit names to 255 bytes.
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
    """Removes temporary files of killed processes and returns them.

    Args:
        folder: Folder that no other process writes to; its subfolders are not searched.
    """
    removed = []
    for file in sorted(Path(folder).glob(f".*{_MARK}*")):
        if file.is_file() and is_partial(file):
            file.unlink(missing_ok=True)
            removed.append(file)
    return removed


def is_partial(file: Path) -> bool:
    """Returns whether a file has a name that :func:`atomic_write` gives; other programs write ``.x.partial``."""
    return _PARTIAL.fullmatch(file.name) is not None


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
    # A rename is durable only after the folder is flushed. Windows cannot open folders, so errors are ignored.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
