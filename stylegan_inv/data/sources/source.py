"""The interface of all sources of encoded images: named images in a fixed order, each read as bytes.

Results are written to files with the names of the source, so names that would leave the output folder are rejected.
"""

from __future__ import annotations

import hashlib
import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.data.images.image_files import SUFFIXES, name_list
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import file_identity

_MAX_NAME = 1024
#: Line breaks and other control characters, which no name of a real file has.
_CONTROL = re.compile("[\x00-\x1f\x7f-\x9f]")


class CompactStrings(Sequence[str]):
    """An immutable list of strings, stored in two arrays.

    Reading a ``str`` changes its reference count, which copies its memory page into the worker process that reads it.
    With a list of a million names the memory of every worker would grow over an epoch; arrays stay shared.

    Args:
        strings: The strings.
    """

    def __init__(self, strings: Iterable[str]) -> None:
        parts = [os.fsencode(string) for string in strings]
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
        path: Folder or archive of the images.
        names: Name of each image: a unique relative path with forward slashes.
        left_out: Names of image files in formats that cannot be read, such as GIF; they are not among the images.
    """

    path: Path
    names: Sequence[str]
    left_out: Sequence[str] = ()

    def __len__(self) -> int:
        return len(self.names)

    @property
    def classes(self) -> np.ndarray | None:
        """Class of each image, (N,) int64; None if the source has no classes. The file is read on first use.

        Raises:
            UserError: The source has a file of classes that does not give each image one class.
        """
        return None

    def stored_in(self) -> Iterable[Path]:
        """Yields the files on disk that hold the images."""
        return [self.path]

    def whole(self) -> Source:
        """Returns the source of all images of which this one has some."""
        return self

    def identity(self) -> str:
        """Returns a hash of the names and of the files, by which an interrupted command knows its images again."""
        digest = hashlib.sha256()
        for part in (*self.names, "", *(repr(file_identity(file)) for file in self.stored_in())):
            digest.update(os.fsencode(part) + b"\0")
        return digest.hexdigest()

    @abstractmethod
    def read(self, index: int) -> bytes:
        """Returns the bytes of an image file.

        Raises:
            BadImage: The file cannot be read.
        """

    def where(self, index: int) -> str:
        """Returns the location of an image, for messages."""
        return f"{self.path}: {self.names[index]}"

    def subset(self, indices: Sequence[int] | np.ndarray) -> Source:
        """Returns a source of some of the images, in the order of ``indices``."""
        return Subset(self, indices)


class Subset(Source):
    """Some images of another source.

    Args:
        source: The other source.
        indices: Indices of the images.
    """

    def __init__(self, source: Source, indices: Sequence[int] | np.ndarray) -> None:
        self.source, self.indices, self.path = source, np.asarray(indices, dtype=np.int64), source.path
        self.names = CompactStrings(source.names[index] for index in self.indices.tolist())
        self.left_out = source.left_out

    @property
    def classes(self) -> np.ndarray | None:  # noqa: D102
        classes = self.source.classes
        return None if classes is None else classes[self.indices]

    def stored_in(self) -> Iterable[Path]:  # noqa: D102
        return self.source.stored_in()

    def whole(self) -> Source:  # noqa: D102
        return self.source.whole()

    def read(self, index: int) -> bytes:  # noqa: D102
        return self.source.read(int(self.indices[index]))

    def where(self, index: int) -> str:  # noqa: D102
        return self.source.where(int(self.indices[index]))


def check_names(path: Path, names: Sequence[str], what: str = "images") -> None:
    """Checks that names are unique, valid file names, and stay below the folder that they are relative to.

    Args:
        path: Folder or archive of the names, for messages.
        names: The names.
        what: What they name, for messages.

    Raises:
        UserError: A name fails the check, or there is none.
    """
    if not names:
        raise UserError(f"{path}: holds no images, expected files that end in {', '.join(SUFFIXES[:5])} ...")
    for name in names:
        if (
            not 0 < len(name) <= _MAX_NAME
            or _CONTROL.search(name)
            or name.startswith("/")
            or re.match("[A-Za-z]:", name)
            or "\\" in name
            or any(part in ("", ".", "..") for part in name.split("/"))
        ):
            raise UserError(f"{path}: rejected, as the name {ascii(name)[:80]} leads out of a folder or is not valid")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
        raise UserError(
            f"{path}: {len(twice)} of {len(names)} {what} occur twice: {name_list(twice)}; expected each once"
        )
