"""Reads image files as (3, H, W) tensors in [-1, 1], and writes such tensors.

See :mod:`.decoding` for the decoding of files, and :mod:`.resizing` for cropping and resizing.
"""

from __future__ import annotations

import os
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from stylegan_inv.data.images.decoding import BadImage, decode, read_file, reads_heic
from stylegan_inv.data.images.resizing import Geometry, Mode
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.text import printable, same_letters

__all__ = [
    "SUFFIXES", "BadImage", "FoundImages", "Mode", "check_image", "distinct_names", "find_images", "first_image",
    "from_uint8", "is_image", "is_other_image", "left_out_lines", "list_images", "name_list", "natural_key",
    "read_image", "save_image", "storable_name", "to_pil", "to_uint8",
]  # fmt: skip

#: Suffixes of the formats that are read and written.
SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
#: Longest name of a file to write, without its suffix: ".safetensors" and a number have to fit into 255 bytes.
_MOST_STEM_BYTES = 220
_HEIC_SUFFIXES = (".heic", ".heif", ".hif")
#: Suffixes of other image formats; such files are counted and named where images are listed.
_OTHER_SUFFIXES = (
    *(".gif", ".apng", ".jp2", ".j2k", ".j2c", ".jpx", ".jpf", ".jxl", ".jxr", ".psd", ".xcf", ".svg", ".tga", ".ico"),
    *(".exr", ".hdr", ".eps", ".dng", ".cr2", ".cr3", ".nef", ".arw", ".orf", ".rw2", ".raf", ".pef", ".srw"),
)


def read_image(path: str | os.PathLike[str], size: int | None = None, mode: Mode = "crop") -> Tensor:
    """Reads an image file.

    Args:
        path: PNG, JPEG, WebP, AVIF, BMP, TIFF or PNM file; RGB, grey, palette or CMYK, with or without alpha, 8 or 16
            bits.
        size: Side of the square image to return, in pixels; None keeps the size and proportions of the file.
        mode: ``crop``, ``fit`` or ``stretch``, see :class:`.Geometry`.

    Returns:
        Tensor (3, size, size) float32, RGB in [-1, 1].

    Raises:
        BadImage: The file is missing, empty, damaged, larger than ``MAX_PIXELS``, not an image, or has an unknown range
            of values.
        UserError: ``size`` or ``mode`` is not valid.
    """
    path = Path(path)
    if size is None:
        return from_uint8(decode(read_file(path), str(path)))
    geometry = Geometry(size, mode)
    return from_uint8(geometry.apply(decode(read_file(path), str(path), geometry.content)))


def check_image(path: str | os.PathLike[str]) -> None:
    """Checks that an image file can be decoded; raises the errors of :func:`read_image`."""
    decode(read_file(Path(path)), str(path))


def is_image(name: str) -> bool:
    """Returns whether the suffix of a name is that of an image that can be read; HEIC needs the package pillow-heif."""
    suffix = os.path.splitext(name)[1].lower()
    return suffix in SUFFIXES or (suffix in _HEIC_SUFFIXES and reads_heic())


def is_other_image(name: str) -> bool:
    """Returns whether the suffix of a name is that of an image that cannot be read."""
    return os.path.splitext(name)[1].lower() in (*_OTHER_SUFFIXES, *_HEIC_SUFFIXES) and not is_image(name)


def left_out_lines(names: Sequence[str]) -> list[str]:
    """Returns the line about image files that are left out, as their formats cannot be read; none without any."""
    if not names:
        return []
    counts = Counter(os.path.splitext(name)[1].lower() for name in names)
    formats = ", ".join(f"{count} {suffix}" for suffix, count in counts.most_common())
    heic = any(suffix in _HEIC_SUFFIXES for suffix in counts)
    cure = "convert them to PNG" + (", or pip install 'stylegan_inv[heic]'" if heic else "")
    return [f"{len(names)} left out, whose formats are not read ({formats}): {name_list(names)}; {cure}"]


@dataclass
class FoundImages:
    """The image files of a folder.

    Attributes:
        images: Files that can be read.
        others: Image files in formats that cannot be read.
    """

    images: list[Path]
    others: list[Path]


def list_images(folder: str | os.PathLike[str]) -> list[Path]:
    """Returns all image files in a folder and its subfolders; see :func:`find_images`."""
    return find_images(folder).images


def first_image(folder: Path) -> Path | None:
    """Returns an image file in a folder or its subfolders; None without any. Hidden ones do not count."""
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        for name in sorted(names):
            if is_image(name) and not name.startswith("."):
                return Path(parent, name)
    return None


def find_images(folder: str | os.PathLike[str]) -> FoundImages:
    """Finds all image files in a folder and its subfolders, in natural order of their paths (2 before 10).

    Files are recognised by suffix. Hidden files and folders are skipped, as macOS writes ``._name.jpg`` files that are
    not images. Links to folders are followed, and each folder is visited once.

    Raises:
        UserError: The folder does not exist or has no images; the message lists the files that it has.
    """
    folder = Path(folder)
    _check_folder(folder)
    found, unread = list[Path](), list[Path]()
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
            if is_image(name):
                found.append(Path(parent, name))
                continue
            others[os.path.splitext(name)[1].lower() or "without suffix"] += 1
            if is_other_image(name):
                unread.append(Path(parent, name))
    if not found:
        most = sorted(others.items(), key=lambda item: (-item[1], item[0]))[:5]
        instead = ", ".join(f"{count} {suffix}" for suffix, count in most) or "it is empty"
        raise UserError(
            f"{folder}: no images here or in subfolders ({instead}); expected {', '.join(SUFFIXES[:6])} ..."
        )
    found, unread = (sorted(files, key=lambda path: natural_key(path.relative_to(folder))) for files in (found, unread))
    return FoundImages(found, unread)


def from_uint8(image: Tensor) -> Tensor:
    """Converts uint8 levels to float32 in [-1, 1]; :func:`to_uint8` is the exact inverse."""
    # Changing the memory format of bytes and scaling in place takes half the time of doing both with floats.
    return image.contiguous().to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def to_grey(image: Tensor) -> Tensor:
    """Returns the luma (ITU-R BT.601, as Pillow's mode L) of (..., 3, H, W) as three equal channels.

    An image whose channels are equal is unchanged, bit for bit.
    """
    red, green, blue = image.unbind(-3)
    luma = red + 0.587 * (green - red) + 0.114 * (blue - red)
    return torch.stack([luma] * 3, dim=-3)


def to_uint8(image: Tensor) -> Tensor:
    """Converts floats in [-1, 1] to uint8 levels of the same shape, on the same device.

    Rounds to the nearest level; the official inversion repositories truncate, which darkens every saved image by half
    a level. Values outside of the range are clamped, and NaN becomes 0, for which a cast would depend on the machine.
    """
    return ((image.detach().float() + 1.0) * 127.5).nan_to_num(0.0).round().clamp(0, 255).to(torch.uint8)


def to_pil(image: Tensor) -> Image.Image:
    """Converts a (3, H, W) or (1, H, W) tensor in [-1, 1] to an 8-bit Pillow image, RGB or grey.

    Raises:
        UserError: The tensor has another shape.
    """
    if image.ndim != 3 or image.shape[0] not in (1, 3):
        raise UserError(f"to_pil: got a tensor of shape {tuple(image.shape)}, expected (3, H, W) or (1, H, W)")
    array = to_uint8(image).cpu().permute(1, 2, 0).numpy()
    return Image.fromarray(array[..., 0] if array.shape[2] == 1 else np.ascontiguousarray(array))


def save_image(image: Tensor, path: str | os.PathLike[str]) -> Path:
    """Writes an image file atomically, and creates its folder.

    Args:
        image: Tensor (3, H, W) or (1, H, W) in [-1, 1].
        path: File to write; the suffix selects the format.

    Returns:
        The path.

    Raises:
        UserError: The suffix is not that of an image format.
    """
    path = Path(path)
    suffix = path.suffix.lower()
    if suffix not in SUFFIXES:
        raise UserError(f"{path}: got suffix {path.suffix!r}, expected one of {', '.join(SUFFIXES)}")
    pil_image = to_pil(image)
    path.parent.mkdir(parents=True, exist_ok=True)
    options = {"quality": 95, "subsampling": 0} if suffix in (".jpg", ".jpeg", ".jpe", ".jfif") else {}
    with atomic_write(path) as temporary:
        pil_image.save(temporary, **options)  # type: ignore[arg-type]
    return path


def name_list(names: Sequence[object], limit: int = 5) -> str:
    """Returns ``a, b, c and 12 more``, for messages about many files."""
    shown = ", ".join(printable(str(name)) for name in names[:limit])
    return shown if len(names) <= limit else f"{shown} and {len(names) - limit} more"


def distinct_names(names: Sequence[str], suffix: str | None = None) -> list[str]:
    """Returns a distinct file name without regard to suffixes for each image: ``sub/a.jpg`` -> ``sub/a.png``.

    Inputs that differ only in their suffix, or in upper and lower case or the form of an accent, which many file
    systems ignore, keep the suffix: ``a.jpg.png`` and ``a.png.png``. So does an input whose new name is that of a
    folder: ``a.jpg`` where there is a folder ``a.png``.

    Args:
        names: Names of the images.
        suffix: Suffix of the new names; None keeps that of each image.
    """
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    counts = Counter(map(_on_any_disk, stems))
    folders = {_on_any_disk(str(folder)) for name in names for folder in PurePosixPath(name).parents}
    used: set[str] = set()
    numbers: dict[str, int] = {}  # the last one of each name; all before are taken
    found = []
    for name, stem in zip(names, stems, strict=True):
        end = PurePosixPath(name).suffix if suffix is None else suffix
        base = stem if counts[_on_any_disk(stem)] == 1 and _on_any_disk(stem + end) not in folders else name
        number = numbers.get(_on_any_disk(base), 1)
        candidate = base if number == 1 else f"{base}_{number}"
        while _on_any_disk(candidate) in used or _on_any_disk(candidate + end) in folders:
            number += 1
            candidate = f"{base}_{number}"
        used.add(_on_any_disk(candidate))
        numbers[_on_any_disk(base)] = number
        found.append(candidate + end)
    return found


def storable_name(name: str) -> str:
    """Returns the name of a file to write for an image: short enough for other suffixes, and without backslashes.

    File systems limit names to 255 bytes, and other files of the image have longer suffixes. A backslash is a letter on
    Linux and separates folders elsewhere.

    Args:
        name: Name of the image, with forward slashes; see `readable`.
    """
    path = PurePosixPath(name.replace("\\", "%5C"))
    stem = path.stem.encode()
    if len(stem) <= _MOST_STEM_BYTES:
        return str(path)
    return str(path.with_name(stem[:_MOST_STEM_BYTES].decode(errors="ignore") + path.suffix))


def _on_any_disk(name: str) -> str:
    """Returns the form in which file systems compare names that ignore case and the forms of accents."""
    return same_letters(name).casefold()


def _check_folder(folder: Path) -> None:
    if not folder.exists():
        near = next((parent for parent in folder.absolute().parents if parent.is_dir()), None)
        raise UserError(f"{folder}: no such folder (the part that exists is {near}); give a folder of images")
    if not folder.is_dir():
        raise UserError(f"{folder}: is a file, expected a folder of images")


def _unreadable(error: OSError) -> None:
    raise UserError(f"{error.filename}: cannot list this folder ({error.strerror}); check its permissions") from error


def natural_key(path: Path) -> tuple[tuple[str | int, ...], str]:
    """Returns the key to sort paths in natural order, with numbers by value (2 before 10)."""
    # "img10" gives ("img", 10, ""): text and numbers alternate, so that keys are comparable. The text itself
    # distinguishes 01 from 1.
    text = path.as_posix()
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", text))), text
