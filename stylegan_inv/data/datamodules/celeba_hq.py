"""CelebA-HQ for Lightning, alone and as the validation set of FFHQ."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.base import SPLITS
from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.official_splits import check_split_size, find_split
from stylegan_inv.data.sources.name_lists import read_text, stem
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of


class CelebAHQDataModule(FolderDataModule):
    """CelebA-HQ with its official split: 24,183 training, 2,993 validation and 2,824 test images.

    The split is that of CelebA, in which no person is in two splits. Two layouts are supported: ``root/train``,
    ``root/val`` and ``root/test`` (or ``train.zip`` ...); or the 30,000 images of CelebAMask-HQ with the file
    ``CelebA-HQ-to-CelebA-mapping.txt``, which gives the CelebA index of each image.

    Args:
        root: Folder of the dataset; may be an archive if ``mapping`` is given.
        mapping: Mapping file; None expects it in ``root``.
        check_sizes: Whether to require the official number of images.
        domain: See :class:`.ImageDataModule`.
        **kwargs: See :class:`FolderDataModule`.
    """

    SIZES = {"train": 24183, "val": 2993, "test": 2824}
    MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
    #: First CelebA index of the validation and of the test split (partition script of CelebAMask-HQ).
    BOUNDS = (162771, 182638)

    def __init__(
        self,
        *,
        root: str | Path,
        mapping: str | Path | None = None,
        check_sizes: bool = True,
        domain: str = "faces",
        **kwargs: Any,
    ) -> None:
        super().__init__(root=root, domain=domain, **kwargs)
        self.mapping, self.check_sizes = mapping, check_sizes

    def images(self, split: str) -> Source:  # noqa: D102
        root = Path(str(self.root))
        mapping = root / self.MAPPING if self.mapping is None else Path(self.mapping)
        if path := find_split(root, split):
            source = self._open(path)
        elif mapping.is_file():
            source = self._by_mapping(self._open(root), mapping, split)
        else:
            raise UserError(
                f"{root}: found neither the folder {split}/ nor {self.MAPPING}; expected CelebA-HQ divided into "
                "train/, val/ and test/, or CelebAMask-HQ as it is distributed (or give dataset.mapping=<file>)"
            )
        if self.check_sizes:
            check_split_size(source, split, self.SIZES[split])
        return source.subset(range(self.val_size)) if split == "val" and self.val_size is not None else source

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
        # CelebAMask-HQ stores its masks below the same root, as 00000_hair.png; their names are no numbers.
        numbers = [stem(name).rpartition("/")[2] for name in source.names]
        rows = [row for row, n in enumerate(numbers) if n.isdecimal() and split_of.get(int(n)) == split]
        if not rows:
            raise UserError(
                f"{source.path}: no image is in the {split} split of {mapping}; expected 0.jpg to 29999.jpg"
            )
        return source.subset(rows)


class FFHQCelebAHQDataModule(FolderDataModule):
    """Trains on FFHQ and evaluates on CelebA-HQ, as the papers do.

    Args:
        celeba_hq_root: Root of CelebA-HQ, see :class:`CelebAHQDataModule`.
        celeba_hq_mapping: Mapping file of CelebA-HQ, see :class:`CelebAHQDataModule`.
        validation_split: ``test`` validates on the 2,824 test images, as the authors do; ``val`` uses the validation
            split and keeps the test images for the final test.
        check_sizes: Whether to require the official number of images of CelebA-HQ.
        val_size: Number of validation images; None uses all.
        domain: See :class:`.ImageDataModule`.
        **kwargs: See :class:`FolderDataModule`. Paths are those of FFHQ; the other arguments apply to both datasets.
    """

    def __init__(
        self,
        *,
        celeba_hq_root: str | Path,
        celeba_hq_mapping: str | Path | None = None,
        validation_split: str = "test",
        check_sizes: bool = True,
        val_size: int | None = None,
        domain: str = "faces",
        **kwargs: Any,
    ) -> None:
        super().__init__(**{**kwargs, "val_root": celeba_hq_root, "val_size": val_size, "domain": domain})
        self.validation_split = one_of("dataset.validation_split", validation_split, ("val", "test"))
        self.celeba_hq = CelebAHQDataModule(
            root=celeba_hq_root, mapping=celeba_hq_mapping, check_sizes=check_sizes, resolution=self.resolution
        )

    def images(self, split: str) -> Source:  # noqa: D102
        if split == "train":
            return super().images(split)
        images = self.celeba_hq.images(self.validation_split if split == "val" else "test")
        if split == "val" and self.val_size is not None and self.val_size < len(images):
            return images.subset(range(self.val_size))
        return images
