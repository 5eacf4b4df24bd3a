"""Locations, sizes and domains of the splits of published datasets."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.domains import check_domain_name


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


def domain_of_part(name: str, value: str, domains: Mapping[str, str], given: str | None) -> str:
    """Returns the domain of the part of a data set that was chosen.

    Args:
        name: What the user calls the choice, e.g. ``dataset.category``.
        value: The choice.
        domains: Choice -> domain; any other choice is of the domain ``photos``.
        given: Domain that the user gave; None for any.

    Raises:
        UserError: The domain that the user gave is another one.
    """
    own = domains.get(value, "photos")
    if check_domain_name("dataset.domain", given) not in (None, own):
        raise UserError(f"{name}={value}: its images are of the domain {own}, got domain={given}; give domain={own}")
    return own
