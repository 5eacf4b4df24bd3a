"""Image files in and out: whatever a person has lying about becomes a (3, H, W) tensor in [-1, 1], and back.

How files are decoded stands in :mod:`.decoding`, how they are cut and resized in
:mod:`.resizing`.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylegan_inv.data.images.decoding import BadImage, decode, read_file
from stylegan_inv.data.images.resizing import Geometry, Mode
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write

__all__ = [
    "SUFFIXES", "BadImage", "Mode", "check_image", "from_uint8", "list_images", "name_list", "natural", "read_image",
    "save_image", "to_pil", "to_uint8",
]  # fmt: skip

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")


def read_image(path: str | os.PathLike[str], size: int | None = None, mode: Mode = "crop") -> Tensor:
    """Read an image file.

    Args:
        path: PNG, JPEG, WebP, AVIF, BMP, TIFF or PNM file; RGB, grey, palette or CMYK, with or without alpha, 8 or 16
            bits.
        size: Side of the square to return; None keeps the image's own size and shape.
        mode: ``crop``, ``fit`` or ``stretch``, see :class:`.Geometry`.

    Returns:
        (3, size, size) float32, RGB in [-1, 1].

    Raises:
        BadImage: Missing, empty, damaged, too large (``MAX_PIXELS``), not an image or without a known range of values.
        UserError: A bad ``size`` or ``mode``.
    """
    path = Path(path)
    if size is None:
        return from_uint8(decode(read_file(path), str(path)))
    geometry = Geometry(size, mode)
    return from_uint8(geometry.apply(decode(read_file(path), str(path), geometry.content)))


def check_image(path: str | os.PathLike[str]) -> None:
    """Decode a file completely and drop the result; raises like :func:`read_image`."""
    decode(read_file(Path(path)), str(path))


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """All image files in a folder and the folders below, by suffix, sorted by path with numbers by value (2 before 10).

    Hidden files and folders are left out (macOS leaves ``._name.jpg`` files that are no images). Linked folders are
    followed, each real folder once.

    Raises:
        UserError: No such folder, or no image in it; says what is there instead.
    """
    folder = Path(folder)
    _check_folder(folder)
    found: list[Path] = []
    others: Counter[str] = Counter()
    seen: set[str] = set()
    for parent, folders, names in os.walk(folder, followlinks=True, onerror=_unreadable):
        real = os.path.realpath(parent)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in names:
            if name.startswith("."):
                continue
            suffix = os.path.splitext(name)[1].lower()
            if suffix in SUFFIXES:
                found.append(Path(parent, name))
            else:
                others[suffix or "without suffix"] += 1
    if not found:
        most = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:5]
        instead = ", ".join(f"{count} {suffix}" for suffix, count in most) or "it is empty"
        raise UserError(
            f"{folder}: no images here or in folders below ({instead}); expected {', '.join(SUFFIXES[:6])} ..."
        )
    return sorted(found, key=lambda path: natural(path.relative_to(folder)))


def from_uint8(image: Tensor) -> Tensor:
    """Levels 0..255 -> float32 in [-1, 1]; :func:`to_uint8` undoes it exactly."""
    # Reordered while a level is one byte, then in place: half the time of doing both on floats.
    return image.contiguous().to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_uint8(image: Tensor) -> Tensor:
    """Float in [-1, 1], any shape -> uint8 of the same shape, on the same device.

    Rounds to the nearest level. (The official inversion repositories truncate, which darkens every saved image by half
    a level.) Values beyond the range are clamped; NaN becomes 0, where a plain cast would depend on the machine.
    """
    return ((image.detach().float() + 1.0) * 127.5).nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """A (3, H, W) or (1, H, W) tensor in [-1, 1] -> 8-bit Pillow image (RGB or grey)."""
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(f"to_pil: got a tensor of shape {tuple(image.shape)}, expected (3, H, W) or (1, H, W)")
    array = to_uint8(image).cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def save_image(image: Tensor, path: str | os.PathLike[str]) -> Path:
    """Write a (3, H, W) tensor in [-1, 1]; the suffix chooses the format. Folders are made, the file appears whole.

    Raises:
        UserError: A suffix that is no image format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: got suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    picture = to_pil(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 95, "subsampling": 0} if suffix in (".jpg", ".jpeg", ".jpe", ".jfif") else {}
    with atomic_write(path) as temporary:
        picture.save(temporary, **options)  # type: ignore[arg-type]
    return path


def name_list(names: Sequence[object], limit: int = 5) -> str:
    """``a, b, c and 12 more``, for messages about many files."""
    shown = ", ".join(str(name) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        near = next((parent for parent in folder.absolute().parents if parent.is_dir()), None)
        raise UserError(f"{folder}: no such folder (the part that exists is {near}); give a folder of images")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, expected a folder of images")


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot list this folder ({error.strerror}); check its permissions") from error


def natural(path: Path) -> tuple[tuple[str | int, ...], str]:
    """Sorting key: by path, with numbers by value (2 before 10)."""
    # "img10" -> ("img", 10, ""): text and numbers alternate, so keys compare. The plain text tells 01 from 1.
    text = path.as_posix()
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", text))), text
