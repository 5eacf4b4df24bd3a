"""Image files in a folder, or from a list, as a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from stylegan_inv.data.images.decoding import read_file
from stylegan_inv.data.images.image_files import list_images
from stylegan_inv.data.sources.source import Names, Source


class FolderSource(Source):
    """Image files below a folder.

    Args:
        path: The folder.
        files: These files instead of all; they need not lie in it.
    """

    def __init__(self, path: Path, files: Sequence[str | Path] | None = None) -> None:
        self.path = path
        paths = list_images(path) if files is None else [Path(file) for file in files]
        self.names = Names((f.relative_to(path) if f.is_relative_to(path) else f).as_posix() for f in paths)

    def file(self, index: int) -> Path:
        """The path of an image."""
        return self.path / self.names[index]

    def read(self, index: int) -> bytes:  # noqa: D102
        return read_file(self.file(index))

    def where(self, index: int) -> str:  # noqa: D102
        return str(self.file(index))
