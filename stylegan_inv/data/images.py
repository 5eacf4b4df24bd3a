"""Image files in and out: whatever a person has lying about becomes a (3, H, W) tensor in [-1, 1], and back.

What every reading does, in this order: the EXIF orientation is applied; 16-bit images are reduced to 8 bits; palettes,
grey and CMYK become RGB; transparent pixels show a white background, as a browser would draw them; the image is cut to
the central square and resized with an antialiasing bilinear filter (what the authors of pSp, e4e and ReStyle train and
evaluate with). Colour profiles are ignored, as there.
"""

from __future__ import annotations

import contextlib
import os
import re
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image, ImageOps
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.runtime.files import atomic_write

SUFFIXES = (".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".webp", ".avif", ".bmp", ".tif", ".tiff", ".ppm", ".pgm", ".pnm")
#: Decoders that may see a file. Pillow knows more, among them EPS, which would start Ghostscript on a stranger's file.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
#: Twice Pillow's own warning level; a file of some kB can claim any size.
MAX_PIXELS = 178_956_970
#: Behind transparent pixels.
BACKGROUND = (255, 255, 255)
#: Bars of mode "fit": the LSUN-cars StyleGAN2 was trained on black ones.
BARS = (0, 0, 0)
#: JPEG files decode at 1/2, 1/4 or 1/8 of their size as long as this many source pixels are left for each pixel of a
#: row: with fewer the result would differ from a full decode (1024 -> 256, the published protocol, is always full).
_DRAFT_MARGIN = 4

Mode = Literal["crop", "fit"]


class BadImage(UserError):
    """An image file that cannot be read. The message names it."""

    def __init__(self, message: str) -> None:
        # DataLoader re-raises a worker's exception as `type(error)("Caught BadImage in DataLoader worker ...")` with
        # the whole traceback in the text. Keep our one line of it.
        super().__init__(message.rpartition("BadImage: ")[2].strip())


def read_image(path: str | os.PathLike[str], size: int | None = None, mode: Mode = "crop") -> Tensor:
    """Read an image file.

    Args:
        path: PNG, JPEG, WebP, AVIF, BMP, TIFF or PNM file; RGB, grey, palette or CMYK, with or without alpha, 8 or 16
            bits.
        size: Side of the square to return; None keeps the image's own size and shape.
        mode: ``crop`` cuts the central square out, ``fit`` keeps the whole image and adds black bars.

    Returns:
        (3, size, size) float32, RGB in [-1, 1].

    Raises:
        BadImage: Missing, empty, damaged, too large (``MAX_PIXELS``), not an image or without a known range of values.
        UserError: A bad ``size`` or ``mode``.
    """
    if size is not None and (isinstance(size, bool) or not isinstance(size, int) or size < 1):
        raise UserError(f"read_image: got size={size!r}, expected a whole number of at least 1")
    if mode not in ("crop", "fit"):
        raise UserError(f"read_image: got mode={mode!r}, expected 'crop' or 'fit'")
    image = _decode(Path(path), size)
    if size is not None:
        image = _square(image, size, mode)
    return from_uint8(torch.from_numpy(np.array(image)).permute(2, 0, 1).contiguous())


def check_image(path: str | os.PathLike[str]) -> None:
    """Decode a file completely and drop the result; raises like :func:`read_image`."""
    _decode(Path(path), None)


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
    return sorted(found, key=lambda path: _natural(path.relative_to(folder)))


def from_uint8(image: Tensor) -> Tensor:
    """Levels 0..255 -> float32 in [-1, 1]; :func:`to_uint8` undoes it exactly."""
    return image.float() / 127.5 - 1.0


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


def _natural(path: Path) -> tuple[tuple[str | int, ...], str]:
    # "img10" -> ("img", 10, ""): text and numbers alternate, so keys compare. The plain text tells 01 from 1.
    text = path.as_posix()
    return tuple(int(part) if i % 2 else part for i, part in enumerate(re.split(r"([0-9]+)", text))), text


def _decode(path: Path, size: int | None) -> Image.Image:
    """The upright RGB image, decoded completely; at a fraction of its size if `size` allows that."""
    _check_file(path)
    try:
        with Image.open(path, formats=_known_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            if size is not None:
                image.draft(None, (size * _DRAFT_MARGIN, size * _DRAFT_MARGIN))  # does nothing but for JPEG
            image.load()
            return _to_rgb(_upright(image))
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{path}: too large ({error}); expected at most {MAX_PIXELS / 1e6:.0f} megapixels") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage(f"{path}: {_what_it_is(path)}; expected a PNG, JPEG, WebP, BMP or TIFF file") from error
    except BadImage as error:
        raise BadImage(f"{path}: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{path}: damaged image ({reason}); replace or remove the file") from error


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _check_file(path: Path) -> None:
    try:
        size = path.stat().st_size
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(f"{path}: cannot be opened ({reason.lower()}); expected an image file") from error
    if path.is_dir():
        raise BadImage(f"{path}: is a folder, expected an image file")
    if size == 0:
        raise BadImage(f"{path}: empty file (0 bytes), expected an image")


def _what_it_is(path: Path) -> str:
    with open(path, "rb") as file:
        start = file.read(512)
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "a HEIC photo, which Pillow cannot read"
    text = start.decode("utf-8", errors="replace")
    if sum(c.isprintable() or c.isspace() for c in text) >= 0.95 * len(text):
        return f"text, not an image (it starts with {' '.join(text.split())[:30]!r})"
    return "not an image, or damaged in its first bytes"


def _upright(image: Image.Image) -> Image.Image:
    # Cameras write broken EXIF blocks around sound pictures: then the picture stays as stored.
    with contextlib.suppress(Exception):
        return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "F":
        raise BadImage("floating-point pixels, whose range is unknown; save it with 8 or 16 bits")
    if image.mode == "I" or image.mode.startswith("I;"):
        levels = np.asarray(image).astype(np.int64)
        if levels.size and (levels.min() < 0 or levels.max() > 65535):
            raise BadImage(f"pixel values up to {levels.max()}, expected 8 or 16 bits")
        # 65535 / 255 = 257 exactly, so levels that were widened from 8 bits come back unchanged.
        return Image.fromarray(np.rint(levels / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    return image.convert("RGB")


def _square(image: Image.Image, size: int, mode: Mode) -> Image.Image:
    width, height = image.size
    if mode == "crop":
        side = min(width, height)
        left, top = (width - side) // 2, (height - side) // 2
        # Not resize(box=...), whose filter would look across the edges of the box.
        image = image.crop((left, top, left + side, top + side))
        return image.resize((size, size), Image.Resampling.BILINEAR)
    scale = size / max(width, height)
    inner = max(1, round(width * scale)), max(1, round(height * scale))
    square = Image.new("RGB", (size, size), BARS)
    square.paste(image.resize(inner, Image.Resampling.BILINEAR), ((size - inner[0]) // 2, (size - inner[1]) // 2))
    return square
