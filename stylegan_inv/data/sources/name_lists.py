"""Text files of image names, and matching of names with the images of a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError

#: Size limit of a list of names.
_MAX_LIST_BYTES = 1 << 28


def read_text(path: Path) -> str:
    """Returns the content of a text file of names.

    Raises:
        UserError: The file cannot be read, is not UTF-8 text, or is too large.
    """
    try:
        if path.stat().st_size > _MAX_LIST_BYTES:
            raise UserError(f"{path}: {path.stat().st_size:,} bytes, expected a list of at most {_MAX_LIST_BYTES:,}")
        return path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise UserError(
            f"{path}: cannot be opened ({(error.strerror or str(error)).lower()}); expected a list"
        ) from error
    except UnicodeDecodeError as error:
        raise UserError(f"{path}: is not text (byte {error.start}), expected one name per line in UTF-8") from error


def read_names(path: Path) -> list[str]:
    """Returns the names in a text file, one per line; empty lines are skipped.

    Raises:
        UserError: The file is not text, or holds no names, a name twice, or one that leads out of the file's folder.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = [name[2:] if name.startswith("./") else name for name in names]
    check_names(path, names, "names")
    return names


def stem(name: str) -> str:
    """Returns a name without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


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
