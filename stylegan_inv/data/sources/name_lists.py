"""Text files of image names, and matching of names with the images of a source."""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError
from stylegan_inv.utils import regular_files
from stylegan_inv.utils.text import readable, same_letters

#: Size limit of a list of names.
_MAX_LIST_BYTES = 1 << 28


def read_text(path: Path) -> str:
    """Returns the content of a text file of names.

    Raises:
        UserError: The file cannot be read, is not UTF-8 text, or is too large.
    """
    return regular_files.read_text(path, _MAX_LIST_BYTES, "a list")


def _lines(path: Path) -> list[str]:
    # Not `splitlines`, which takes U+2028 and U+0085, parts of names, for ends of lines.
    lines = (line.strip() for line in re.split("\r\n|\n|\r", read_text(path)))
    return [line for line in lines if line]


def read_names(path: Path) -> list[str]:
    """Returns the names in a text file, one per line; empty lines are skipped.

    Raises:
        UserError: The file is not text, or holds no names, a name twice, or one that leads out of the file's folder.
    """
    names = _lines(path)
    names = [name[2:] if name.startswith("./") else name for name in names]
    check_names(path, names, "names")
    return names


def read_paths(path: Path) -> list[Path]:
    """Returns the paths in a text file, one per line, relative to its folder or absolute; empty lines are skipped.

    Raises:
        UserError: The file is not text, or holds no paths, a path twice, or one that no file can have.
    """
    lines = _lines(path)
    if not lines:
        raise UserError(f"{path}: holds no paths, expected the path of an image in each line")
    if wrong := [line for line in lines if "\0" in line]:
        raise UserError(f"{path}: {ascii(wrong[0])[:80]} is no path, as it has a NUL character")
    paths = [path.parent / line for line in lines]
    paths = [Path(os.path.normpath(one)) if ".." in one.parts else one for one in paths]
    if twice := [line for line, count in Counter(map(os.path.normpath, paths)).items() if count > 1]:
        raise UserError(
            f"{path}: {len(twice)} of {len(lines)} paths occur twice: {name_list(twice)}; expected each once"
        )
    return paths


def stem(name: str) -> str:
    """Returns a name without its suffix, in the form in which names are compared."""
    path = PurePosixPath(name)
    return same_letters(readable(str(path.with_suffix("") if path.name else path)))  # "" and "/" have no name


def match(source: Source, names: Sequence[str], what: str, owner: str) -> list[int]:
    """Returns the index of each name in a source. Suffixes may differ: ``1.png`` is the mask of ``1.jpg``.

    Args:
        source: Source to search.
        names: Names to find.
        what: What the source holds, for messages, e.g. ``mask``.
        owner: What the names belong to, for messages.

    Raises:
        UserError: The source has no image of a name, or more than one.
    """
    rows: dict[str, int] = {}
    required = {stem(name) for name in names}
    for row, name in enumerate(source.names):
        if rows.setdefault(stem(name), row) != row and stem(name) in required:
            first = source.names[rows[stem(name)]]
            raise UserError(f"{source.path}: two {what}s with the same name, {first} and {name}; expected one of them")
    if missing := [stem(name) for name in names if stem(name) not in rows]:
        raise UserError(
            f"{source.path}: no {what} for {len(missing)} of {len(names)} {owner}: {name_list(missing)}; expected "
            f"files with these names and any suffix, got {len(source)} like {source.names[0]}"
        )
    return [rows[stem(name)] for name in names]
