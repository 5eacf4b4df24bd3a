"""Where images lie: a folder, a zip, an LMDB, tar shards or a list of files, behind one seam.

:func:`open_source` finds out what a path is. A :class:`Source` gives the bytes of image number i; decoding them is the
business of :mod:`~stylegan_inv.data.image_set`. Nothing is unpacked to disk, and a name that would lead out of a folder
is refused: results are written under these names.
"""

from __future__ import annotations

import os
import re
from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from pathlib import Path, PurePosixPath
from typing import Any

import numpy as np

from stylegan_inv.data.decoding import read_file
from stylegan_inv.data.images import SUFFIXES, list_images, name_list
from stylegan_inv.errors import UserError

_MAX_NAME = 1024
#: Of a list of images or of splits.
_MAX_LIST_BYTES = 1 << 28


class Names(Sequence[str]):
    """Strings in two arrays.

    A list of a million ``str`` would be copied page by page into every worker process, as reading one counts up its
    references: memory would grow over an epoch.
    """

    def __init__(self, names: Iterable[str]) -> None:
        parts = [os.fsencode(name) for name in names]
        self._text = np.frombuffer(b"".join(parts), np.uint8)
        self._ends = np.cumsum([0, *map(len, parts)])

    def __len__(self) -> int:
        return len(self._ends) - 1

    def __getitem__(self, index: Any) -> Any:
        if isinstance(index, slice):
            return [self[i] for i in range(len(self))[index]]
        index = range(len(self))[index]
        return os.fsdecode(self._text[self._ends[index] : self._ends[index + 1]].tobytes())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Sequence) and list(self) == list(other)


class Source(ABC):
    """Encoded images in a fixed order.

    Attributes:
        path: Where they lie.
        names: A name for each: a relative path with forward slashes, each only once.
        classes: A class number for each if the source has them, else None.
    """

    path: Path
    names: Sequence[str]
    classes: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.names)

    @abstractmethod
    def read(self, index: int) -> bytes:
        """The file of an image.

        Raises:
            BadImage: It cannot be read.
        """

    def where(self, index: int) -> str:
        """What to call an image in messages."""
        return f"{self.path}: {self.names[index]}"

    def choose(self, rows: Sequence[int] | np.ndarray) -> Source:
        """Some of the images, in the order of ``rows``."""
        return Chosen(self, rows)


class Chosen(Source):
    """Some images of another source."""

    def __init__(self, source: Source, rows: Sequence[int] | np.ndarray) -> None:
        self.source, self.rows, self.path = source, np.asarray(rows, dtype=np.int64), source.path
        self.names = Names(source.names[row] for row in self.rows.tolist())
        self.classes = None if source.classes is None else source.classes[self.rows]

    def read(self, index: int) -> bytes:  # noqa: D102
        return self.source.read(int(self.rows[index]))

    def where(self, index: int) -> str:  # noqa: D102
        return self.source.where(int(self.rows[index]))


class FolderSource(Source):
    """Image files below a folder.

    Args:
        path: The folder.
        files: These files instead of all; they need not lie in it.
    """

    def __init__(self, path: Path, files: Sequence[str | Path] | None = None) -> None:
        self.path = path
        paths = list_images(path) if files is None else [Path(file) for file in files]
        self.names = Names((f.relative_to(path) if f.is_relative_to(path) else f).as_posix() for f in paths)

    def file(self, index: int) -> Path:
        """The path of an image."""
        return self.path / self.names[index]

    def read(self, index: int) -> bytes:  # noqa: D102
        return read_file(self.file(index))

    def where(self, index: int) -> str:  # noqa: D102
        return str(self.file(index))


def open_source(path: str | Path | Source, resolution: int = 256) -> Source:
    """Find out what a path is and list its images.

    Args:
        path: A folder of images (with the folders below), a folder of tar shards, one shard, a pattern of shards
            (``train-{000..009}.tar`` or ``train-*.tar``), a zip, an LMDB, one image, or a text file with the path of an
            image in each line. A source is returned as it is.
        resolution: What is needed of sources that hold several sizes of each image.

    Raises:
        UserError: Nothing is there, or nothing that can be read as images, or an archive that is damaged or dangerous.
    """
    from stylegan_inv.data.source_lmdb import open_lmdb
    from stylegan_inv.data.source_shards import find_shards, open_shards
    from stylegan_inv.data.source_zip import ZipSource

    if isinstance(path, Source):
        return path
    if shards := find_shards(path):
        return open_shards(Path(path), shards)
    path = Path(path)
    if (path / "data.mdb").is_file() or path.suffix == ".mdb" or (path.is_file() and path.suffix == ".lmdb"):
        return open_lmdb(path, resolution)
    if not path.is_file():
        return FolderSource(path)
    if path.suffix.lower() in SUFFIXES:
        return FolderSource(path.parent, [path])
    if path.suffix.lower() in (".txt", ".lst", ".list"):
        return FolderSource(path.parent, [path.parent / name for name in read_names(path)])
    if path.suffix.lower() == ".zip":
        return ZipSource(path)
    raise UserError(
        f"{path}: is a {path.suffix or 'file without suffix'}, expected a folder of images, a .zip, an LMDB, .tar "
        "shards or a .txt with a path in each line"
    )


def check_names(path: Path, names: Sequence[str], what: str = "images") -> None:
    """Refuse names that occur twice, that lead out of a folder, or that no file can have.

    Raises:
        UserError: Names the first of them.
    """
    if not names:
        raise UserError(f"{path}: holds no images, expected files that end in {', '.join(SUFFIXES[:5])} ...")
    for name in names:
        if (
            not 0 < len(name) <= _MAX_NAME
            or not name.isprintable()
            or name.startswith("/")
            or re.match("[A-Za-z]:", name)
            or "\\" in name
            or any(part in ("", ".", "..") for part in name.split("/"))
        ):
            raise UserError(f"{path}: refused, as it holds the name {ascii(name)[:80]}, which leads out of a folder")
    if len(set(names)) < len(names):
        seen: set[str] = set()
        twice = list(dict.fromkeys(name for name in names if name in seen or seen.add(name)))  # type: ignore[func-returns-value]
        raise UserError(
            f"{path}: {len(twice)} of {len(names)} {what} occur twice: {name_list(twice)}; expected each once"
        )


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
