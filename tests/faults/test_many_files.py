"""Folders of very many files: the work grows with their number, not with its square."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from stylegan_inv.data.images.image_files import distinct_names, storable_name
from stylegan_inv.evaluate import image_pairs
from stylegan_inv.utils.text import same_letters

COUNT = 20_000


def test_pairs_of_many_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """FFHQ has 70,000; a set for each of them took hours."""
    for folder in ("images", "targets"):
        (tmp_path / folder).mkdir()
        for number in range(COUNT):
            (tmp_path / folder / f"{number}.png").touch()
    (tmp_path / "targets" / "more.png").touch()
    monkeypatch.setattr(image_pairs, "check_image", lambda path: None)
    monkeypatch.setattr(image_pairs, "read_image", lambda path: _Square())
    started = time.process_time()
    pairs = image_pairs.match_folders(tmp_path / "images", tmp_path / "targets", None, None, "skip")
    assert time.process_time() - started < 10
    assert len(pairs.names) == COUNT and pairs.unmatched == ["targets: more.png"]


class _Square:
    shape = (3, 8, 8)


@pytest.mark.parametrize("kind", ["long", "case"])
def test_many_names_that_are_one_on_some_disks(kind: str) -> None:
    """Names of which the end is cut, and those that differ in upper and lower case."""
    if kind == "long":
        names = [storable_name("x" * 240 + f"{number:06d}.png") for number in range(COUNT)]
    else:
        bits = [[character.upper() if number >> place & 1 else character for place, character in enumerate("a" * 15)]
                for number in range(COUNT)]  # fmt: skip
        names = ["".join(letters) + ".png" for letters in bits]
    started = time.process_time()
    found = distinct_names(names, ".png")
    assert time.process_time() - started < 10
    assert len({same_letters(name).casefold() for name in found}) == COUNT
