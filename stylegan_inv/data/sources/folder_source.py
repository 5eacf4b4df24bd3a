"""Image files of a folder or of a list as a source."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from stylegan_inv.data.images.decoding import read_file
from stylegan_inv.data.images.image_files import find_images
from stylegan_inv.data.sources.class_labels import read_classes
from stylegan_inv.data.sources.source import CompactStrings, Source


class FolderSource(Source):
    """Image files in a folder and its subfolders.

    Args:
        path: The folder.
        files: Files to use instead of listing the folder. If one of them is outside of it, the names of all are
            relative to the folder that holds them all, as results are written to files of these names.
    """

    def __init__(self, path: Path, files: Sequence[str | Path] | None = None) -> None:
        self.path, self._is_listed = path, files is None
        if files is None:
            found = find_images(path)
            paths, self._base = found.images, path
            self.left_out = [file.relative_to(path).as_posix() for file in found.others]
        else:
            paths = [Path(file) for file in files]
            if all(file.is_relative_to(path) for file in paths):
                self._base = path
            else:
                paths = [file.absolute() for file in paths]
                self._base = Path(os.path.commonpath([file.parent for file in paths]))
        self.names = CompactStrings(file.relative_to(self._base).as_posix() for file in paths)

    def file(self, index: int) -> Path:
        """Returns the path of an image."""
        return self._base / self.names[index]

    def stored_in(self) -> Iterable[Path]:  # noqa: D102
        return map(self.file, range(len(self)))

    @functools.cached_property
    def classes(self) -> np.ndarray | None:  # noqa: D102
        return read_classes(self.path, self.names) if self._is_listed else None

    def read(self, index: int) -> bytes:  # noqa: D102
        return read_file(self.file(index))

    def where(self, index: int) -> str:  # noqa: D102
        return str(self.file(index))
