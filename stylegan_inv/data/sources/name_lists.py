"""Text files of image names, and the search for named images in a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.data.sources.source import Source, check_names
from stylegan_inv.errors import UserError

#: Largest list of images or of splits.
_MAX_LIST_BYTES = 1 << 28


def read_text(path: Path) -> str:
    """A text file of names.

    Raises:
        UserError: It cannot be read, is no text, or is absurdly large.
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
        raise UserError(f"{path}: is no text (byte {error.start}), expected one name a line in UTF-8") from error


def read_names(path: Path) -> list[str]:
    """The names in a text file, one a line; empty lines do not count.

    Raises:
        UserError: No text, no names, a name twice, or one that leads out of the folder of the file.
    """
    names = [line.strip() for line in read_text(path).splitlines() if line.strip()]
    names = [name[2:] if name.startswith("./") else name for name in names]
    check_names(path, names, "names")
    return names


def stem(name: str) -> str:
    """A name without its suffix."""
    return str(PurePosixPath(name).with_suffix(""))


def match(source: Source, names: Sequence[str], what: str, wanted_by: str) -> list[int]:
    """The row of each name in a source; suffixes may differ, as those of ``1.jpg`` and its mask ``1.png`` do.

    Args:
        source: Where to look.
        names: What to find.
        what: It is, for messages: ``mask``.
        wanted_by: Whose names these are, for messages.

    Raises:
        UserError: Names of which the source has no image, or more than one.
    """
    rows: dict[str, int] = {}
    wanted = {stem(name) for name in names}
    for row, name in enumerate(source.names):
        if rows.setdefault(stem(name), row) != row and stem(name) in wanted:
            first = source.names[rows[stem(name)]]
            raise UserError(f"{source.path}: two {what}s of one name, {first} and {name}; expected one of them")
    if missing := [stem(name) for name in names if stem(name) not in rows]:
        raise UserError(
            f"{source.path}: no {what} for {len(missing)} of {len(names)} {wanted_by}: {name_list(missing)}; expected "
            f"files of these names with any suffix, got {len(source)} like {source.names[0]}"
        )
    return [rows[stem(name)] for name in names]
