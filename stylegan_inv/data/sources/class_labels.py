"""Class labels in the ``dataset.json`` of NVIDIA's dataset tool.

The file is ``{"labels": [["00000/img00000000.png", 6], ...]}``, or has ``null`` instead of the list. It is read only
where classes are needed: for a conditional generator, for ``identities=classes``, and to pack a zip.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import read_bytes
from stylegan_inv.utils.text import readable, same_letters

CLASSES = "dataset.json"
MAX_CLASSES_BYTES = 1 << 28


def read_classes(folder: Path, names: Sequence[str], others: bool = False) -> np.ndarray | None:
    """Returns the class of each image of a folder.

    Args:
        folder: The folder, which may have a ``dataset.json``.
        names: Names of the images, in order.
        others: See :func:`parse_classes`.

    Returns:
        Array (N,) int64, or None without such a file.

    Raises:
        UserError: See :func:`parse_classes`; or the file cannot be read.
    """
    path = folder / CLASSES
    if not path.is_file():
        return None
    text = read_bytes(path, MAX_CLASSES_BYTES, "a file of classes")
    return parse_classes(text, str(path), names, others)


def required_classes(classes: np.ndarray | None, count: int, where: str, all_occur: bool = False) -> np.ndarray:
    """Returns the classes of images for a conditional generator.

    Args:
        classes: Class of each image (N,), or None.
        count: Number of classes of the generator.
        where: Location of the images for messages.
        all_occur: Whether the last class must occur, as in the training of a generator.

    Raises:
        UserError: There are no classes, or another number of classes than the generator has.
    """
    if classes is None:
        raise UserError(
            f"{where}: has no class labels, expected {CLASSES} with a class of 0 to {count - 1} for each image, which "
            "the conditional generator needs"
        )
    last = int(classes.max())
    if last >= count or (all_occur and last < count - 1):
        hint = f"; give generator.c_dim={last + 1}, or other images" if all_occur else ""
        raise UserError(
            f"{where}: has classes 0 to {last}, expected 0 to {count - 1}, as the generator has {count} classes{hint}"
        )
    return classes


def parse_classes(text: bytes, where: str, names: Sequence[str], others: bool = False) -> np.ndarray | None:
    """Returns the class of each image.

    Args:
        text: Content of the file.
        where: Name of the file for messages.
        names: Names of the images, in order.
        others: Whether the file may name further images.

    Returns:
        Array (N,) int64, or None if the labels are ``null``. One-hot labels are converted to class numbers.

    Raises:
        UserError: The file has another format, or its names are not those of the images.
    """
    if len(text) > MAX_CLASSES_BYTES:
        raise UserError(f"{where}: is larger than {MAX_CLASSES_BYTES:,} bytes")
    labels = read_json(text, where)
    labels = labels.get("labels") if isinstance(labels, dict) else labels
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in labels
    ):
        raise UserError(f'{where}: expected {{"labels": [["name", class], ...]}} or null')
    found: dict[str, int] = {}
    for name, label in labels:
        number = _number(label, f"{where}: {ascii(name)[:80]}")
        if found.setdefault(_key(name), number) != number:
            raise UserError(f"{where}: {ascii(name)[:80]} has the classes {found[_key(name)]} and {number}")
    names = [_key(name) for name in names]
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{where}: no class for {len(missing)} of {len(names)} images: {name_list(missing)}")
    if not others and (absent := sorted(set(found) - set(names))):
        raise UserError(f"{where}: names {len(absent)} images that do not exist: {name_list(absent)}")
    return np.array([found[name] for name in names], dtype=np.int64)


def _key(name: str) -> str:
    return same_letters(readable(name))


def read_json(text: bytes, where: str) -> Any:
    """Returns the content of a JSON file.

    Args:
        text: Bytes of the file.
        where: Name of the file for messages.

    Raises:
        UserError: The bytes are not valid JSON, or are nested too deeply.
    """
    try:
        return json.loads(text)
    # ValueError is also raised for bytes that are not text and for numbers of too many digits.
    except (ValueError, RecursionError) as error:
        raise UserError(f"{where}: is not valid JSON ({' '.join(str(error).split())[:80]})") from error


def _number(label: Any, where: str) -> int:
    number = label
    if isinstance(label, list) and label.count(1) == 1 and label.count(0) == len(label) - 1:
        number = label.index(1)
    if isinstance(number, bool) or not isinstance(number, int) or not 0 <= number < 2**31:
        raise UserError(f"{where}: got the class {ascii(label)[:40]}, expected a whole number or one-hot numbers")
    return number
