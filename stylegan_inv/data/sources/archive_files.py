"""Image files inside larger files, read by their offsets."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, BinaryIO, Generic, TypeVar

import numpy as np

from stylegan_inv.data.images.decoding import MAX_BYTES, BadImage
from stylegan_inv.data.sources.source import CompactStrings, Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import open_regular

T = TypeVar("T")
#: Limit of open files per process.
_MAX_OPEN = 32


class PerProcess(Generic[T]):
    """A resource that every process opens for itself, as forked processes would share the position of an open file.

    Args:
        factory: Opens the resource.
    """

    def __init__(self, factory: Callable[[], T]) -> None:
        self._factory, self._opened, self._process = factory, list[T](), -1

    def get(self) -> T:
        """Returns the resource of this process, which is opened at the first call."""
        if self._process != os.getpid():
            self._opened, self._process = [self._factory()], os.getpid()
        return self._opened[0]

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self._factory,)


class ArchiveSource(Source):
    """Complete image files inside larger files.

    Args:
        path: Path of the dataset, for messages.
        names: Names of the images.
        files: The larger files.
        locations: Index of the file, offset and length in bytes of each image.
    """

    def __init__(
        self, path: Path, names: Sequence[str], files: Sequence[Path], locations: Sequence[tuple[int, int, int]]
    ) -> None:
        self.path, self.names, self.files = path, CompactStrings(names), list(files)
        self._locations = np.array(locations, dtype=np.int64)
        self._open_files: PerProcess[dict[int, BinaryIO]] = PerProcess(dict)

    def stored_in(self) -> Sequence[Path]:  # noqa: D102
        return self.files

    def where(self, index: int) -> str:  # noqa: D102
        archive = self.path if len(self.files) == 1 else self.files[self._locations[index, 0]]
        return f"{archive}: {self.names[index]}"

    def read(self, index: int) -> bytes:  # noqa: D102
        number, offset, length = self._locations[index].tolist()
        if length > MAX_BYTES:
            raise BadImage(f"{self.where(index)}: {length:,} bytes, expected an image of at most {MAX_BYTES:,}")
        files = self._open_files.get()
        try:
            if number not in files:
                if len(files) >= _MAX_OPEN:  # shuffled training reads from all shards
                    files.pop(next(iter(files))).close()
                files[number] = open_regular(self.files[number])
            files[number].seek(offset)
            data = files[number].read(length)
        except UserError as error:
            raise BadImage(f"{self.where(index)}: cannot be read ({error})") from error
        except OSError as error:
            raise BadImage(f"{self.where(index)}: cannot be read ({error.strerror or error})") from error
        if len(data) != length:
            raise BadImage(f"{self.where(index)}: the file ends before the image does")
        return data
