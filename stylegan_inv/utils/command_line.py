"""What the command lines of the package share: an argument parser, one-line errors and exit codes."""

from __future__ import annotations

import argparse
import contextlib
import sys
from collections.abc import Callable
from typing import NoReturn

from stylegan_inv.errors import UserError
from stylegan_inv.utils.text import print_any_text

EXIT_USER_ERROR = 2


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
        code = main()
    except bad_input as error:
        code = report_error(error)
    if code:
        sys.exit(code)


def print_line(text: str) -> None:
    """Prints a line during a long computation, which goes on if it cannot be printed: to a file on a full disk, say."""
    with contextlib.suppress(OSError):
        print(text, flush=True)


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
    print(f"error: {line}", file=sys.stderr)
    return EXIT_USER_ERROR
