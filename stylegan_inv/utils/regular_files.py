"""Opens files that somebody else may have made: regular files only, and never more of them than a reader can use.

Opening a pipe waits for a writer, and a device such as ``/dev/zero`` has no end. In the folder of a stranger, either
can have the name of any file, also by a link. Every file that a user names, and every file in a folder that a user
names, is therefore opened here; ``tests/test_structure.py`` checks that.
"""

from __future__ import annotations

import os
import stat
from typing import BinaryIO

from stylegan_inv.errors import UserError

#: Opening does not wait, and no terminal becomes that of this process. Windows has neither flag, but O_BINARY.
_FLAGS = os.O_RDONLY | sum(getattr(os, name, 0) for name in ("O_NONBLOCK", "O_NOCTTY", "O_CLOEXEC", "O_BINARY"))


def check_regular(path: str | os.PathLike[str], expected: str = "a file") -> None:
    """Checks that a path is that of a regular file, for a library that opens it by its path.

    Args:
        path: The path.
        expected: What the file should be, for the error.

    Raises:
        UserError: There is no such file, or it is a folder, a pipe, a device or a socket.
    """
    try:
        mode = os.stat(path).st_mode
    except (OSError, ValueError) as error:
        raise _cannot_be_opened(path, error, expected) from error
    _check_mode(path, mode, expected)


def open_regular(path: str | os.PathLike[str], expected: str = "a file") -> BinaryIO:
    """Opens a regular file to read its bytes.

    Args:
        path: The path.
        expected: What the file should be, for the error.

    Raises:
        UserError: As `check_regular`, or the file cannot be opened.
    """
    check_regular(path, expected)  # first, as opening alone has effects on some devices
    try:
        handle = os.open(path, _FLAGS)
    except (OSError, ValueError) as error:
        raise _cannot_be_opened(path, error, expected) from error
    try:
        _check_mode(path, os.fstat(handle).st_mode, expected)
        return os.fdopen(handle, "rb")
    except BaseException:
        os.close(handle)
        raise


def read_bytes(path: str | os.PathLike[str], most_bytes: int, expected: str = "a file") -> bytes:
    """Returns the content of a file, as long as it is when it is opened.

    Args:
        path: The path.
        most_bytes: Size limit in bytes.
        expected: What the file should be, for the error.

    Raises:
        UserError: As `open_regular`; the file is larger, or cannot be read.
    """
    with open_regular(path, expected) as file:
        size = file_size(file)
        if size > most_bytes:
            raise UserError(f"{path}: {size:,} bytes, expected {expected} of at most {most_bytes:,}")
        try:
            return file.read(size)
        except OSError as error:
            raise _cannot_be_opened(path, error, expected) from error


def read_text(path: str | os.PathLike[str], most_bytes: int, expected: str = "a file") -> str:
    """Returns the content of a text file in UTF-8, without its byte order mark; see `read_bytes`.

    Raises:
        UserError: As `read_bytes`, or the file is not text in UTF-8.
    """
    content = read_bytes(path, most_bytes, expected)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text (byte {error.start}), expected {expected} in UTF-8") from error


def file_size(file: BinaryIO) -> int:
    """Returns the size of an open file in bytes."""
    return os.fstat(file.fileno()).st_size


def _check_mode(path: str | os.PathLike[str], mode: int, expected: str) -> None:
    if stat.S_ISDIR(mode):
        raise UserError(f"{path}: is a folder, expected {expected}")
    if not stat.S_ISREG(mode):
        raise UserError(f"{path}: is a pipe or a device, expected {expected}")


def _cannot_be_opened(path: str | os.PathLike[str], error: Exception, expected: str) -> UserError:
    # ValueError: a NUL character in the name
    reason = (error.strerror if isinstance(error, OSError) else None) or str(error)
    return UserError(f"{path}: cannot be opened ({reason.lower()}); expected {expected}")
