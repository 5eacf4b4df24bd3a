"""Reports that a subcommand writes into its target folder, which tell that the folder is its own."""

from __future__ import annotations

import os
from pathlib import Path

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import real_path
from stylegan_inv.utils.plain_data import read_json_object

_MOST_BYTES = 1 << 30


def is_report(file: Path, key: str) -> bool:
    """Returns whether a file is a report with a list of this key, and not a file of the user with its name."""
    content = read_json_object(file, _MOST_BYTES)
    return isinstance(content.get("source"), str) and isinstance(content.get(key), list)


def check_target(source: Path, target: Path) -> None:
    """Checks that a folder can take the files that are made from a source.

    Raises:
        UserError: It is a file, or inside of the source, where its files would be images of the next call.
    """
    if real_path(target).is_relative_to(real_path(source)):
        raise UserError(f"{target}: is inside {source}; give a folder outside of it")
    if os.path.lexists(target) and not target.is_dir():
        raise UserError(f"{target}: is a file, expected a folder")


def check_report(file: Path, key: str) -> None:
    """Checks that a report would replace nothing but an earlier report.

    Args:
        file: The report; need not exist.
        key: Key of its list.

    Raises:
        UserError: The file exists and is not a report.
    """
    if file.exists() and not is_report(file, key):
        raise UserError(f"{file}: exists and was not written by this command; move it, or give another folder")
