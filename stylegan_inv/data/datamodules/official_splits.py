"""Locations and sizes of the splits of published datasets."""

from __future__ import annotations

from pathlib import Path

from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError


def find_split(root: Path, name: str) -> Path | None:
    """Returns the folder or archive of this name below ``root``, or None if there is none."""
    candidates = [root / name, *(root / f"{name}{suffix}" for suffix in (".zip", ".lmdb", ".tar", "_lmdb"))]
    return next((path for path in candidates if path.exists()), None)


def check_split_size(source: Source, split: str, expected: int) -> None:
    """Checks that a split has its official number of images; results on other splits are not comparable.

    Raises:
        UserError: The number of images differs.
    """
    if len(source) != expected:
        raise UserError(
            f"{source.path}: got {len(source)} {split} images, expected the {expected} of the official split; "
            "complete the download, or give dataset.check_sizes=false"
        )
