"""The interface of all sources of encoded images: named images in a fixed order, read one at a time as bytes.

Results are written under the names of a source, so a name that would lead out of a folder is refused.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.data.images.image_files import SUFFIXES, name_list
from stylegan_inv.errors import UserError

_MAX_NAME = 1024


class Names(Sequence[str]):
    """Strings in two arrays.

    A list of a million ``str`` would be copied page by page into every worker process, as reading one counts up its
    references: memory would grow over an epoch.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = [os.fsencode(name) for name in names]
        self._text = np.frombuffer(b"".join(parts), np.uint8)
        self._ends = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]].tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Source(ABC):
    """Encoded images in a fixed order.

    Attributes:
        path: Where they lie.
        names: A name for each: a relative path with forward slashes, each only once.
        classes: A class number for each if the source has them, else None.
    """

    path: Path
    names: Sequence[str]
    classes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The file of an image.

        Raises:
            BadImage: It cannot be read.
        """

    def where(self, index: int) -> str:
        """What to call an image in messages."""
        return f"{self.path}: {self.names[index]}"

    def choose(self, rows: Sequence[int] | np.ndarray) -> Source:
        """Some of the images, in the order of ``rows``."""
        return Chosen(self, rows)


class Chosen(Source):
    """Some images of another source."""

    def __init__(self, source: Source, rows: Sequence[int] | np.ndarray) -> None:
        self.source, self.rows, self.path = source, np.asarray(rows, dtype=np.int64), source.path
        self.names = Names(source.names[row] for row in self.rows.tolist())
        self.classes = None if source.classes is None else source.classes[self.rows]

    def read(self, index: int) -> bytes:  # noqa: D102
        return self.source.read(int(self.rows[index]))

    def where(self, index: int) -> str:  # noqa: D102
        return self.source.where(int(self.rows[index]))


def check_names(path: Path, names: Sequence[str], what: str = "images") -> None:
    """Refuse names that occur twice, that lead out of a folder, or that no file can have.

    Raises:
        UserError: Names the first of them.
    """
    if not names:
        raise UserError(f"{path}: holds no images, expected files that end in {', '.join(SUFFIXES[:5])} ...")
    for name in names:
        if (
            not 0 < len(name) <= _MAX_NAME
            or not name.isprintable()
            or name.startswith("/")
            or re.match("[A-Za-z]:", name)
            or "\\" in name
            or any(part in ("", ".", "..") for part in name.split("/"))
        ):
            raise UserError(f"{path}: refused, as it holds the name {ascii(name)[:80]}, which leads out of a folder")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
        raise UserError(
            f"{path}: {len(twice)} of {len(names)} {what} occur twice: {name_list(twice)}; expected each once"
        )
