"""Class labels in the ``dataset.json`` of NVIDIA's dataset tool.

The file is ``{"labels": [["00000/img00000000.png", 6], ...]}``, or has ``null`` instead of the list.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.errors import UserError

CLASSES = "dataset.json"
MAX_CLASSES_BYTES = 1 << 28


def parse_classes(text: bytes, where: str, names: Sequence[str]) -> np.ndarray | None:
    """Returns the class of each image.

    Args:
        text: Content of the file.
        where: Name of the file for messages.
        names: Names of the images, in order.

    Returns:
        Array (N,) int64, or None if the labels are ``null``. One-hot labels are converted to class numbers.

    Raises:
        UserError: The file has another format, or its names are not those of the images.
    """
    labels = read_json(text, where)
    labels = labels.get("labels") if isinstance(labels, dict) else labels
    if labels is None:
        return None
    if not isinstance(labels, list) or not all(
        isinstance(row, list) and len(row) == 2 and isinstance(row[0], str) for row in labels
    ):
        raise UserError(f'{where}: expected {{"labels": [["name", class], ...]}} or null')
    found = {name: _number(label, f"{where}: {ascii(name)[:80]}") for name, label in labels}
    if missing := [name for name in names if name not in found]:
        raise UserError(f"{where}: no class for {len(missing)} of {len(names)} images: {name_list(missing)}")
    if absent := sorted(set(found) - set(names)):
        raise UserError(f"{where}: names {len(absent)} images that do not exist: {name_list(absent)}")
    return np.array([found[name] for name in names], dtype=np.int64)


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
