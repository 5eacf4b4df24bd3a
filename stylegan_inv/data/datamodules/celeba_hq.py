"""CelebA-HQ for Lightning, and FFHQ with it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.base import SPLITS
from stylegan_inv.data.datamodules.image_folders import FolderDataModule
from stylegan_inv.data.sources.name_lists import read_text, stem
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError


class CelebAHQDataModule(FolderDataModule):
    """CelebA-HQ with its official split: 24,183 training, 2,993 validation and 2,824 test images.

    The split is CelebA's own, which has nobody on two sides. Two layouts: ``root/train``, ``root/val`` and
    ``root/test`` (or ``train.zip`` ...); or the 30,000 images of CelebAMask-HQ with the file
    ``CelebA-HQ-to-CelebA-mapping.txt``, which says where each came from in CelebA.

    Args:
        root: The folder; an archive with ``mapping``.
        mapping: The mapping file, if it is not in ``root``.
        check_sizes: Insist on the official sizes; numbers on other splits do not compare with published ones.
        **kwargs: See :class:`FolderDataModule`.
    """

    SIZES = {"train": 24183, "val": 2993, "test": 2824}
    MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
    #: First CelebA index of validation and of test, as CelebAMask-HQ's own partition script has them.
    BOUNDS = (162771, 182638)

    def __init__(
        self, *, root: str | Path, mapping: str | Path | None = None, check_sizes: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.mapping, self.check_sizes = mapping, check_sizes

    def images(self, split: str) -> Source:  # noqa: D102
        root = Path(str(self.root))
        mapping = root / self.MAPPING if self.mapping is None else Path(self.mapping)
        if place := place_of(root, split):
            source = self._open(place)
        elif mapping.is_file():
            source = self._by_mapping(self._open(root), mapping, split)
        else:
            raise UserError(
                f"{root}: found neither the folder {split}/ nor {self.MAPPING}; expected CelebA-HQ divided into "
                "train/, val/ and test/, or CelebAMask-HQ as it is distributed (or give dataset.mapping=<file>)"
            )
        if self.check_sizes:
            check_size(source, split, self.SIZES[split])
        return source.choose(range(self.val_size)) if split == "val" and self.val_size is not None else source

    def _by_mapping(self, source: Source, mapping: Path, split: str) -> Source:
        split_of: dict[int, str] = {}
        for number, line in enumerate(read_text(mapping).splitlines(), start=1):
            fields = line.split()
            if len(fields) < 2 or not (fields[0] + fields[1]).isdecimal():
                if number > 1 and fields:  # the first line is the header
                    raise UserError(f"{mapping}, line {number}: got {line[:60]!r}, expected 'idx orig_idx orig_file'")
                continue
            original = int(fields[1])
            split_of[int(fields[0])] = SPLITS[sum(original >= bound for bound in self.BOUNDS)]
        # The masks of CelebAMask-HQ lie below the same root, as 00000_hair.png.
        numbers = [stem(name).rpartition("/")[2] for name in source.names]
        rows = [row for row, n in enumerate(numbers) if n.isdecimal() and split_of.get(int(n)) == split]
        if not rows:
            raise UserError(
                f"{source.path}: no image is in the {split} split of {mapping}; expected 0.jpg to 29999.jpg"
            )
        return source.choose(rows)


class FFHQCelebAHQDataModule(FolderDataModule):
    """Train on FFHQ, measure on CelebA-HQ, as the papers do.

    Args:
        celeba_hq_root: See :class:`CelebAHQDataModule`.
        celeba_hq_mapping: The same.
        validation_split: ``test``: validate on the 2,824 test images as the authors do; ``val`` keeps them for the end.
        check_sizes: Insist on the official sizes.
        val_size: So many of the validation images; None takes all.
        **kwargs: See :class:`FolderDataModule`, of FFHQ; what is not about places concerns both.
    """

    def __init__(
        self,
        *,
        celeba_hq_root: str | Path,
        celeba_hq_mapping: str | Path | None = None,
        validation_split: str = "test",
        check_sizes: bool = True,
        val_size: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "val_root": celeba_hq_root, "val_size": val_size})
        if validation_split not in ("val", "test"):
            raise UserError(f"dataset.validation_split={validation_split}: expected val or test")
        self.validation_split = validation_split
        self.celeba_hq = CelebAHQDataModule(
            root=celeba_hq_root, mapping=celeba_hq_mapping, check_sizes=check_sizes, resolution=self.resolution
        )

    def images(self, split: str) -> Source:  # noqa: D102
        if split == "train":
            return super().images(split)
        images = self.celeba_hq.images(self.validation_split if split == "val" else "test")
        chosen = split == "val" and self.val_size is not None and self.val_size < len(images)
        return images.choose(range(self.val_size or 0)) if chosen else images


def place_of(root: Path, name: str) -> Path | None:
    """A folder or archive of this name below ``root``, if there is one."""
    places = [root / name, *(root / f"{name}{suffix}" for suffix in (".zip", ".lmdb", ".tar", "_lmdb"))]
    return next((place for place in places if place.exists()), None)


def check_size(source: Source, split: str, expected: int) -> None:
    """Raises UserError unless a split has the size that published numbers belong to."""
    if len(source) != expected:
        raise UserError(
            f"{source.path}: got {len(source)} {split} images, expected the {expected} of the official split; "
            "complete the download, or give dataset.check_sizes=false"
        )
