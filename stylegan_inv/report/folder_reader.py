"""Reads the files of a folder for a page that is passed on: the folder may be damaged, or that of a stranger."""

from __future__ import annotations

import csv
import io
import itertools
import json
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from PIL import Image

from stylegan_inv.data.images.decoding import BadImage, decode, read_file, stored_size
from stylegan_inv.errors import UserError
from stylegan_inv.utils.plain_data import check_plain
from stylegan_inv.utils.regular_files import read_bytes
from stylegan_inv.utils.text import printable, readable

#: Ten million logged values.
_MOST_BYTES = 1 << 26
#: A million steps of which each fiftieth logs 60 metrics are 1.2 million values; one takes 100 bytes of memory.
_MOST_CELLS = 1 << 22
#: Rows of a table that are shown, and lines about what cannot be shown.
_MOST_ROWS, _MOST_NOTES = 1000, 50
#: A contact sheet of 1,000 rows of eight images has 200 million pixels; those of runs have fewer rows.
_MOST_PIXELS = 1 << 26


class FolderReader:
    """Reads files of a folder. What is missing is None or empty; what cannot be read is so, too, and is noted.

    Nothing outside of the folder is read: a link in it could lead to any file of the person who makes the page.

    Args:
        folder: The folder.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        #: File and kind of problem -> the first problem, and the number of further ones.
        self._problems: dict[tuple[str, str], tuple[str, int]] = {}

    @property
    def notes(self) -> list[str]:
        """What could not be read: a line for each file and kind of problem, of the first ones."""
        lines = []
        for (name, _), (problem, more) in itertools.islice(self._problems.items(), _MOST_NOTES):
            line = f"{printable(name)}: {printable(' '.join(problem.split()))[:200]}"
            lines.append(f"{line}, and {more:,} more like it" if more else line)
        if (rest := len(self._problems) - len(lines)) > 0:
            lines.append(f"{rest:,} more problems")
        return lines

    def find(self, name: str) -> Path | None:
        """Returns the path of a file; None if there is no such file, or a link that leads out of the folder."""
        path = self.folder / name
        if not os.path.lexists(path):
            return None
        real = Path(os.path.realpath(path))
        if not real.is_relative_to(os.path.realpath(self.folder)):
            self._note(name, "is a link that leads out of the folder")
            return None
        if not real.is_file():
            self._note(name, "is no file")
            return None
        return path

    def names(self, pattern: str, most: int = 100) -> list[str]:
        """Returns the names that match a pattern, sorted; at most the first of them."""
        return sorted(path.relative_to(self.folder).as_posix() for path in self.folder.glob(pattern))[:most]

    def text(self, name: str) -> str:
        """Returns the content of a text file; bytes that are not UTF-8 are replaced."""
        path = self.find(name)
        if path is None:
            return ""
        try:
            content = read_bytes(path, _MOST_BYTES, "text")
        except UserError as error:
            self._note(name, str(error))
            return ""
        text = content.decode("utf-8", errors="replace").replace("\0", "")
        if text.encode() != content.removeprefix(b"\xef\xbb\xbf"):
            self._note(name, "holds bytes that are no text")
        return text.removeprefix("\ufeff")

    def json(self, name: str) -> dict[str, Any]:
        """Returns the object in a JSON file."""
        text = self.text(name)
        if not text:
            return {}
        try:
            content = check_plain(json.loads(text))
        except (UserError, ValueError, RecursionError) as error:
            self._note(name, str(error))
            return {}
        if not isinstance(content, dict):
            self._note(name, f"holds a {type(content).__name__}, expected an object")
            return {}
        return content

    def table(self, name: str) -> list[dict[str, str]]:
        """Returns the complete rows of a CSV file; a run that is still writing may have cut the last one."""
        text = self.text(name)
        rows: list[dict[str, str]] = []
        left = _MOST_CELLS
        try:
            for row in csv.DictReader(io.StringIO(text, newline="")):
                left -= len(row)
                if left < 0:
                    self._note(name, f"has more than {_MOST_CELLS:,} values; shown are the first {len(rows):,} rows")
                    break
                if None not in row and None not in row.values():
                    rows.append(row)
        except csv.Error as error:
            self._note(name, f"row {len(rows) + 1}: {error}")
        return rows

    def first_rows(self, name: str) -> list[dict[str, str]]:
        """Returns the rows of a CSV file for a table on the page, which has at most 1,000 of them."""
        rows = self.table(name)
        if len(rows) > _MOST_ROWS:
            self._note(name, f"shown are the first {_MOST_ROWS:,} of {len(rows):,} rows")
        return rows[:_MOST_ROWS]

    def picture(self, name: str) -> Image.Image | None:
        """Returns the pixels of an image file, without anything else that the file may hold."""
        path = self.find(name)
        if path is None:
            return None
        try:
            height, width = stored_size(path)
            if height * width > _MOST_PIXELS:
                raise BadImage(f"has {width} x {height} pixels, too many for a page")
            pixels = decode(read_file(path), name)
        except BadImage as error:
            self._note(name, str(error))
            return None
        return Image.fromarray(pixels.permute(1, 2, 0).contiguous().numpy())

    def number(self, name: str, value: object, column: str = "") -> float | None:
        """Returns a value that should be a finite number, e.g. a cell of a table; None, with a note, for another one.

        An empty cell is a missing value, and NaN is not finite; neither is noted.

        Args:
            name: The file.
            value: The value.
            column: The column of a table; its wrong cells are counted.
        """
        if value is None or value == "":
            return None
        try:
            number = float(value) if isinstance(value, str | int | float) and not isinstance(value, bool) else None
        except (ValueError, OverflowError):
            number = None
        if number is None:
            self._count(name, column, lambda: f"{column} holds {readable(str(value)[:80])[:40]!r}, expected a number")
            return None
        return number if math.isfinite(number) else None

    def _note(self, name: str, problem: str) -> None:
        self._problems.setdefault((name, problem), (problem, 0))

    def _count(self, name: str, kind: str, describe: Callable[[], str]) -> None:
        """Notes a problem that may occur in every value of a file; only the first one is described."""
        first, more = self._problems.get((name, kind), (None, -1))
        self._problems[name, kind] = (describe() if first is None else first, more + 1)
