"""LSUN for Lightning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.celeba_hq import place_of
from stylegan_inv.data.datamodules.image_folders import FolderDataModule
from stylegan_inv.errors import UserError


class LSUNDataModule(FolderDataModule):
    """A category of LSUN: ``root/church_outdoor_train_lmdb`` and ``root/church_outdoor_val_lmdb`` (300 images).

    Objects (``cat``, ``horse``, ``car`` ...) come as one ``root/cat`` or ``root/cat_lmdb`` without validation images:
    its last ``val_size`` are held out.

    Args:
        root: The folder of the databases.
        category: Its name there, e.g. ``church_outdoor``.
        **kwargs: See :class:`FolderDataModule`.
    """

    def __init__(self, *, root: str | Path, category: str, **kwargs: Any) -> None:
        if not re.fullmatch(r"\w+", category):
            raise UserError(f"dataset.category={category!r}: expected a category of LSUN, e.g. church_outdoor")
        places = [place_of(Path(root), f"{category}{part}") for part in ("_train", "_val", "")]
        if places[0] is None and places[2] is None:
            raise UserError(f"{root}: found neither {category}_train_lmdb nor {category}_lmdb, expected LSUN")
        if places[0] is not None and places[1] is not None:
            kwargs["val_root"] = places[1]
        super().__init__(root=places[0] or places[2], **kwargs)
