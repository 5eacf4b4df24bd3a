"""Names of files are any bytes: not UTF-8, not ASCII, not printable; and lists name files anywhere."""

from __future__ import annotations

import csv
import io
import json
import os
import sys
import unicodedata
import zipfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.images.image_files import distinct_names, read_image, save_image
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate.image_pairs import match_folders
from stylegan_inv.evaluate.score_table import write_per_image
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.invert.inputs import Images
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.prepare import __main__ as prepare
from stylegan_inv.utils.safetensors_files import write_safetensors
from stylegan_inv.utils.text import json_text, print_any_text, readable
from stylegan_inv.visualization.html_page import write_page
from stylegan_inv.visualization.loss_curves import write_curves
from tests.cli import call
from tests.fake_run import make_run

LATIN_1 = os.fsdecode(b"caf\xe9.png")
ODD = (LATIN_1, "Ж 漢 🎉.png", "narrow\u202fspace\u00a0.png", unicodedata.normalize("NFD", "é.png"), "a\nb.png")
needs_bytes = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names of files are text there")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "two_steps")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as every command sets it


def photo(path: Path, level: int = 200) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with path.open("wb") as file:  # Pillow itself cannot write such names on every system
        Image.fromarray(np.random.default_rng(level).integers(0, level, (20, 20, 3), dtype=np.uint8)).save(file, "PNG")
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for number, name in enumerate(ODD):
        photo(tmp_path / "photos" / name, 50 + 40 * number)
    (tmp_path / "photos" / os.fsdecode(b"broken\xff.png")).write_bytes(b"GIF89a no image")
    os.symlink("nowhere.png", tmp_path / "photos" / "dangling.png")
    os.symlink("circle.png", tmp_path / "photos" / "circle.png")
    return tmp_path / "photos"


@needs_bytes
def test_a_whole_inversion_and_its_edit(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With an odd folder, odd names, files that cannot be read, and a terminal that knows ASCII only."""
    monkeypatch.chdir(tmp_path)
    photos.rename(tmp_path / os.fsdecode(b"my caf\xe9"))
    out = io.TextIOWrapper(io.BytesIO(), encoding="ascii")
    monkeypatch.setattr(sys, "stdout", out)
    folder = os.fsdecode(b'"my caf\xe9"')
    output = os.fsdecode(b'output="out\xe9"')  # the library safetensors opens no such path
    call(monkeypatch, invert, f"run={run}", f"input={folder}", output, "on_bad_image=skip")
    out.flush()
    (tmp_path / os.fsdecode(b"out\xe9")).rename(tmp_path / "out")
    assert b"3 of 8 files cannot be read" in out.buffer.getvalue()
    latents = read_latents("out")
    assert sorted(latents.names) == sorted(map(readable, ODD)) and "caf%E9.png" in latents.names
    for name, file in zip(latents.names, latents.reconstructions, strict=True):
        assert (tmp_path / "out" / file).is_file() and file == f"reconstructions/{name}"
    skipped = json.loads((tmp_path / "out" / "left_out.json").read_text(encoding="utf-8"))["unreadable"]
    files = [line.split(": ")[0].rpartition("/")[2] for line in skipped]
    assert files == ["broken%FF.png", "circle.png", "dangling.png"]
    source = f"generator.source={run / 'generator.safetensors'}"
    call(monkeypatch, edit, "input=out", "edit=truncate", "edit.psi=[1]", "generator=file", source, "output=edited")
    assert len(list((tmp_path / "edited" / "images").iterdir())) == len(ODD)


def test_every_kind_of_file_takes_every_name(tmp_path: Path) -> None:
    write_per_image(tmp_path / "a.csv", [0], [LATIN_1], {"mse": torch.tensor([1.0])})
    with (tmp_path / "a.csv").open(newline="", encoding="utf-8") as file:
        assert list(csv.reader(file))[1][1] == "caf%E9.png"
    table, _ = write_curves(tmp_path, [LATIN_1, "Ж"], {"w": [torch.ones(2, 2)]})
    assert {row["image"] for row in csv.DictReader(table.open(encoding="utf-8"))} == {"caf%E9.png", "Ж"}
    assert "caf%E9" in write_page(LATIN_1, {LATIN_1: [LATIN_1]}, tmp_path / "a.html").read_text(encoding="utf-8")
    write_safetensors(tmp_path / "a.safetensors", {"x": torch.ones(1)}, {"made": LATIN_1})
    with safe_open(tmp_path / "a.safetensors", framework="pt") as stored:
        assert stored.metadata() == {"made": "caf%E9.png"}
    assert json.loads(json_text({LATIN_1: ["\ud800", "é"]})) == {"caf%E9.png": ["\ufffd", "é"]}


def test_print_any_text(monkeypatch: pytest.MonkeyPatch) -> None:
    out = io.TextIOWrapper(io.BytesIO(), encoding="latin-1")
    monkeypatch.setattr(sys, "stdout", out)
    print_any_text()
    print(f"{LATIN_1} ↓", flush=True)
    assert out.buffer.getvalue() == b"caf\\udce9.png \\u2193\n"


@needs_bytes
def test_prepare_with_odd_names(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (photos / ODD[-1]).unlink()  # a line break: no name for an archive
    for target in ("a.zip", "a.lmdb", "shards"):
        prepare.main(["pack", str(photos), str(tmp_path / target), "--on-bad-image", "skip", "--workers", "0"])
        assert "caf%E9.png" in open_source(tmp_path / target).names
        assert "3 unreadable images are skipped" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        prepare.main(["verify", str(photos), "--report", str(tmp_path / "verify.json"), "--workers", "0"])
    assert "broken%FF.png" in json.loads((tmp_path / "verify.json").read_text(encoding="utf-8"))["bad"]
    with pytest.raises(SystemExit):
        prepare.main(["masks", "folder", str(photos), str(tmp_path / "masks"), "--workers", "0"])
    entries = json.loads((tmp_path / "masks" / "masks.json").read_text(encoding="utf-8"))["masks"]
    assert {"caf%E9.png", "broken%FF.png"} <= {entry["name"] for entry in entries}
    assert (tmp_path / "masks" / "caf%E9.png").is_file()


@needs_bytes
def test_a_data_set_of_odd_names(photos: Path) -> None:
    data = FolderDataModule(root=photos, resolution=16, batch_size=2, val_size=3, on_bad_image="skip", num_workers=0)
    data.setup("fit")
    samples = data.get("train").__getitems__(range(len(data.get("train"))))
    samples += data.get("val").__getitems__(range(len(data.get("val"))))
    assert {sample["name"] for sample in samples} == set(map(readable, ODD))
    assert "circle.png" in [*data.get("train").bad_images, *data.get("val").bad_images]


def test_letters_with_accents_match_in_every_form(tmp_path: Path) -> None:
    """macOS writes é as two characters; other systems as one."""
    one, two = (unicodedata.normalize(form, "é.png") for form in ("NFC", "NFD"))
    assert one != two
    photo(tmp_path / "images" / one), photo(tmp_path / "targets" / two), photo(tmp_path / "masks" / two)
    pairs = match_folders(tmp_path / "images", tmp_path / "targets", tmp_path / "masks", None)
    assert pairs.names == [one] and not pairs.unmatched
    data = FolderDataModule(root=tmp_path / "images", mask_root=tmp_path / "masks", val_root=tmp_path / "targets")
    assert data.make("train")[0]["mask"].shape == (1, 256, 256)


# -- archives and lists ------------------------------------------------------------------------------------------------


def test_names_of_zips_that_python_does_not_print(tmp_path: Path) -> None:
    names = ["a\u202fb.png", "c\u00a0d.png", "e\u2028f.png", "g\u200bh.png", "\ue000.png", "Ж/漢.png"]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        for name in names:
            archive.writestr(name, photo(tmp_path / "one.png").read_bytes())
    assert sorted(open_source(tmp_path / "a.zip").names) == sorted(names)
    for wrong in ("../x.png", "a\x1bb.png", "a\x85.png"):
        with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
            archive.writestr(wrong, b"x")
        with pytest.raises(UserError, match="leads out of a folder or is not valid"):
            open_source(tmp_path / "b.zip")


def test_lists_name_files_anywhere(tmp_path: Path) -> None:
    near, far = photo(tmp_path / "lists" / "sub" / "1.png", 60), photo(tmp_path / "faces" / "1.png", 90)
    file = tmp_path / "lists" / "mine.txt"
    file.write_text(f"sub/1.png\n../faces/1.png\n{tmp_path}/faces/../faces/2.png\n")
    source = open_source(file)
    assert list(source.names) == ["lists/sub/1.png", "faces/1.png", "faces/2.png"], "where results are written"
    assert [source.read(0), source.read(1)] == [near.read_bytes(), far.read_bytes()]
    odd = [photo(tmp_path / "lists" / name).name for name in ("a\u2028b.png", "c\u00a0d.png", "e\x85f.png")]
    file.write_text("\r\n".join(odd), encoding="utf-8")
    assert list(open_source(file).names) == odd
    file.write_text("sub/1.png\n")
    assert list(open_source(file).names) == ["sub/1.png"]
    for twice in ("sub/1.png\n./sub/1.png\n", f"sub/1.png\n{near}\n", "sub/1.png\nsub/../sub/1.png\n"):
        file.write_text(twice)
        with pytest.raises(UserError, match="1 of 2 paths occur twice"):
            open_source(file)
    file.write_text("a\0b.png\n")
    with pytest.raises(UserError, match="NUL"):
        open_source(file)


def test_packing_a_list_of_files_elsewhere_writes_into_the_target_only(tmp_path: Path) -> None:
    photo(tmp_path / "faces" / "1.png"), photo(tmp_path / "other" / "2.png")
    (tmp_path / "lists").mkdir()
    (tmp_path / "lists" / "l.txt").write_text(f"{tmp_path}/faces/1.png\n../other/2.png\n")
    prepare.main(["pack", str(tmp_path / "lists" / "l.txt"), str(tmp_path / "a.zip"), "--workers", "0"])
    assert list(open_source(tmp_path / "a.zip").names) == ["faces/1.png", "other/2.png"]


def test_names_that_differ_in_their_suffix_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(tmp_path / "in" / "face.png", 60)
    save_image(torch.zeros(3, 16, 16), tmp_path / "in" / "face.jpg")
    photo(tmp_path / "in" / "other.png", 90)
    for target, options in {"a.zip": ["--resolution", "8"], "b.lmdb": [], "shards": []}.items():
        prepare.main(["pack", str(tmp_path / "in"), str(tmp_path / target), "--workers", "0", *options])
        assert len(open_source(tmp_path / target)) == 3
    assert sorted(open_source(tmp_path / "a.zip").names) == ["face.jpg.png", "face.png.png", "other.png"]
    assert distinct_names(["a.png", "a.jpg", "b.jpg"]) == ["a.png.png", "a.jpg.jpg", "b.jpg"]
    assert read_image(tmp_path / "in" / "face.jpg").shape == (3, 16, 16)
    with pytest.raises(SystemExit):
        prepare.main(["masks", "folder", str(tmp_path / "in"), str(tmp_path / "masks"), "--workers", "0"])
    assert "several suffixes" in capsys.readouterr().err
    assert Images.find(str(tmp_path / "in")).names == ["face.jpg", "face.png", "other.png"]
