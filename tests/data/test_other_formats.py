"""Image files in formats that are not read are counted and named, wherever images are listed."""

from __future__ import annotations

import io
import json
import logging
import sys
import tarfile
import types
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import AvifImagePlugin, Image, features

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.images import decoding
from stylegan_inv.data.images.decoding import BadImage, decode, stored_size
from stylegan_inv.data.images.image_files import find_images, is_image, left_out_lines
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.evaluate.image_pairs import match_folders
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.prepare import __main__ as prepare
from tests.cli import call
from tests.fake_run import make_run

LINE = "3 left out, whose formats are not read (2 .gif, 1 .heic): 1.gif, 3.heic, sub/2.GIF; convert them to PNG"


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos" / "sub").mkdir(parents=True)
    for name in ("a.png", "sub/b.jpg", "1.gif"):
        Image.new("RGB", (20, 20), (9, 90, 200)).save(tmp_path / "photos" / name)
    for name in ("sub/2.GIF", "3.heic", ".4.gif", "notes.txt", "movie.mp4"):
        (tmp_path / "photos" / name).write_bytes(b"GIF89a")
    return tmp_path / "photos"


def test_every_source_names_them(photos: Path, tmp_path: Path) -> None:
    files = [path for path in sorted(photos.rglob("*")) if path.is_file()]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive, tarfile.open(tmp_path / "a.tar", "w") as shard:
        for file in files:
            archive.write(file, file.relative_to(photos))
            shard.add(file, str(file.relative_to(photos)))
    for path in (photos, tmp_path / "a.zip", tmp_path / "a.tar"):
        source = open_source(path)
        assert sorted(source.names) == ["a.png", "sub/b.jpg"]
        assert sorted(source.left_out) == ["1.gif", "3.heic", "sub/2.GIF"], "neither hidden files nor other media"
        assert source.subset([0]).left_out == source.left_out
    assert left_out_lines(open_source(photos).left_out)[0].startswith(LINE) and left_out_lines([]) == []


def test_every_command_names_them(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare.main(["verify", str(photos), "--report", str(tmp_path / "verify.json"), "--workers", "0"])
    assert LINE in capsys.readouterr().out
    assert len(json.loads((tmp_path / "verify.json").read_text())["left_out"]) == 3
    prepare.main(["pack", str(photos), str(tmp_path / "a.zip"), "--workers", "0"])
    assert LINE in capsys.readouterr().out
    with zipfile.ZipFile(tmp_path / "a.zip") as archive:
        assert len(json.loads(archive.read("manifest.json"))["left_out"]) == 3
    prepare.main(["masks", "folder", str(photos), str(tmp_path / "masks"), "--workers", "0"])
    assert LINE in capsys.readouterr().out
    (tmp_path / "points.json").write_text('{"a": []}')
    with pytest.raises(SystemExit):
        points = str(tmp_path / "points.json")
        prepare.main(["align", str(photos), str(tmp_path / "faces"), "--landmarks", points, "--workers", "0"])
    assert LINE in capsys.readouterr().out
    run = make_run(tmp_path / "run")
    call(monkeypatch, invert, f"run={run}", f"input={photos}", f"output={tmp_path / 'out'}")
    assert LINE in capsys.readouterr().out
    left_out = json.loads((tmp_path / "out" / "left_out.json").read_text())
    assert left_out == {"unreadable": [], "not_finite": [], "other_formats": ["1.gif", "3.heic", "sub/2.GIF"]}
    assert match_folders(photos, photos, None, None).other_formats == [
        f"{what}: {name}" for what in ("images", "targets") for name in ("1.gif", "3.heic", "2.GIF")
    ]


def test_a_data_set_warns_once(photos: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        data = FolderDataModule(root=photos, resolution=16, val_size=1)
        data.images("train"), data.images("val")
    assert [LINE in record.getMessage() for record in caplog.records] == [True]


@pytest.mark.parametrize(
    "head, name",
    [
        (b"GIF89a\1\0\1\0", "a GIF"),
        (b"\0\0\0\x18ftypheic", "pip install 'stylegan_inv\\[heic\\]'"),
        (b"\0\0\0\x0cjP  \r\n\x87\n", "JPEG 2000"),
        (b"\xff\x0a\0\0", "JPEG XL"),
        (b"8BPS\0\1", "Photoshop"),
        (b"%PDF-1.7", "PDF"),
        (b"PK\3\4 ", "zip"),
        (b"\0\0\0\x18ftypisom", "a video"),
        (b"plain words", "text, not an image"),
    ],
)
def test_content_of_other_formats_is_named(head: bytes, name: str) -> None:
    with pytest.raises(BadImage, match=f"x.png: {name}|x.png: .*{name}"):
        decode(head + bytes(40) if not head.startswith(b"plain") else head, "x.png")


@pytest.mark.skipif(not features.check("avif"), reason="this Pillow has no AVIF")
def test_avif_is_read_wherever_images_are_listed(photos: Path, tmp_path: Path) -> None:
    """Against the pixels that it was made from; photographs have an orientation, and other images transparency."""
    ramp = np.add.outer(np.arange(48), np.arange(64)).astype(np.uint8) * 2
    picture = Image.fromarray(np.stack([ramp, ramp[::-1], ramp[:, ::-1]], -1))
    picture.save(photos / "c.avif", quality=100, subsampling="4:4:4")
    assert is_image("c.avif") and stored_size(photos / "c.avif") == (48, 64)
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.write(photos / "c.avif", "c.avif")
    for source in (open_source(photos), open_source(tmp_path / "a.zip")):
        pixels = decode(source.read(list(source.names).index("c.avif")), "c.avif").permute(1, 2, 0).numpy().astype(int)
        assert pixels.shape == (48, 64, 3) and np.abs(pixels - np.asarray(picture)).max() <= 6
    exif = Image.Exif()
    exif[0x0112] = 6  # turned to the right
    picture.save(photos / "c.avif", quality=100, subsampling="4:4:4", exif=exif)
    turned = decode((photos / "c.avif").read_bytes(), "c.avif").permute(1, 2, 0).numpy().astype(int)
    assert np.abs(turned - np.rot90(np.asarray(picture), -1)).max() <= 6
    Image.new("RGBA", (8, 8), (9, 90, 200, 0)).save(photos / "c.avif", quality=100)
    content = (photos / "c.avif").read_bytes()
    assert bool((decode(content, "c.avif") >= 254).all()), "over white"
    for damaged in (content[:40], content[:-9], content[:60] + b"\xff" * 60):
        with pytest.raises(BadImage, match=r"c\.avif: "):
            decode(damaged, "c.avif")


def test_heic_is_read_where_pillow_can(photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """With a stand-in for pillow-heif, which registers the format HEIF; its content here is that of AVIF."""
    buffer = io.BytesIO()
    Image.new("RGB", (20, 20), (9, 90, 200)).save(buffer, "AVIF")
    (photos / "3.heic").write_bytes(buffer.getvalue().replace(b"ftypavif", b"ftypheic", 1))

    class Heif(AvifImagePlugin.AvifImageFile):
        format = "HEIF"

        def __init__(self, file: Any, name: str = "") -> None:
            super().__init__(io.BytesIO(file.read().replace(b"ftypheic", b"ftypavif", 1)), name)

    plugin = types.ModuleType("pillow_heif")
    plugin.register_heif_opener = lambda: Image.register_open("HEIF", Heif, lambda head: head[4:12] == b"ftypheic")  # type: ignore[attr-defined]
    assert not is_image("a.heic")
    monkeypatch.setitem(sys.modules, "pillow_heif", plugin)
    decoding.reads_heic.cache_clear()
    try:
        assert [path.name for path in find_images(photos).images] == ["3.heic", "a.png", "b.jpg"]
        pixels = decode((photos / "3.heic").read_bytes(), "3.heic")
        assert (pixels.float().mean((1, 2)) - torch.tensor([9.0, 90, 200])).abs().max() < 4
    finally:
        Image.OPEN.pop("HEIF", None)
        monkeypatch.undo()
        decoding.reads_heic.cache_clear()
    assert not is_image("a.heic")
