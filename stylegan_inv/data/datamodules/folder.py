"""A folder of images as a data set."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.image_set import ImageSet
from stylegan_inv.data.images.resizing import Geometry, Mode
from stylegan_inv.data.sources.folder_source import FolderSource


class FolderImages(ImageSet):
    """Images of a folder (and the folders below), cut and resized to a square.

    Args:
        root: The folder.
        resolution: Side of the square.
        mode: See :class:`.Geometry`.
        files: Use these files instead of listing ``root``; they need not lie in it.
        **kwargs: See :class:`.ImageSet`.

    Raises:
        UserError: No such folder, no image in it, or a bad argument.
    """

    def __init__(
        self,
        root: str | Path,
        resolution: int = 256,
        *,
        mode: Mode = "crop",
        files: Sequence[str | Path] | None = None,
        **kwargs: Any,
    ) -> None:
        geometry = Geometry(resolution, mode)
        super().__init__(FolderSource(Path(root), files), geometry, **kwargs)
        self.root, self.resolution = Path(root), resolution

    @property
    def files(self) -> list[Path]:
        """The paths of all images."""
        return [self.root / name for name in self.source.names]
