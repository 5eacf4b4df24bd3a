"""Text that can be written to any file: names of files may hold bytes that are no UTF-8."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import re
import sys
import unicodedata
from typing import Any

#: Name of standard output in errors of writing to it.
STANDARD_OUTPUT = "standard output"
#: Of a name in that of a file, which has other parts.
_MOST_NAME_BYTES = 60
#: Python reads byte 0xE9 of a name that is not UTF-8 as U+DCE9, which no file of UTF-8 can hold.
_SURROGATE = re.compile("[\ud800-\udfff]")
#: Control characters, and those that change the order of the text around them.
_CONTROL = re.compile("[\0-\x1f\x7f-\x9f\u2028\u2029\u202a-\u202e\u2066-\u2069]")


def readable(text: str) -> str:
    """Returns a text that UTF-8 can hold, in which ``%E9`` replaces a byte 0xE9 that is not UTF-8.

    The result is a name that every file system accepts, too. Other text is unchanged.
    """
    return _SURROGATE.sub(_escape, text)


def printable(text: str) -> str:
    """Returns a text for one line in the terminal, which may be the name of a stranger's file.

    Characters that move the cursor, change the title of the window, end the line or change the order of the text are
    replaced by their escapes.
    """
    return _CONTROL.sub(lambda found: ascii(found[0])[1:-1], readable(text))


def json_text(value: Any, indent: int | None = 2) -> str:
    """Returns a value as JSON for a file of UTF-8, with a line break at the end."""
    return readable(json.dumps(value, indent=indent, ensure_ascii=False)) + "\n"


def cell_text(name: str) -> str:
    """Returns a name of a file for a cell of a CSV file: no program that opens the file takes it for a formula.

    Spreadsheets calculate cells that start with =, +, - or @. ``./=1.png`` is the same file as ``=1.png``.
    """
    return readable(f"./{name}" if name.startswith(("=", "+", "-", "@", "\t", "\r", "\n")) else name)


def name_in_cell(text: str) -> str:
    """Returns the name that `cell_text` has written, in the form in which names are compared."""
    return same_letters(text.removeprefix("./"))


def same_letters(text: str) -> str:
    """Returns the form of a name in which names are compared: é is two characters on macOS, elsewhere one."""
    return unicodedata.normalize("NFC", text)


class _NamedOutput(io.TextIOWrapper):
    """A stream whose errors name it: those of the system have no name of a file."""

    title = ""
    former: io.TextIOWrapper | None = None

    def write(self, text: str) -> int:
        """Writes a text."""
        try:
            return super().write(text)
        except OSError as error:
            error.filename = self.title
            raise

    def flush(self) -> None:
        """Writes what waits."""
        try:
            super().flush()
        except OSError as error:
            error.filename = self.title
            raise


def print_any_text() -> None:
    """Makes standard output accept every text, also names and arrows that the terminal's encoding does not have.

    Errors of writing to it name it: it may be a file on a full disk.
    """
    for name, title in (("stdout", STANDARD_OUTPUT), ("stderr", "standard error")):
        stream = getattr(sys, name)
        if type(stream) is io.TextIOWrapper:
            with contextlib.suppress(OSError):
                stream.flush()
            named = _NamedOutput(
                stream.buffer,
                stream.encoding,
                "backslashreplace",
                line_buffering=stream.line_buffering,
                write_through=stream.write_through,
            )
            named.title, named.former = title, stream  # which would close the file that both write to
            setattr(sys, name, named)
        elif isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")


def _escape(match: re.Match[str]) -> str:
    byte = ord(match[0]) - 0xDC00
    return f"%{byte:02X}" if 0x80 <= byte <= 0xFF else "\ufffd"


def plain_name(text: str) -> str:
    """Replaces characters that have a meaning in paths or shells."""
    return "".join(c if c.isalnum() or c in "+-." else "_" for c in text)


def file_name_of(text: str) -> str:
    """Returns a name, which may come from the file of a stranger, as a part of the name of a file or a folder."""
    name = plain_name(text)
    if len(name.encode()) <= _MOST_NAME_BYTES:
        return name
    # The end of a caption is its strength.
    return f"{name[:8]}_{hashlib.sha256(text.encode(errors='surrogatepass')).hexdigest()[:8]}_{name[-8:]}"
