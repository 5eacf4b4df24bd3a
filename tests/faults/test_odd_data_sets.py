"""Data sets of odd files: what prepare does with them, and archives and images that take long to read."""

from __future__ import annotations

import contextlib
import io
import json
import resource
import sys
import tarfile
from pathlib import Path

import numpy as np
import pytest
from filelock import FileLock
from PIL import Image

from stylegan_inv.data.images.decoding import BadImage, decode
from stylegan_inv.data.sources.class_labels import parse_classes
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.errors import UserError
from stylegan_inv.prepare import __main__ as prepare
from tests.faults.odd_data import photo, prepared


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as every command sets it
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("change", ["content", "name"])
def test_pack_continues_with_the_same_images_only(capsys: pytest.CaptureFixture[str], change: str) -> None:
    for number in range(3):
        photo(f"photos/{number}.png", 60 + number)
    Path("photos/3.png").write_bytes(b"no image")
    assert "text, not an image" in prepared(capsys, "pack", "photos", "a.zip")
    if change == "content":
        photo("photos/0.png", 99)
    else:
        Path("photos/0.png").rename("photos/00.png")
    assert "interrupted command with other options or images" in prepared(capsys, "pack", "photos", "a.zip")


def test_two_processes_do_not_pack_into_one_file(capsys: pytest.CaptureFixture[str]) -> None:
    photo("photos/a.png")
    Path("a.zip.partial").mkdir()
    with FileLock("a.zip.partial/.lock"):
        assert "another process is packing into it" in prepared(capsys, "pack", "photos", "a.zip")
    assert "1 images in a.zip" in prepared(capsys, "pack", "photos", "a.zip")
    assert not Path("a.zip.partial").exists()


def test_shards_of_names_that_differ_in_dots(capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("a.b.png", "a_b.png", "a..b.png", "c.png", "c.jpg")):
        photo(f"photos/{name}", 60 + number)
    assert "5 images in shards, all read back" in prepared(capsys, "pack", "photos", "shards")
    assert "5 images in shards" in prepared(capsys, "verify", "shards")
    assert "c.png" not in open_source("shards").names  # as before: both have the name c


@pytest.mark.skipif(sys.platform != "linux", reason="limits of addresses")
def test_an_lmdb_under_a_limit_of_memory(capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("lmdb")
    photo("photos/a.png")
    former = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (1 << 39, former[1]))
    try:
        assert "ulimit -v" in prepared(capsys, "pack", "photos", "a.lmdb")
    finally:
        resource.setrlimit(resource.RLIMIT_AS, former)
    assert "1 images in a.lmdb" in prepared(capsys, "pack", "photos", "a.lmdb")


@pytest.mark.parametrize("kind", ["tar", "lmdb"])
def test_images_beside_an_archive_are_not_left_out(capsys: pytest.CaptureFixture[str], kind: str) -> None:
    photo("photos/sub/a.png")
    with tarfile.open("photos/backup.tar", "w") as archive:
        archive.add("photos/sub/a.png", "b.png")
    if kind == "lmdb":
        Path("photos/backup.tar").rename("photos/data.mdb")
    archive_name = "*.tar" if kind == "tar" else "data.mdb"
    for command in (("verify", "photos"), ("pack", "photos", "a.zip")):
        line = prepared(capsys, *command)
        assert "and images such as a.png" in line and f"photos/{archive_name}" in line
    if kind == "tar":
        assert list(open_source("photos/*.tar").names) == ["b.png"]


def faces(name: str, *images: str, count: int = 1) -> str:
    """A file of landmarks of one face or several in each image."""
    points = np.zeros((68, 2))
    points[36:42], points[42:48], points[[48, 54]] = (6, 8), (14, 8), ((7, 14), (13, 14))
    face = points.tolist()
    Path(name).write_text(json.dumps({image: [face] * count for image in images}))
    return name


def test_faces_of_several_images_do_not_share_a_file(capsys: pytest.CaptureFixture[str]) -> None:
    for number, name in enumerate(("a", "a_1", "a_1_1")):
        photo(f"photos/{name}.png", 60 + 60 * number)
    given = faces("points.json", "a", "a_1", "a_1_1", count=3)
    assert "9 faces" in prepared(
        *(capsys, "align", "photos", "out", "--landmarks", given, "--faces", "all", "--size", 16)
    )
    written = [entry["written"] for entry in json.loads(Path("out/align.json").read_text())["images"]]
    assert len({name for names in written for name in names}) == 9 == len(list(Path("out").glob("*.png")))
    for names in written:  # the faces of one image are equal here
        assert len({Path("out", name).read_bytes() for name in names}) == 1
    assert len({Path("out", names[0]).read_bytes() for names in written}) == 3


def test_align_says_what_it_keeps_and_replaces_no_report_of_others(capsys: pytest.CaptureFixture[str]) -> None:
    photo("photos/a.png"), photo("photos/b.png")
    given = faces("points.json", "a", "b")
    assert "existed already" not in prepared(capsys, "align", "photos", "out", "--landmarks", given, "--size", 16)
    Path("out/b.png").unlink()
    again = prepared(capsys, "align", "photos", "out", "--landmarks", given, "--size", 32)
    assert "1 existed already and are kept" in again and "1 of these are not of 32 px: a.png" in again
    for text in ('{"mine": 1}', "no JSON", "[]"):
        Path("out/align.json").write_text(text)
        line = prepared(capsys, "align", "photos", "out", "--landmarks", given, "--size", 16)
        assert "was not written by this command" in line and Path("out/align.json").read_text() == text


def test_masks_replace_no_images_beside_a_file_of_another_program(capsys: pytest.CaptureFixture[str]) -> None:
    photo("labels/a.png")
    own = photo("mine/a.png", 90).read_bytes()
    Path("mine/masks.json").write_text('{"mine": 1}')
    line = prepared(capsys, "masks", "folder", "labels", "mine")
    assert "masks.json: exists and was not written by this command" in line
    assert Path("mine/a.png").read_bytes() == own and Path("mine/masks.json").read_text() == '{"mine": 1}'


def progressive_jpeg(scans: int) -> bytes:
    """A JPEG with this many scans without content after its own."""
    buffer = io.BytesIO()
    Image.new("RGB", (32, 32)).save(buffer, "JPEG", progressive=True)
    content = buffer.getvalue()
    place = content.rindex(b"\xff\xda")
    header = content[place : place + 2 + int.from_bytes(content[place + 2 : place + 4], "big")]
    return content[:-2] + header * (scans - content.count(b"\xff\xda")) + content[-2:]


def test_many_scans_and_comments_are_refused_before_they_take_time() -> None:
    assert decode(progressive_jpeg(100), "a.jpg").shape == (3, 32, 32)
    with pytest.raises(BadImage, match="has 101 scans, expected at most 100"):
        decode(progressive_jpeg(101), "a.jpg")
    for kind, rest in (("P1", ""), ("P2", "255 "), ("P3", "255 ")):
        text = f"{kind} 2 2 {rest}" + "1 1 1 1 " * (3 if kind == "P3" else 1)
        assert decode(("#a\n".join([f"{kind}\n", text[3:]])).encode(), "a.ppm").shape == (3, 2, 2)
        with pytest.raises(BadImage, match="comments, expected at most 1000"):
            decode((text + "#\n" * 300_000).encode(), "a.ppm")  # took minutes


def test_a_tar_with_a_long_number_in_an_extended_header(tmp_path: Path) -> None:
    """Python 3.11.7 searched it for hours."""
    body = b"1" * 200_000
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, len(body)
    content = header.tobuf(tarfile.USTAR_FORMAT) + body + bytes(-len(body) % 512)
    (tmp_path / "a.tar").write_bytes(content + tarfile.TarInfo("a.png").tobuf(tarfile.USTAR_FORMAT) + bytes(1024))
    with pytest.raises(UserError, match="more than 63 digits"):
        open_source(tmp_path / "a.tar")


def test_odd_landmarks(capsys: pytest.CaptureFixture[str]) -> None:
    photo("photos/a.png")
    points = np.random.default_rng(0).uniform(2, 18, (68, 2))
    numbers = ",".join(map(str, points.flatten()))
    for text, words in (
        (json.dumps({"a": (points * 1e306).tolist()}), "1 skipped, wrong landmarks: a.png"),
        (f'"{"x" * 200_000}",1\n', "is no CSV"),
        (f".,{numbers}\n/,{numbers}\n,{numbers}\n", "1 skipped, no face"),
        (json.dumps({"": points.tolist(), "..": []}), "1 skipped, no face"),
        (json.dumps({"a": points.tolist(), "a.png": []}), "occurs with several suffixes"),
    ):
        Path("points").write_text(text)
        with contextlib.suppress(SystemExit):
            prepare.main(["align", "photos", "out", "--landmarks", "points", "--size", "16", "--workers", "0"])
        assert words in "".join(capsys.readouterr())
    line = prepared(capsys, "align", "photos", "other", "--landmarks", faces("good.json", "a"), "--size", 20000)
    assert "expected at most 32768; give a smaller --supersampling" in line and not Path("other").exists()


def test_targets_inside_of_the_source(capsys: pytest.CaptureFixture[str]) -> None:
    photo("photos/a.png")
    assert "is inside photos" in prepared(capsys, "masks", "folder", "photos", "photos/masks")
    Path("file").write_text("mine")
    assert "is a file, expected a folder" in prepared(capsys, "masks", "folder", "photos", "file")
    line = prepared(capsys, "align", "photos", "file", "--landmarks", faces("good.json", "a"), "--size", 16)
    assert "is a file, expected a folder" in line and Path("file").read_text() == "mine"


def test_an_image_with_two_classes() -> None:
    rows = [["a.png", 1], ["a.png", 1], ["b.png", 2]]
    assert parse_classes(json.dumps({"labels": rows}).encode(), "x", ["a.png", "b.png"]).tolist() == [1, 2]  # type: ignore[union-attr]
    with pytest.raises(UserError, match="'a.png' has the classes 1 and 0"):
        parse_classes(json.dumps({"labels": [*rows, ["a.png", 0]]}).encode(), "x", ["a.png", "b.png"])
