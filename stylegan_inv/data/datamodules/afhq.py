"""AFHQ for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.celeba_hq import check_size, place_of
from stylegan_inv.data.datamodules.image_folders import FolderDataModule
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError

DOMAINS = ("cat", "dog", "wild")
#: Images of each domain (StarGAN v2's download script, README of clovaai/stargan-v2): training and test.
SIZES = {
    1: {"train": (5153, 4739, 4738), "test": (500, 500, 500)},
    2: {"train": (5065, 4678, 4593), "test": (493, 491, 483)},
}


class AFHQDataModule(FolderDataModule):
    """AFHQ, 512 px: ``root/train/{cat,dog,wild}`` and ``root/test`` (or ``root/val``, as version 1 calls it).

    There is no third split: validation and test are the same images.

    Args:
        root: The folder.
        domains: Which animals.
        version: 1, or 2, whose images were resized better.
        check_sizes: Insist on the official sizes.
        **kwargs: See :class:`FolderDataModule`.
    """

    def __init__(
        self,
        *,
        root: str | Path,
        domains: Sequence[str] = DOMAINS,
        version: int = 1,
        check_sizes: bool = True,
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, **kwargs)
        domains = [domains] if isinstance(domains, str) else list(domains)
        if not domains or set(domains) - set(DOMAINS):
            raise UserError(f"dataset.domains={domains}: expected some of {', '.join(DOMAINS)}")
        if version not in SIZES:
            raise UserError(f"dataset.version={version}: expected 1 or 2")
        self.domains, self.version, self.check_sizes = domains, version, check_sizes

    def images(self, split: str) -> Source:  # noqa: D102
        root = Path(str(self.root))
        place = place_of(root, "train") if split == "train" else place_of(root, "test") or place_of(root, "val")
        if place is None:
            raise UserError(f"{root}: found no {'train/' if split == 'train' else 'test/ or val/'}, expected AFHQ")
        source = self._open(place)
        rows = [row for row, name in enumerate(source.names) if name.split("/")[0] in self.domains]
        if not rows:
            raise UserError(
                f"{place}: no images of {', '.join(self.domains)}; expected the folders {', '.join(DOMAINS)}"
            )
        source = source.choose(rows)
        if self.check_sizes:
            sizes = dict(zip(DOMAINS, SIZES[self.version]["train" if split == "train" else "test"], strict=True))
            check_size(source, split, sum(sizes[domain] for domain in set(self.domains)))
        return source.choose(range(self.val_size)) if split == "val" and self.val_size else source
