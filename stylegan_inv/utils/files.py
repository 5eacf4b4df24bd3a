"""Writes files atomically: a reader sees either the old content or the new one."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import re
import secrets
from collections.abc import Callable, Collection, Iterator
from fnmatch import fnmatch
from pathlib import Path

from stylegan_inv.errors import UserError

_log = logging.getLogger(__name__)
_MARK = ".partial"
_PARTIAL = re.compile(rf"\..{{0,40}}\.[0-9a-f]{{4,8}}{re.escape(_MARK)}(\.[^.]*)?", re.DOTALL)
#: Folder of Weights & Biases in a run folder: it replaces the links in it, which lead nowhere when the run is moved.
_WANDB = "wandb"
#: In errors of `torch.save` that have no reason: while it writes, and at the end, for what waits in memory.
_TORCH_ERRORS = ("inline_container", "iostream error")
#: How safetensors names an error of the system, e.g. "I/O error: File too large (os error 27)".
_SYSTEM_ERROR = re.compile(r"\(os error (\d+)\)")


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

    Raises:
        OSError: The file cannot be written, also where a library reports that by an exception of its own.
    """
    path = Path(path)
    # The stem is cut because file systems limit names to 255 bytes.
    temporary = path.with_name(f".{path.stem[:40]}.{secrets.token_hex(4)}{_MARK}{path.suffix}")
    try:
        yield temporary
        with open(temporary, "rb+") as file:
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except BaseException as error:
        with contextlib.suppress(OSError):  # the folder may have become a file
            temporary.unlink(missing_ok=True)
        if isinstance(error, Exception) and (cause := _system_error(error, path)) is not None:
            raise cause from error
        _add_name(error, path)
        raise
    _sync_folder(path.parent)


@contextlib.contextmanager
def named_errors(path: str | os.PathLike[str]) -> Iterator[None]:
    """Adds the name of a file to errors of writing to it, which the system gives without one.

    Args:
        path: The file, or the folder of the files.
    """
    try:
        yield
    except OSError as error:
        _add_name(error, path)
        raise


class TolerantWriter:
    """Turns errors of writing into warnings, for files that a long computation can do without.

    A full disk or a deleted folder then costs some files, and not the computation. Each period of failures is one
    warning.
    """

    def __init__(self) -> None:
        self._failing = False

    @contextlib.contextmanager
    def writing(self, path: str | os.PathLike[str]) -> Iterator[None]:
        """Ends the block at the first error of the file system.

        Args:
            path: What is written, for the warning.
        """
        try:
            yield
        except OSError as error:
            if not self._failing:
                _log.warning("%s: cannot be written (%s); continuing without it", path, error.strerror or error)
            self._failing = True
        else:
            self._failing = False


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


def file_stamp(file: Path) -> tuple[int, int]:
    """Returns size and modification time of a file, which tell whether it has changed; -1 for one without."""
    try:
        found = os.stat(file)
    except OSError:  # a dangling link: an error of this image alone, when it is read
        return -1, -1
    return found.st_size, found.st_mtime_ns


def file_identity(file: Path) -> tuple[str, int, int]:
    """Returns the path of a file, also through links in a circle, and its `file_stamp`."""
    return os.path.realpath(file), *file_stamp(file)


def check_output(folder: Path, overwrite: bool = False, names: Collection[str] | None = None) -> None:
    """Checks that results can be written to a folder, without writing.

    Args:
        folder: Output folder; need not exist.
        overwrite: Whether the folder may have content.
        names: See `check_links`.

    Raises:
        UserError: The path is a file, the folder has content, it is not writable, or a link in it leads out of it.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder}: is a file, expected a folder")
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise UserError(f"output={folder}: the folder has content; give another one, or overwrite=true")
    check_links(folder, names)
    _check_writable(f"output={folder}", folder)


def check_output_file(name: str, file: Path, is_own: Callable[[Path], bool], overwrite: bool, switch: str) -> None:
    """Checks that a result can be written to a file, without writing.

    Args:
        name: What the user calls it, e.g. ``output=report.html``.
        file: The file; need not exist.
        is_own: Returns whether an existing regular file is an earlier result of the same kind, which is replaced.
        overwrite: Whether any file is replaced.
        switch: What to type for the latter, e.g. ``overwrite=true``.

    Raises:
        UserError: The path is that of a folder, a pipe or a device, or of a file of something else, or its folder
            cannot be made or written to.
    """
    if file.is_dir():
        raise UserError(f"{name}: is a folder, expected the name of a file")
    if file.exists() and not file.is_file():
        raise UserError(f"{name}: is a pipe or a device, expected the name of a file")
    if os.path.lexists(file) and not overwrite and not (file.is_file() and is_own(file)):
        raise UserError(f"{name}: exists already and is no earlier result of this command; give another, or {switch}")
    _check_writable(name, file.parent)


def _check_writable(name: str, folder: Path) -> None:
    """Raises a UserError if a folder is not writable or cannot be made."""
    for parent in (folder, *folder.absolute().parents):
        if parent.exists():
            if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
                raise UserError(f"{name}: cannot be made, as {parent} is not writable; give another folder")
            return


def check_links(folder: Path, names: Collection[str] | None = None) -> None:
    """Checks that no link in a folder leads out of it, and that it holds nothing but files and folders.

    In the folder of a stranger, what is written through a link or removed there may be a file of the user, and opening
    a pipe to write waits for a reader.

    Args:
        folder: A folder that is going to be written to; need not exist.
        names: Patterns of the files and folders in it that are written to; None for all.

    Raises:
        UserError: A link to a file or a folder outside of it, a pipe, a device or a socket.
    """
    waiting = [folder] if folder.is_dir() else []
    while waiting:
        current = waiting.pop()
        with os.scandir(current) as entries:
            for entry in entries:
                if current == folder and names is not None and not any(fnmatch(entry.name, name) for name in names):
                    continue
                if entry.is_symlink() and not leads_into(Path(entry.path), folder):
                    raise UserError(
                        f"{entry.path}: is a link that leads out of {folder}, where nothing is written; remove it, "
                        "or give another folder"
                    )
                if os.path.exists(entry.path) and not entry.is_dir() and not entry.is_file():
                    raise UserError(
                        f"{entry.path}: is a pipe or a device, to which nothing is written; remove it, or give "
                        "another folder"
                    )
                if entry.is_dir(follow_symlinks=False) and entry.name != _WANDB:
                    waiting.append(Path(entry.path))


def real_path(path: str | os.PathLike[str]) -> Path:
    """Returns a path without links; of links in a circle too, for which ``Path.resolve`` raises an error."""
    return Path(os.path.realpath(path))


def leads_into(path: Path, folder: Path) -> bool:
    """Returns whether a path is inside a folder after all links have been followed."""
    try:
        return path.resolve().is_relative_to(folder.resolve())
    except (OSError, RuntimeError):  # a loop of links
        return False


def _system_error(error: Exception, path: Path) -> OSError | None:
    """Returns the error of the system behind an exception of safetensors or PyTorch; None for other exceptions."""
    if isinstance(error, OSError):
        return None
    if found := _SYSTEM_ERROR.search(str(error)):
        code = int(found[1])
        return OSError(code, os.strerror(code), str(path))
    if isinstance(error, RuntimeError) and any(text in str(error) for text in _TORCH_ERRORS):
        return OSError(errno.ENOSPC, "the disk is full or the file too large", str(path))
    return None


def _add_name(error: BaseException, path: str | os.PathLike[str]) -> None:
    if isinstance(error, OSError) and error.filename is None:  # of a write, unlike those of opening a file
        error.filename = str(path)


def _sync_folder(folder: Path) -> None:
    # A rename is durable only after the folder is flushed. Windows cannot open folders, so errors are ignored.
    with contextlib.suppress(OSError):
        handle = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(handle)
        finally:
            os.close(handle)
