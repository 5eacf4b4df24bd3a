"""Where the values of an LMDB lie in its file, found without LMDB.

LMDB trusts its file: a damaged one makes it read outside of its mapping, which ends the process. It also can be open
only once in a process and not across a fork. Here every page number, offset and length is checked before it is used,
and what comes out are places in a file, which any process can read.

Format: ``mdb.c`` of LMDB 0.9 (``MDB_meta``, ``MDB_page``, ``MDB_node``), little-endian with 8-byte page numbers.
"""

from __future__ import annotations

import mmap
import struct
from collections.abc import Iterator
from pathlib import Path

from stylegan_inv.errors import UserError

_PAGE = struct.Struct("<QHHHH")  # number, padding, flags, and the bounds of its free space
_META = struct.Struct("<LLQQ")  # magic, version, address, size of the mapping
_DB = struct.Struct("<LHH5Q")  # page size, flags, depth, three counts of pages, entries, root
_NODE = struct.Struct("<4H")  # two halves of a length, flags, length of the key
_MAGIC, _VERSION, _EMPTY = 0xBEEFC0DE, 1, 2**64 - 1
_BRANCH, _LEAF, _OVERFLOW = 1, 2, 4
_BIG = 1
_MAX_DEPTH = 32


def value_places(path: Path) -> Iterator[tuple[bytes, int, int]]:
    """Key, offset and length of every value of the main database, by ascending key.

    Args:
        path: ``data.mdb``.

    Raises:
        UserError: No LMDB, cut off, damaged, or with more than plain keys and values.
    """
    try:
        with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
            yield from _Pages(data).walk()
    except OSError as error:
        raise UserError(f"{path}: cannot be opened ({(error.strerror or str(error)).lower()})") from error
    except (_Damaged, struct.error, ValueError) as error:  # ValueError: an empty file
        raise UserError(f"{path}: is no LMDB, or damaged ({error}); download or copy it again") from error


class _Damaged(Exception):
    pass


class _Pages:
    def __init__(self, data: mmap.mmap) -> None:
        self.data = data
        metas = []
        size = self._meta(0)[0]
        for offset in (0, size):
            page_size, root, entries, last, transaction = self._meta(offset)
            metas.append((transaction, page_size, root, entries, last))
        _, self.size, self.root, self.entries, last = max(metas)
        if (last + 1) * self.size > len(data):
            raise _Damaged(f"has {len(data):,} bytes of {(last + 1) * self.size:,}")
        self.left = last + 1  # no page is visited twice

    def _meta(self, page: int) -> tuple[int, int, int, int, int]:
        at = page + _PAGE.size
        magic, version, _, _ = _META.unpack_from(self.data, at)
        if magic != _MAGIC or version != _VERSION:
            raise _Damaged("begins with something else")
        at += _META.size
        size = _DB.unpack_from(self.data, at)[0]
        if size not in (1 << n for n in range(9, 17)):
            raise _Damaged(f"has pages of {size} bytes")
        *_, entries, root = _DB.unpack_from(self.data, at + _DB.size)
        last, transaction = struct.unpack_from("<QQ", self.data, at + 2 * _DB.size)
        return size, root, entries, last, transaction

    def walk(self) -> Iterator[tuple[bytes, int, int]]:
        if self.root == _EMPTY:
            return
        waiting = [(self.root, 0)]
        while waiting:
            number, depth = waiting.pop()
            start, flags, nodes = self._page(number)
            if depth > _MAX_DEPTH or not flags & (_BRANCH | _LEAF):
                raise _Damaged(f"page {number} is out of place")
            if flags & _BRANCH:
                children = [low | high << 16 | top << 32 for low, high, top, _ in (node for _, node in nodes)]
                waiting += [(child, depth + 1) for child in reversed(children)]
                continue
            for at, (low, high, node_flags, key_length) in nodes:
                key_end = at + _NODE.size + key_length
                yield (self.data[at + _NODE.size : key_end], *self._value(start, key_end, low | high << 16, node_flags))

    def _page(self, number: int) -> tuple[int, int, list[tuple[int, tuple[int, ...]]]]:
        """Start, flags, and place and header of each node."""
        self.left -= 1
        start = number * self.size
        if self.left < 0 or start + self.size > len(self.data):
            raise _Damaged(f"page {number} is missing or used twice")
        own, _, flags, lower, _ = _PAGE.unpack_from(self.data, start)
        if own != number or not _PAGE.size <= lower <= self.size:
            raise _Damaged(f"page {number} is out of place")
        nodes = []
        for (offset,) in struct.iter_unpack("<H", self.data[start + _PAGE.size : start + lower]):
            header = _NODE.unpack_from(self.data, start + offset)
            if offset < lower or offset + _NODE.size + header[3] > self.size:
                raise _Damaged(f"page {number} has an entry outside of it")
            nodes.append((start + offset, header))
        return start, flags, nodes

    def _value(self, page: int, at: int, length: int, flags: int) -> tuple[int, int]:
        if flags & ~_BIG:
            raise _Damaged("has databases inside, or several values for a key")
        if not flags & _BIG:
            if at + length > page + self.size:
                raise _Damaged(f"page {page // self.size} has a value that leaves it")
            return at, length
        (number,) = struct.unpack_from("<Q", self.data, at)
        start = number * self.size
        if start + _PAGE.size + length > len(self.data):
            raise _Damaged(f"a value of {length:,} bytes on page {number} leaves the file")
        own, _, page_flags, _, _ = _PAGE.unpack_from(self.data, start)
        if own != number or not page_flags & _OVERFLOW:
            raise _Damaged(f"page {number} is out of place")
        return start + _PAGE.size, length
