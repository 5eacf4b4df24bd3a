"""The alignment of FFHQ against crops of the official script, and against geometry worked out by hand."""

from __future__ import annotations

import json

import numpy as np
import pytest
from PIL import Image

from stylegan_inv.data.alignment.face_alignment import align_face, face_quad
from stylegan_inv.data.alignment.landmarks import read_landmarks
from stylegan_inv.errors import UserError
from tests.golden import arrays, entry, golden_dir, needs_golden


@needs_golden
@pytest.mark.parametrize("case", ["a", "b", "c"])
def test_quads_and_crops_of_the_official_script(case: str) -> None:
    golden = arrays("align")
    about = next(c for c in entry("align")["cases"] if c["case"] == case)
    landmarks = golden[f"landmarks_{case}"]
    quad = face_quad(landmarks)
    error = np.linalg.norm(quad - golden[f"quad_{case}"]) / np.linalg.norm(golden[f"quad_{case}"])
    assert error <= entry("align")["outputs"][f"quad_{case}"]["tol"]["f64"]
    assert np.hypot(*(quad[3] - quad[0])) == pytest.approx(about["qsize"], rel=1e-6)

    image = Image.open(golden_dir() / about["input"]).convert("RGB")
    size = about["output_size"]
    got = np.asarray(align_face(image, landmarks, size, about["transform_size"] // size), dtype=int)
    tolerance = entry("align")["outputs"][f"aligned_{case}"]["tol"]
    close = np.abs(got - golden[f"aligned_{case}"].astype(int)) <= tolerance["levels"]
    assert close.mean() >= tolerance["fraction"]


def upright(eyes: float = 40.0, mouth: float = 50.0, centre: tuple[float, float] = (100.0, 100.0)) -> np.ndarray:
    """Landmarks of an upright face: eyes so far apart, mouth so far below them, all other points on the centre."""
    points = np.tile(np.array(centre, dtype=float), (68, 1))
    points[36:42] += (-eyes / 2, 0)
    points[42:48] += (eyes / 2, 0)
    points[[48, 54]] += (0, mouth)
    return points


def test_upright_face() -> None:
    """Half a side is max(2 x 40, 1.8 x 50) = 90, around the eyes' middle moved down by 5."""
    want = [[10, 15], [10, 195], [190, 195], [190, 15]]
    np.testing.assert_allclose(face_quad(upright()), want)


def test_a_face_cut_without_resizing_is_the_image_itself() -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (220, 220, 3), dtype=np.uint8)
    got = np.asarray(align_face(Image.fromarray(pixels), upright(), 180, 1), dtype=float)
    corners = sum(pixels[15 + y : 195 + y, 10 + x : 190 + x].astype(float) for y in (0, 1) for x in (0, 1)) / 4
    assert np.abs(got - corners).max() <= 1.01


def test_turned_face_comes_out_upright() -> None:
    y, x = np.mgrid[:400, :400]
    image = Image.fromarray(np.stack([x // 2, y // 2, 0 * x], -1).astype(np.uint8))
    points = upright(centre=(200, 200)) - 200
    turned = points[:, ::-1] * (-1, 1) + 200  # by 90 degrees: right becomes down
    got = np.asarray(align_face(image, turned, 60, 2), dtype=float)
    assert got[30, 50, 1] > got[30, 10, 1] + 40 and abs(got[50, 30, 1] - got[10, 30, 1]) < 2
    assert got[50, 30, 0] < got[10, 30, 0] - 40


def test_padding_reflects_or_is_black() -> None:
    image = Image.new("RGB", (150, 150), (200, 100, 50))
    with_padding = np.asarray(align_face(image, upright(), 64, 1))
    assert (with_padding == (200, 100, 50)).all()
    black = np.asarray(align_face(image, upright(), 64, 1, padding=False))
    assert (black[-8:] == 0).all() and (black[2:40, 2:40] == (200, 100, 50)).all()


@pytest.mark.parametrize(
    "landmarks, message",
    [
        (np.zeros((5, 2)), r"shape \(5, 2\), expected \(68, 2\)"),
        (np.full((68, 2), np.nan), "finite"),
        (np.ones((68, 2)), "coincide"),
        (upright(centre=(9000, 100)), "outside of the image"),
        (upright(eyes=1e6, centre=(32, 32)), "a face of 4000000 px in an image of 64 x 64"),
    ],
)
def test_bad_landmarks(landmarks: np.ndarray, message: str) -> None:
    with pytest.raises(UserError, match=message):
        align_face(Image.new("RGB", (64, 64)), landmarks, 32)


def test_landmarks_from_files(tmp_path) -> None:
    face, other = upright(), upright(centre=(50, 60))
    content = {"a/1.jpg": face.tolist(), "b.png": [face.tolist(), other.tolist()], "c.png": []}
    (tmp_path / "l.json").write_text(json.dumps(content))
    found = read_landmarks(tmp_path / "l.json")
    assert {name: len(faces) for name, faces in found.items()} == {"a/1": 1, "b": 2, "c": 0}
    np.testing.assert_array_equal(found["b"][1], other)
    lines = ["name," + ",".join(f"n{i}" for i in range(136))]
    lines += [",".join(["b.jpg", *map(str, points.flatten())]) for points in (face, other)]
    (tmp_path / "l.csv").write_text("\n".join(lines))
    np.testing.assert_array_equal(read_landmarks(tmp_path / "l.csv")["b"][1], other)


@pytest.mark.parametrize(
    "text, message",
    [
        ('{"a": [[1, 2]]}', "'a': expected 68 pairs"),
        ('{"a": {"x": 1}}', "'a': expected 68 pairs"),
        ('{"a": [[1, NaN]' + ", [1, 2]" * 67 + "]}", "finite"),
        ('{"a": ' + "[" * 100_000, "is not valid JSON"),
        ("a.jpg,1,2,3", "line 1: got 3 numbers, expected a name and 136"),
        ("a.jpg,1" + ",x" * 135, "line 1: expected 68 pairs of finite"),
    ],
)
def test_files_that_hold_no_landmarks(tmp_path, text: str, message: str) -> None:
    (tmp_path / "l").write_text(text)
    with pytest.raises(UserError, match=message):
        read_landmarks(tmp_path / "l")
