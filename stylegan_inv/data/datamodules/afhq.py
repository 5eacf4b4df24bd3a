"""AFHQ for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.official_splits import check_split_size, domain_of_part, find_split
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of

ANIMALS = ("cat", "dog", "wild")
#: Number of training and test images of each animal, by version (clovaai/stargan-v2, README).
SIZES = {
    1: {"train": (5153, 4739, 4738), "test": (500, 500, 500)},
    2: {"train": (5065, 4678, 4593), "test": (493, 491, 483)},
}


class AFHQDataModule(FolderDataModule):
    """AFHQ, 512 px: ``root/train/{cat,dog,wild}`` and ``root/test``, which version 1 calls ``root/val``.

    AFHQ has no third split: validation and test use the same images.

    Args:
        root: Folder of the dataset.
        animals: Animals to use: ``cat``, ``dog``, ``wild``.
        version: 1 or 2; the images of version 2 are resized with a better filter.
        check_sizes: Whether to require the official number of images.
        domain: See :class:`.ImageDataModule`; None takes that of the animals: ``wild`` for ``wild`` alone, else
            ``photos``.
        **kwargs: See :class:`FolderDataModule`.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        animals: str | Sequence[str] = ("wild",),
        version: int = 1,
        check_sizes: bool = True,
        domain: str | None = None,
        **kwargs: Any,
    ) -> None:
        animals = [animals] if isinstance(animals, str) else list(animals)
        if not animals or set(animals) - set(ANIMALS):
            raise UserError(f"dataset.animals={animals}: expected some of {', '.join(ANIMALS)}")
        part = animals[0] if len(set(animals)) == 1 else str(animals)
        own = domain_of_part("dataset.animals", part, {"wild": "wild"}, domain)
        super().__init__(root=root, domain=own, **kwargs)
        self.version = one_of("dataset.version", version, SIZES)
        self.animals, self.check_sizes = animals, check_sizes

    def images(self, split: str) -> Source:  # noqa: D102
        root = Path(str(self.root))
        path = find_split(root, "train") if split == "train" else find_split(root, "test") or find_split(root, "val")
        if path is None:
            raise UserError(f"{root}: found no {'train/' if split == 'train' else 'test/ or val/'}, expected AFHQ")
        source = self._open(path)
        rows = [row for row, name in enumerate(source.names) if name.split("/")[0] in self.animals]
        if not rows:
            raise UserError(
                f"{path}: no images of {', '.join(self.animals)}; expected the folders {', '.join(ANIMALS)}"
            )
        source = source.subset(rows)
        if self.check_sizes:
            sizes = dict(zip(ANIMALS, SIZES[self.version]["train" if split == "train" else "test"], strict=True))
            check_split_size(source, split, sum(sizes[animal] for animal in set(self.animals)))
        return source.subset(range(self.val_size)) if split == "val" and self.val_size else source
