"""Lists of the image files in a folder."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from stylegan_inv.data.images.image_files import (
    list_images,
)
from stylegan_inv.errors import UserError


def touch(folder: Path, *names: str) -> None:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()


def test_list_is_recursive_sorted_and_without_hidden_files(tmp_path):
    names = ["img10.png", "img2.png", "a/b/x.JPG", "a/y.jpeg", "z.webp", "01.tif", "1.tif", "ü/ name.bmp"]
    touch(tmp_path, *names, "notes.txt", "._img2.png", ".cache/c.png", "img2.png.bak")
    got = [path.relative_to(tmp_path).as_posix() for path in list_images(tmp_path)]
    assert got == ["01.tif", "1.tif", "a/b/x.JPG", "a/y.jpeg", "img2.png", "img10.png", "z.webp", "ü/ name.bmp"]


def test_list_follows_links_once(tmp_path):
    touch(tmp_path / "real", "a.png")
    (tmp_path / "set").mkdir()
    (tmp_path / "set" / "link").symlink_to(tmp_path / "real")
    (tmp_path / "real" / "loop").symlink_to(tmp_path / "set")
    assert [path.name for path in list_images(tmp_path / "set")] == ["a.png"]


def test_list_errors_name_the_other_files(tmp_path):
    with pytest.raises(UserError, match=r"nowhere.*no such folder.*exists is " + str(tmp_path)):
        list_images(tmp_path / "nowhere" / "deeper")
    (tmp_path / "empty").mkdir()
    with pytest.raises(UserError, match="empty: no images.*it is empty"):
        list_images(tmp_path / "empty")
    touch(tmp_path / "other", "a.heic", "b.heic", "c.txt", "README")
    with pytest.raises(UserError, match=r"2 \.heic, 1 \.txt, 1 without suffix"):
        list_images(tmp_path / "other")
    with pytest.raises(UserError, match="is a file"):
        list_images(tmp_path / "other" / "c.txt")


def test_folder_without_permission(tmp_path, monkeypatch):
    touch(tmp_path, "a.png", "secret/b.png")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("secret"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)  # root ignores the permissions that chmod sets
    with pytest.raises(UserError, match="secret: cannot list.*permissions"):
        list_images(tmp_path)
