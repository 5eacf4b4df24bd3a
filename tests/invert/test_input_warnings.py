"""Images that a method was not made for: what is recognised, and where the user reads it."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import skimage.data
import torch
from PIL import Image

from stylegan_inv.data.alignment import landmarks
from stylegan_inv.data.alignment.face_alignment import face_quad
from stylegan_inv.data.alignment.placement import Placement
from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.generators import Generator
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.invert import input_warnings
from stylegan_inv.invert.input_warnings import Finding, InputCheck, InputWarnings, shows_faces
from stylegan_inv.methods.common.base import InversionMethod
from tests.cli import call
from tests.fake_run import RESOLUTION, make_run
from tests.golden import arrays, needs_golden
from tests.methods.test_reached_distances import REACHED
from tests.prepare.test_face_alignment import upright

RED = np.array([190, 20, 20])


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run whose method loses what is brighter than grey."""
    return make_run(tmp_path_factory.mktemp("warned") / "nights", "Nights", REACHED)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    """Two dark photos, two bright ones, and a dark one that is small."""
    folder = tmp_path / "photos"
    folder.mkdir()
    for name, least, side in [("a", 0, 20), ("b", 128, 20), ("c", 0, 20), ("d", 128, 20), ("e", 0, 12)]:
        pixels = np.random.default_rng(0).integers(least, least + 127, (side, side, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{name}.png")
    return folder


def found(folder: Path) -> dict[str, list[str]]:
    """Kind -> names of ``warnings.json``."""
    content = json.loads((folder / "warnings.json").read_text())
    return {kind: [image["name"] for image in one["images"]] for kind, one in content.items()}


def red(image: np.ndarray) -> int:
    return int((np.abs(image.astype(int) - RED) < 30).all(-1).sum())


# -- the commands ------------------------------------------------------------------------------------------------------


def test_invert_warns_on_the_terminal_in_the_sheet_and_in_a_file(run, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    call(monkeypatch, invert, f"run={run}", f"input={photos}", f"output={out}", "batch_size=2", "num_workers=1")
    assert found(out) == {"distance": ["b.png", "d.png"], "small_image": ["e.png"]}
    content = json.loads((out / "warnings.json").read_text())
    image = read_image(photos / "b.png", RESOLUTION)
    error = image.clamp(min=0).square().mean()
    assert content["distance"]["limits"] == pytest.approx({"distance": 10 * REACHED.quantile(0.99), "relative": 1.1})
    entry = content["distance"]["images"][0]
    assert entry["value"] == pytest.approx(float(error), rel=1e-5)
    assert entry["relative"] == pytest.approx(float(error / image.var((1, 2), correction=0).mean()), rel=1e-5)
    assert content["small_image"]["images"][0]["value"] == pytest.approx(RESOLUTION / 12)
    lines = [line for line in capsys.readouterr().out.splitlines() if line.startswith("warning: ")]
    assert len(lines) == 2 and lines[0].startswith("warning: 2 of 5 images ") and "b.png, d.png; give run=" in lines[0]
    assert lines[1].startswith("warning: 1 of 5 images ") and "e.png; give larger" in lines[1]

    sheet = np.asarray(Image.open(out / "contact_sheet.png"))
    rows = [sheet[len(sheet) - (5 - row) * 164 :][:160, : -3 * 164] for row in range(5)]
    marked = [red(row) > 100 for row in rows]
    assert marked == [False, True, False, True, True]

    # The next result has no warning, and does not keep those of the last one.
    call(monkeypatch, invert, f"run={run}", f"input={photos}/a.png", f"output={out}", "overwrite=true")
    assert not (out / "warnings.json").exists() and "warning" not in capsys.readouterr().out


def test_warnings_do_not_depend_on_an_interruption(run, photos, tmp_path, monkeypatch, capsys):
    from stylegan_inv.invert.parts import PartWriter

    arguments = [f"run={run}", f"input={photos}", "batch_size=1"]
    call(monkeypatch, invert, *arguments, f"output={tmp_path}/whole")
    add, parts = PartWriter.add, []

    def interrupted(self, *args, **kwargs):
        parts.append(args)
        if len(parts) == 5:
            raise KeyboardInterrupt
        add(self, *args, **kwargs)

    monkeypatch.setattr(PartWriter, "add", interrupted)
    with pytest.raises((KeyboardInterrupt, SystemExit)):
        call(monkeypatch, invert, *arguments, f"output={tmp_path}/parts")
    monkeypatch.setattr(PartWriter, "add", add)
    assert not (tmp_path / "parts" / "warnings.json").exists()
    call(monkeypatch, invert, *arguments, f"output={tmp_path}/parts")
    files = [(tmp_path / name / "warnings.json").read_text() for name in ("whole", "parts")]
    assert files[0] == files[1]


def test_nothing_is_said_where_nothing_is_known(photos, tmp_path, monkeypatch, capsys):
    unknown = make_run(tmp_path / "run", "Nights")
    call(monkeypatch, invert, f"run={unknown}", f"input={photos}", f"output={tmp_path}/out")
    assert found(tmp_path / "out") == {"small_image": ["e.png"]}
    known = make_run(tmp_path / "other", "Nights", replace(REACHED, size=2 * RESOLUTION))
    call(monkeypatch, invert, f"run={known}", f"input={photos}/b.png", f"output={tmp_path}/a")
    assert not (tmp_path / "a" / "warnings.json").exists(), "validation had another size"


def test_edit_warns_and_marks_its_rows(run, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    arguments = [f"run={run}", f"input={photos}", f"output={out}", "edit=truncate", "batch_size=2"]
    call(monkeypatch, edit, *arguments)
    assert found(out) == {"distance": ["b.png", "d.png"], "small_image": ["e.png"]}
    assert capsys.readouterr().out.count("warning: ") == 2
    strip = np.asarray(Image.open(out / "strip.png"))
    assert red(strip) > 1000 and red(strip[:, :50]) > 20
    call(monkeypatch, edit, *arguments[:1], f"input={photos}/a.png", *arguments[2:], "overwrite=true")
    captions = np.asarray(Image.open(out / "strip.png"))[:, :50]  # the reconstruction itself may be red
    assert not (out / "warnings.json").exists() and red(captions) == 0 and captions.min() < 128


def test_many_warnings_are_a_line(tmp_path):
    names = [f"{number}.png" for number in range(100_000)]
    warnings = InputWarnings([Finding(index, "no_face") for index in range(len(names))], names, "my photos")
    (line,) = warnings.lines()
    assert line.startswith("warning: 100000 of 100000 images show no face") and len(line) < 300
    assert "0.png, 1.png, 2.png, 3.png, 4.png and 99995 more" in line
    assert line.endswith("python -m stylegan_inv.prepare align 'my photos' 'my photos_aligned'")


# -- faces -------------------------------------------------------------------------------------------------------------


def test_an_aligned_face_has_no_offset() -> None:
    face = upright(eyes=40, mouth=50)
    quad = face_quad(face)
    low, side = quad.min(0), quad[3, 0] - quad[0, 0]
    placement = Placement.of((face - low) * 256 / side, 256)
    assert placement.offset < 1e-9 and placement.scale == pytest.approx(1) and placement.is_aligned


@needs_golden
def test_the_crop_of_the_official_script_is_aligned_and_its_photograph_is_not() -> None:
    points, quad = arrays("align")["landmarks_a"], arrays("align")["quad_a"]
    across = quad[3] - quad[0]
    x, y = across / across.dot(across), (quad[1] - quad[0]) / across.dot(across)
    inside = np.stack([(points - quad[0]) @ x, (points - quad[0]) @ y], 1) * 1024
    assert Placement.of(inside, 1024).offset < 1e-6


@pytest.mark.parametrize(
    "eyes, mouth, centre, kind",
    [
        (64, 60, (128, 122), None),
        (58, 54, (124, 126), None),  # landmarks are off by some pixels
        (64, 60, (85, 122), "not_aligned"),
        (64, 60, (128, 190), "not_aligned"),
        (100, 100, (128, 118), "not_aligned"),  # too close
        (25, 24, (128, 126), "small_face"),
    ],
)
def test_faces_are_judged_by_their_landmarks(eyes, mouth, centre, kind, tmp_path, monkeypatch) -> None:
    monkeypatch.setattr(input_warnings, "find_faces", lambda pixels, _: [upright(eyes, mouth, centre)])
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    check = InputCheck(Geometry(256), faces=True, predictor=tmp_path / "model.dat")
    findings = check.check_file(3, tmp_path / "a.png", torch.zeros(3, 256, 256))
    assert [(one.index, one.kind) for one in findings] == ([(3, kind)] if kind else [])


def test_a_turned_face_and_one_of_several(tmp_path, monkeypatch) -> None:
    aligned, small = upright(64, 60, (128, 122)), upright(20, 20, (30, 30))
    turn = np.deg2rad(25)
    rotation = np.array([[np.cos(turn), -np.sin(turn)], [np.sin(turn), np.cos(turn)]])
    turned = (aligned - 128) @ rotation.T + 128
    Image.new("RGB", (300, 300)).save(tmp_path / "a.png")
    check = InputCheck(Geometry(256), faces=True, predictor=tmp_path / "model.dat")
    for faces, kinds in [([turned], ["not_aligned"]), ([aligned, small], []), ([], ["no_face"])]:
        monkeypatch.setattr(input_warnings, "find_faces", lambda pixels, _, faces=faces: faces)
        findings = check.check_file(0, tmp_path / "a.png", torch.zeros(3, 256, 256))
        assert [one.kind for one in findings] == kinds


def test_without_dlib_only_images_that_are_not_square_are_judged(tmp_path) -> None:
    check = InputCheck(Geometry(256), faces=True)
    for size, kinds in {(300, 300): [], (300, 400): ["not_square"], (400, 200): ["small_image", "not_square"]}.items():
        Image.new("RGB", size).save(tmp_path / "a.png")
        findings = check.check_file(0, tmp_path / "a.png", torch.zeros(3, 256, 256))
        assert [one.kind for one in findings] == kinds
    (line,) = InputWarnings([Finding(0, "not_square", 2.0)], ["a.png"], "a.png").lines()
    assert "pip install 'stylegan_inv[align]'" in line and "prepare align a.png a_aligned" in line
    Image.new("RGB", (400, 200)).save(tmp_path / "a.png")
    others = InputCheck(Geometry(256)).check_file(0, tmp_path / "a.png", torch.zeros(3, 256, 256))
    assert [one.kind for one in others] == ["small_image"], "no faces: the shape does not matter"
    fitted = InputCheck(Geometry(256, "fit")).check_file(0, tmp_path / "a.png", torch.zeros(3, 256, 256))
    assert fitted == [], "the longer side counts where nothing is cropped"


def test_methods_of_faces_are_known_by_their_domain_or_size() -> None:
    def judged(resolution: int, domain_: str | None) -> bool:
        class Method(InversionMethod):
            domain = domain_

        sizes = {"z_dim": 8, "w_dim": 8, "mapping_layers": 1, "channel_base": 1024, "channel_max": 8}
        return shows_faces(Method(Generator(resolution, **sizes)))

    assert judged(64, "faces") and not judged(64, "cars") and not judged(64, None)
    assert judged(1024, None) and not judged(1024, "photos")


def test_the_photograph_of_an_astronaut(tmp_path) -> None:
    if landmarks.find_predictor() is None:
        pytest.skip("needs the extra align")
    from stylegan_inv.data.alignment.face_alignment import align_face

    assert importlib.util.find_spec("dlib") is not None
    photo = Image.fromarray(skimage.data.astronaut())
    predictor = landmarks.find_predictor()
    face = landmarks.find_faces(np.asarray(photo), predictor)[0]
    pictures = {"photo": photo, "aligned": align_face(photo, face, 256), "none": Image.new("RGB", (300, 300))}
    check, kinds = InputCheck(Geometry(256), faces=True, predictor=predictor), {}
    for name, picture in pictures.items():
        picture.save(tmp_path / "a.png")
        findings = check.check_file(0, tmp_path / "a.png", read_image(tmp_path / "a.png", 256))
        kinds[name] = [one.kind for one in findings]
    assert kinds == {"photo": ["small_face"], "aligned": [], "none": ["no_face"]}
