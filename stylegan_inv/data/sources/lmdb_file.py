"""Finds the values of an LMDB in its file, without the LMDB library.

The LMDB library does not validate its file: a damaged one makes it read outside of its mapping, which kills the
process. It also allows an LMDB to be open only once per process, and not across a fork. This module checks every page
number, offset and length before it uses them, and returns locations in the file, which any process can read.

Format: ``mdb.c`` of LMDB 0.9 (``MDB_meta``, ``MDB_page``, ``MDB_node``), little-endian with 8-byte page numbers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import file_size, open_regular

_PAGE = struct.Struct("<QHHHH")  # number, padding, flags, bounds of the free space
_META = struct.Struct("<LLQQ")  # magic, version, address, size of the mapping
_DB = struct.Struct("<LHH5Q")  # page size, flags, depth, three counts of pages, entries, root
_NODE = struct.Struct("<4H")  # lower and upper half of the value's length, flags, length of the key
_MAGIC, _VERSION, _EMPTY = 0xBEEFC0DE, 1, 2**64 - 1
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG = 1
_MAX_DEPTH = 32


def value_locations(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Yields key, offset and length of every value of the main database, by ascending key.

    Args:
        path: The ``data.mdb`` file.

    Raises:
        UserError: The file is no LMDB, truncated or damaged, or has named databases or duplicate keys.
    """
    size = 0
    try:
        with open_regular(path, "an LMDB") as file:
            if not (size := file_size(file)):
                raise _Damaged("is empty")
            with mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                yield from _Pages(data).walk()
    except UserError:
        raise
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({(error.strerror or str(error)).lower()})") from error
    except (_Damaged, struct.error, ValueError) as error:
        found = error if isinstance(error, _Damaged) else f"ends after {size:,} bytes, within a page"
        raise UserError(
            f"{path}: is not an LMDB, or damaged: {found}; expected the data.mdb of an LMDB, complete; download, "
            "copy or pack it again"
        ) from error


class _Damaged(Exception):
    """The file violates the format; the message says how."""


class _Pages:
    """The pages of an LMDB file.

    Args:
        data: The file.
    """

    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        metas = []
        size = self._meta(0)[0]
        for offset in (0, size):
            page_size, root, entries, last, transaction = self._meta(offset)
            metas.append((transaction, page_size, root, entries, last))
        _, self.size, self.root, self.entries, last = max(metas)
        if (last + 1) * self.size > len(data):
            raise _Damaged(f"has {len(data):,} bytes, not {(last + 1) * self.size:,}")
        self.remaining = last + 1  # limits the visits, so that a cycle of pages ends

    def _meta(self, page: int) -> tuple[int, int, int, int, int]:
        """Returns page size, root page, number of entries, last page and transaction of a meta page."""
        at = page + _PAGE.size
        magic, version, _, _ = _META.unpack_from(self.data, at)
        if magic != _MAGIC or version != _VERSION:
            raise _Damaged(f"byte {page:,} starts with {magic:#010x} of version {version}, not {_MAGIC:#x} of 1")
        at += _META.size
        size = _DB.unpack_from(self.data, at)[0]
        if size not in (1 << n for n in range(9, 17)):
            raise _Damaged(f"has pages of {size:,} bytes, not 512 to 65,536")
        *_, entries, root = _DB.unpack_from(self.data, at + _DB.size)
        last, transaction = struct.unpack_from("<QQ", self.data, at + 2 * _DB.size)
        return size, root, entries, last, transaction

    def walk(self) -> Iterator[tuple[bytes, int, int]]:
        """Yields key, offset and length of every value, depth first."""
        if self.root == _EMPTY:
            return
        pending = [(self.root, 0)]
        while pending:
            number, depth = pending.pop()
            start, flags, nodes = self._page(number)
            if depth > _MAX_DEPTH or not flags & (_BRANCH | _LEAF):
                raise _Damaged(f"page {number}, {depth} levels deep, has the flags {flags:#x}, not those of a tree")
            if flags & _BRANCH:
                children = [low | high << 16 | top << 32 for low, high, top, _ in (node for _, node in nodes)]
                pending += [(child, depth + 1) for child in reversed(children)]
                continue
            for at, (low, high, node_flags, key_length) in nodes:
                key_end = at + _NODE.size + key_length
                yield (self.data[at + _NODE.size : key_end], *self._value(start, key_end, low | high << 16, node_flags))

    def _page(self, number: int) -> tuple[int, int, list[tuple[int, tuple[int, ...]]]]:
        """Returns offset and flags of a page, and offset and header of each of its nodes."""
        self.remaining -= 1
        start = number * self.size
        if self.remaining < 0 or start + self.size > len(self.data):
            raise _Damaged(f"page {number} is missing or used twice")
        own, _, flags, lower, _ = _PAGE.unpack_from(self.data, start)
        if own != number or not _PAGE.size <= lower <= self.size or lower % 2:
            raise _Damaged(f"page {number} says that it is page {own}, of which {lower} bytes are used")
        nodes = []
        for (offset,) in struct.iter_unpack("<H", self.data[start + _PAGE.size : start + lower]):
            header = _NODE.unpack_from(self.data, start + offset)
            if offset < lower or offset + _NODE.size + header[3] > self.size:
                raise _Damaged(f"page {number} has an entry outside of the page")
            nodes.append((start + offset, header))
        return start, flags, nodes

    def _value(self, page: int, at: int, length: int, flags: int) -> tuple[int, int]:
        """Returns offset and length of the value of a node; large values are on pages of their own."""
        if flags & ~_BIG:
            raise _Damaged("has named databases, or several values for a key")
        if not flags & _BIG:
            if at + length > page + self.size:
                raise _Damaged(f"page {page // self.size} has a value that exceeds the page")
            return at, length
        (number,) = struct.unpack_from("<Q", self.data, at)
        start = number * self.size
        if start + _PAGE.size + length > len(self.data):
            raise _Damaged(f"a value of {length:,} bytes on page {number} exceeds the file")
        own, _, page_flags, _, _ = _PAGE.unpack_from(self.data, start)
        if own != number or not page_flags & _OVERFLOW:
            raise _Damaged(
                f"page {number}, of a large value, says that it is page {own} with the flags {page_flags:#x}"
            )
        return start + _PAGE.size, length
