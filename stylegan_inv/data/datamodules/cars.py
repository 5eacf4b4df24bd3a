"""Stanford Cars for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.official_splits import check_split_size, find_split
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError


class CarsDataModule(FolderDataModule):
    """Stanford Cars: ``root/cars_train`` (8,144 images) and ``root/cars_test`` (8,041), cropped to 4:3.

    The content fills rows 32 to 223 of 256 x 256 pixels, between black bars, as in the images of the cars generator.
    The authors of e4e and ReStyle remove the bars of target and reconstruction before they compare them; here the
    ``mask`` excludes the bars. The authors also resize without keeping the proportions, as ``mode=stretch`` does.

    Args:
        root: Folder of the dataset.
        check_sizes: Whether to require the official number of images.
        aspect: Height and width of the content, as a proportion.
        domain: See :class:`.ImageDataModule`.
        **kwargs: See :class:`FolderDataModule`.
    """

    SIZES = {"train": 8144, "test": 8041}

    def __init__(
        self,
        *,
        root: str | Path,
        check_sizes: bool = True,
        aspect: Sequence[int] = (3, 4),
        domain: str = "cars",
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, aspect=aspect, domain=domain, **kwargs)
        self.check_sizes = check_sizes

    def images(self, split: str) -> Source:  # noqa: D102
        root, part = Path(str(self.root)), "train" if split == "train" else "test"
        path = find_split(root, f"cars_{part}") or find_split(root, part)
        if path is None:
            raise UserError(f"{root}: found neither cars_{part}/ nor {part}/, expected Stanford Cars")
        source = self._open(path)
        if self.check_sizes:
            check_split_size(source, part, self.SIZES[part])
        return source.subset(range(self.val_size)) if split == "val" and self.val_size else source
