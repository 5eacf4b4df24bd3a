"""Stanford Cars for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.celeba_hq import check_size, place_of
from stylegan_inv.data.datamodules.image_folders import FolderDataModule
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError


class CarsDataModule(FolderDataModule):
    """Stanford Cars: ``root/cars_train`` (8,144 images) and ``root/cars_test`` (8,041), cut to 3:4.

    The picture fills 192 x 256 pixels of 256 x 256, rows 32 to 223, between black bars, as the pictures of the cars
    generator do. The authors of e4e and ReStyle take the bars off both sides before they compare: here the ``mask``
    leaves them out. They also resize without keeping the proportions: ``mode=stretch`` does.

    Args:
        root: The folder.
        check_sizes: Insist on the official sizes.
        aspect: Height and width of the content.
        **kwargs: See :class:`FolderDataModule`.
    """

    SIZES = {"train": 8144, "test": 8041}

    def __init__(
        self, *, root: str | Path, check_sizes: bool = True, aspect: Sequence[int] = (3, 4), **kwargs: Any
    ) -> None:
        super().__init__(root=root, aspect=aspect, **kwargs)
        self.check_sizes = check_sizes

    def images(self, split: str) -> Source:  # noqa: D102
        root, part = Path(str(self.root)), "train" if split == "train" else "test"
        place = place_of(root, f"cars_{part}") or place_of(root, part)
        if place is None:
            raise UserError(f"{root}: found neither cars_{part}/ nor {part}/, expected Stanford Cars")
        source = self._open(place)
        if self.check_sizes:
            check_size(source, part, self.SIZES[part])
        return source.choose(range(self.val_size)) if split == "val" and self.val_size else source
