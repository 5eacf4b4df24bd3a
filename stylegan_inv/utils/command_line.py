"""What the command lines of the package share: an argument parser, one-line errors and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import errno
import functools
import os
import sys
from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TextIO

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number, whole_number
from stylegan_inv.utils.text import STANDARD_OUTPUT, print_any_text, printable

EXIT_USER_ERROR = 2
#: As of a program that the signal of a closed pipe ends.
_EXIT_BROKEN_PIPE = 128 + 13
#: As of a program that Ctrl-C ends.
_EXIT_INTERRUPTED = 128 + 2
#: Errors of the file system that the user has to mend, whichever file they concern: no space, no quota, no permission,
#: a name that is too long, links in a circle, or an output folder that has vanished or has become a file.
_DISK_ERRORS = frozenset(
    (
        *(errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO, errno.ESTALE),
        *(errno.ENAMETOOLONG, errno.ELOOP, errno.ENOTDIR, errno.EISDIR, errno.EEXIST, errno.ENOENT),
    )
)
#: Characters of an error, and of its end, which says what to do.
_LONGEST_LINE, _END = 4000, 1000


class _InRange(argparse.Action):
    """Stores numbers of a command line after their range has been checked."""

    def __init__(self, *args: Any, least: float, most: float, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.least, self.most = least, most

    def __call__(  # noqa: D102
        self, parser: argparse.ArgumentParser, namespace: argparse.Namespace, values: Any, option: Any = None
    ) -> None:
        for value in values if isinstance(values, list) else [values]:
            if self.type is int:
                whole_number(option, value, int(self.least), int(self.most))
            else:
                real_number(option, value, self.least, self.most)
        setattr(namespace, self.dest, values)


def whole(least: int, most: int) -> dict[str, Any]:
    """Returns the arguments of ``add_argument`` for a whole number, or a list of them, in a range.

    Args:
        least: Smallest allowed value.
        most: Largest allowed value: no use of the option needs a larger one.
    """
    return {"type": int, "action": functools.partial(_InRange, least=least, most=most)}


def real(least: float, most: float) -> dict[str, Any]:
    """Returns the arguments of ``add_argument`` for a finite number in a range, see `whole`."""
    return {"type": float, "action": functools.partial(_InRange, least=least, most=most)}


class ArgumentParser(argparse.ArgumentParser):
    """An argument parser that raises :class:`.UserError` instead of printing its usage and exiting.

    Parsers of subcommands are of the same class.
    """

    def error(self, message: str) -> NoReturn:
        """Raises the error of a command line.

        Raises:
            UserError: Always.
        """
        raise UserError(f"{message}; see {self.prog} --help")

    def print_help(self, file: Any = None) -> None:
        """Prints the help; unlike that of the base class, an error of writing it is not hidden."""
        print(self.format_help(), end="", file=file, flush=True)


def run(main: Callable[[], int | None], errors: tuple[type[Exception], ...] = ()) -> None:
    """Calls the body of a command and exits if it fails.

    Bad input prints one line, ``error: ...``, on standard error and exits with code 2.

    Args:
        main: Parses the command line and does the work. Returns an exit code; None stands for 0.
        errors: Exceptions that mean bad input, besides :class:`.UserError`.

    Raises:
        SystemExit: With the exit code, unless it is 0.
    """
    print_any_text()
    bad_input: tuple[type[Exception], ...] = (UserError, *errors)
    try:
        with flushed_output():
            code = main()
    except bad_input as error:
        code = report_error(error)
    except OSError as error:
        code = report_system_error(error)
    except KeyboardInterrupt:
        code = report_interrupt()
    if code:
        sys.exit(code)


def disk_error(error: OSError) -> UserError:
    """Returns an error of the file system that the user has to mend as an error of one line.

    Raises:
        OSError: ``error`` itself, if it is another one.
    """
    if error.errno not in _DISK_ERRORS:
        raise error
    return system_error(error)


def system_error(error: OSError) -> UserError:
    """Returns an error of the system, which concerns a file that the user gave, as an error of one line."""
    where = f"{os.fsdecode(error.filename)}: " if isinstance(error.filename, str | bytes) else ""
    hint = "; free some space or give another folder" if error.errno in (errno.ENOSPC, errno.EDQUOT) else ""
    return UserError(f"{where}{error.strerror or error}{hint}")


@contextlib.contextmanager
def flushed_output() -> Iterator[None]:
    """Writes what waits for standard output when the block ends: errors are reported here, not when Python ends."""
    try:
        yield
    except SystemExit as end:
        if not end.code:
            _flush()
        raise
    _flush()


def _flush() -> None:
    if sys.stdout is not None:  # as it is in a process without standard output
        sys.stdout.flush()


def report_system_error(error: OSError) -> int:
    """Prints an error of the file system as one line, unless it says that nobody reads on, as after ``| head``.

    Returns:
        The exit code.

    Raises:
        OSError: ``error`` itself, if the user cannot mend it.
    """
    if error.filename == STANDARD_OUTPUT:
        with open(os.devnull, "wb") as nowhere:  # what waits is written when Python ends
            os.dup2(nowhere.fileno(), sys.stdout.fileno())
        if isinstance(error, BrokenPipeError):
            return _EXIT_BROKEN_PIPE
    return report_error(disk_error(error))


def report_interrupt() -> int:
    """Prints a line after Ctrl-C instead of a traceback, and returns the exit code."""
    print_line("interrupted", sys.stderr)
    return _EXIT_INTERRUPTED


def print_line(text: str, stream: TextIO | None = None) -> None:
    """Prints a line during a long computation, which goes on if it cannot be printed: to a file on a full disk, say.

    Args:
        text: The line.
        stream: Standard output if None.
    """
    with contextlib.suppress(OSError):
        print(text, file=stream, flush=True)


def report_error(error: BaseException) -> int:
    """Prints an exception as one line on standard error.

    Args:
        error: The exception. If a :class:`.UserError` caused it, the message of that one is printed.

    Returns:
        The exit code for bad input.
    """
    cause: BaseException | None = error
    while cause is not None and not isinstance(cause, UserError):
        cause = cause.__cause__ or cause.__context__
    text = str(cause or error)
    # Hydra appends a hint about this environment variable, which the commands set by themselves.
    line = " ".join(part.strip() for part in text.splitlines() if part.strip() and "HYDRA_FULL_ERROR" not in part)
    # Names and values in files of strangers may move the cursor, change the title of the window, or be endless.
    line = printable(line)
    if len(line) > _LONGEST_LINE:
        line = f"{line[: _LONGEST_LINE - _END]} … {line[-_END:]}"
    print_line(f"error: {line}", sys.stderr)
    return EXIT_USER_ERROR
