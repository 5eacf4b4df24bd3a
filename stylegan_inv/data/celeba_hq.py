"""CelebA-HQ for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodule import SPLITS
from stylegan_inv.data.folders import FolderDataModule
from stylegan_inv.errors import UserError


class CelebAHQDataModule(FolderDataModule):
    """CelebA-HQ with its official split: 24,183 training, 2,993 validation and 2,824 test images.

    Two layouts: ``root/train``, ``root/val`` and ``root/test``; or the 30,000 images of CelebAMask-HQ in one folder
    below ``root`` with the file ``CelebA-HQ-to-CelebA-mapping.txt``, which says where each came from in CelebA.

    Args:
        root: The folder.
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

    def files(self, split: str) -> tuple[Path, Sequence[Path]]:  # noqa: D102
        assert self.root is not None
        root = Path(self.root)
        folder = root / split
        mapping = root / self.MAPPING if self.mapping is None else Path(self.mapping)
        files: Sequence[Path]
        if folder.is_dir():
            files = self._list(folder)
        elif mapping.is_file():
            folder, files = root, self._by_mapping(mapping)[split]
        else:
            raise UserError(
                f"{root}: found neither the folder {split}/ nor {self.MAPPING}; expected CelebA-HQ divided into "
                "train/, val/ and test/, or CelebAMask-HQ as it is distributed (or give dataset.mapping=<file>)"
            )
        if self.check_sizes and len(files) != self.SIZES[split]:
            raise UserError(
                f"{folder}: got {len(files)} {split} images, expected the {self.SIZES[split]} of the official split; "
                "complete the download, or give dataset.check_sizes=false"
            )
        return folder, files[: self.val_size] if split == "val" else files

    def _by_mapping(self, mapping: Path) -> dict[str, list[Path]]:
        assert self.root is not None
        split_of: dict[int, str] = {}
        for number, line in enumerate(mapping.read_text().splitlines(), start=1):
            fields = line.split()
            if len(fields) < 2 or not (fields[0] + fields[1]).isdigit():
                if number > 1 and fields:  # the first line is the header
                    raise UserError(f"{mapping}, line {number}: got {line[:60]!r}, expected 'idx orig_idx orig_file'")
                continue
            original = int(fields[1])
            split_of[int(fields[0])] = SPLITS[sum(original >= bound for bound in self.BOUNDS)]
        splits: dict[str, list[Path]] = {split: [] for split in SPLITS}
        for file in self._list(self.root):
            # The masks of CelebAMask-HQ lie below the same root, as 00000_hair.png.
            if file.stem.isdigit() and int(file.stem) in split_of:
                splits[split_of[int(file.stem)]].append(file)
        return splits
