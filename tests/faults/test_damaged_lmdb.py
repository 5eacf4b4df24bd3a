"""Damaged LMDBs: the line names the file, says what was found, and what to do; no damage is a crash."""

from __future__ import annotations

import io
import random
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image

from stylegan_inv.data.images.decoding import BadImage
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.errors import UserError

lmdb = pytest.importorskip("lmdb")


@pytest.fixture(scope="module")
def content(tmp_path_factory: pytest.TempPathFactory) -> bytes:
    """The ``data.mdb`` of 40 images: two levels of pages, small and large values."""
    folder = tmp_path_factory.mktemp("lmdb")
    buffer = io.BytesIO()
    Image.new("RGB", (8, 8)).save(buffer, "PNG")
    with lmdb.open(str(folder), map_size=1 << 22) as environment, environment.begin(write=True) as transaction:
        for number in range(40):
            transaction.put(b"8-%05d" % number, buffer.getvalue() + bytes(200 * number))
        transaction.put(b"length", b"40")
    return (folder / "data.mdb").read_bytes()


def put(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: data[:offset] + value + data[offset + len(value) :]


def in_both_metas(offset: int, value: bytes) -> Callable[[bytes], bytes]:
    return lambda data: put(4096 + offset, value)(put(offset, value)(data))


#: Damage -> what it does to the file, and what the line says.
DAMAGES: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "empty": (lambda data: b"", "is empty"),
    "short": (lambda data: data[:50], "ends after 50 bytes"),
    "cut": (lambda data: data[: len(data) // 2], "bytes, not "),
    "a picture": (lambda data: b"\x89PNG\r\n\x1a\n" * 2000, "byte 0 starts with 0x474e5089"),
    "version": (put(20, b"\x07"), "of version 7, not 0xbeefc0de of 1"),
    "page size": (in_both_metas(40, b"\x01\x00\x00\x00"), "has pages of 1 bytes"),
    "root": (in_both_metas(128, b"\xff\xff\xff\x00\x00\x00\x00\x00"), "page 16777215 is missing"),
    "length": (lambda data: data.replace(b"length40", b"length4x"), "'length' is '4x', expected 1 to 41"),
    "more images": (lambda data: data.replace(b"length40", b"length41"), "has no 8-00040"),
    "other keys": (lambda data: data.replace(b"8-000", b"8_000"), "no key like 256-00000"),
}


@pytest.mark.parametrize("damage", DAMAGES)
@pytest.mark.parametrize("inner", [False, True])
def test_the_line_names_file_and_fault(tmp_path: Path, content: bytes, damage: str, inner: bool) -> None:
    change, words = DAMAGES[damage]
    assert change(content) != content
    (tmp_path / "data.mdb").write_bytes(change(content))
    with pytest.raises(UserError) as error:
        open_source(tmp_path / "data.mdb" if inner else tmp_path, 8)
    line = str(error.value)
    assert line.startswith(f"{tmp_path / 'data.mdb'}: ") and words in line and "\n" not in line, line
    assert line.endswith("download, copy or pack it again")


def test_random_damage(tmp_path: Path, content: bytes) -> None:
    numbers = random.Random(0)
    places = [4096 * page + offset for page in range(len(content) // 4096) for offset in range(48)]
    outcomes = set()
    for _ in range(300):
        data = bytearray(content)
        for place in numbers.sample(places, numbers.randint(1, 8)):
            data[place] = numbers.choice([0, 1, 127, 128, 255])
        (tmp_path / "data.mdb").write_bytes(data)
        try:
            source = open_source(tmp_path / "data.mdb", 8)
            for index in range(len(source)):
                source.read(index)
            outcomes.add("read")
        except (UserError, BadImage) as error:
            assert str(error).startswith(f"{tmp_path / 'data.mdb'}: ") and "\n" not in str(error)
            assert "unpack" not in str(error) and "requires a buffer" not in str(error)
            outcomes.add("refused")
    assert outcomes == {"read", "refused"}
