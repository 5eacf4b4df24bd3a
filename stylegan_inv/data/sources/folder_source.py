"""Image files of a folder or of a list as a source."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from stylegan_inv.data.images.decoding import read_file
from stylegan_inv.data.images.image_files import list_images
from stylegan_inv.data.sources.class_labels import read_classes
from stylegan_inv.data.sources.source import CompactStrings, Source


class FolderSource(Source):
    """Image files in a folder and its subfolders.

    Args:
        path: The folder.
        files: Files to use instead of listing the folder; they may be outside of it.
    """

    def __init__(self, path: Path, files: Sequence[str | Path] | None = None) -> None:
        self.path, self._is_listed = path, files is None
        paths = list_images(path) if files is None else [Path(file) for file in files]
        self.names = CompactStrings((f.relative_to(path) if f.is_relative_to(path) else f).as_posix() for f in paths)

    def file(self, index: int) -> Path:
        """Returns the path of an image."""
        return self.path / self.names[index]

    @functools.cached_property
    def classes(self) -> np.ndarray | None:  # noqa: D102
        return read_classes(self.path, self.names) if self._is_listed else None

    def read(self, index: int) -> bytes:  # noqa: D102
        return read_file(self.file(index))

    def where(self, index: int) -> str:  # noqa: D102
        return str(self.file(index))
