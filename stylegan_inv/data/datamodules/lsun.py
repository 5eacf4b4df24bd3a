"""LSUN for Lightning."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.official_splits import domain_of_part, find_split
from stylegan_inv.errors import UserError

#: Category -> domain; any other category is of the domain ``photos``.
DOMAIN_OF = {"church_outdoor": "churches", "horse": "horses", "car": "cars"}


class LSUNDataModule(FolderDataModule):
    """A category of LSUN: ``root/church_outdoor_train_lmdb`` and ``root/church_outdoor_val_lmdb`` (300 images).

    Object categories (``cat``, ``horse``, ``car`` ...) have one LMDB, ``root/cat`` or ``root/cat_lmdb``, and no
    validation images. Their last ``val_size`` images are held out.

    Args:
        root: Folder of the LMDBs.
        category: Name of the category in the file names, e.g. ``church_outdoor``.
        domain: See :class:`.ImageDataModule`; None takes that of the category, see :data:`DOMAIN_OF`.
        **kwargs: See :class:`FolderDataModule`.

    Raises:
        UserError: There is no such category in ``root``, or it is of another domain.
    """

    def __init__(self, *, root: str | Path, category: str, domain: str | None = None, **kwargs: Any) -> None:
        if not re.fullmatch(r"\w+", category):
            raise UserError(f"dataset.category={category!r}: expected a category of LSUN, e.g. church_outdoor")
        train, val, whole = (find_split(Path(root), f"{category}{part}") for part in ("_train", "_val", ""))
        if train is None and whole is None:
            raise UserError(f"{root}: found neither {category}_train_lmdb nor {category}_lmdb, expected LSUN")
        if train is not None and val is not None:
            kwargs["val_root"] = val
        super().__init__(
            root=train or whole, domain=domain_of_part("dataset.category", category, DOMAIN_OF, domain), **kwargs
        )
