"""Images that lie somewhere in large files, read by their places."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from stylegan_inv.data.images.decoding import MAX_BYTES, BadImage
from stylegan_inv.data.sources.source import Names, Source

T = TypeVar("T")
_MAX_OPEN = 32


class PerProcess(Generic[T]):
    """Something opened anew in every process that uses it, as processes share file positions after a fork."""

    def __init__(self, open_it: Callable[[], T]) -> None:
        self._open, self._opened, self._of = open_it, list[T](), -1

    def get(self) -> T:
        """It, open."""
        if self._of != os.getpid():
            self._opened, self._of = [self._open()], os.getpid()
        return self._opened[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._open,)


class ArchiveSource(Source):
    """Whole image files inside of larger files.

    Args:
        path: What the user gave.
        names: Of the images.
        files: The larger files.
        places: Number of the file, offset and length in bytes for each image.
    """

    def __init__(
        self, path: Path, names: Sequence[str], files: Sequence[Path], places: Sequence[tuple[int, int, int]]
    ) -> None:
        self.path, self.names, self.files = path, Names(names), list(files)
        self._places = np.array(places, dtype=np.int64)
        self._open_files: PerProcess[dict[int, BinaryIO]] = PerProcess(dict)

    def where(self, index: int) -> str:  # noqa: D102
        archive = self.path if len(self.files) == 1 else self.files[self._places[index, 0]]
        return f"{archive}: {self.names[index]}"

    def read(self, index: int) -> bytes:  # noqa: D102
        number, offset, length = self._places[index].tolist()
        if length > MAX_BYTES:
            raise BadImage(f"{self.where(index)}: {length:,} bytes, expected an image of at most {MAX_BYTES:,}")
        files = self._open_files.get()
        try:
            if number not in files:
                if len(files) >= _MAX_OPEN:  # a training visits all shards at once
                    files.pop(next(iter(files))).close()
                files[number] = open(self.files[number], "rb")
            files[number].seek(offset)
            data = files[number].read(length)
        except OSError as error:
            raise BadImage(f"{self.where(index)}: cannot be read ({error.strerror or error})") from error
        if len(data) != length:
            raise BadImage(f"{self.where(index)}: the file ends before the image does")
        return data
