"""Bytes of an image file, whoever wrote it -> upright 8-bit pixels.

What every reading does, in this order: the EXIF orientation is applied; 16-bit images are reduced to 8 bits; palettes,
grey and CMYK become RGB; transparent pixels show a white background, as a browser would draw them. Colour profiles are
ignored, as the authors of pSp, e4e and ReStyle do.
"""

from __future__ import annotations

import contextlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from stylegan_inv.errors import UserError

#: Decoders that may see a file. Pillow knows more, among them EPS, which would start Ghostscript on a stranger's file.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "TIFF", "PPM")
#: Twice Pillow's own warning level; a file of some kB can claim any size.
MAX_PIXELS = 178_956_970
#: Of a file, packed or not.
MAX_BYTES = 1 << 30
#: Behind transparent pixels.
BACKGROUND = (255, 255, 255)
#: JPEG files decode at 1/2, 1/4 or 1/8 of their size as long as this many source pixels are left for each pixel of a
#: row. EXACT: never for 1024 -> 256, so that figures compare with published ones. FAST: 1024 px decode at 512, half a
#: level from the exact result on average.
EXACT, FAST = 4, 2


class BadImage(UserError):
    """An image file that cannot be read. The message names it."""

    def __init__(self, message: str) -> None:
        # DataLoader re-raises a worker's exception as `type(error)("Caught BadImage in DataLoader worker ...")` with
        # the whole traceback in the text. Keep our one line of it.
        super().__init__(message.rpartition("BadImage: ")[2].strip())


def read_file(path: Path) -> bytes:
    """The content of an image file.

    Raises:
        BadImage: There is none, or it is empty or larger than ``MAX_BYTES``.
    """
    try:
        size = path.stat().st_size
        if path.is_dir():
            raise BadImage(f"{path}: is a folder, expected an image file")
        if size > MAX_BYTES:
            raise BadImage(f"{path}: {size:,} bytes, expected an image of at most {MAX_BYTES:,}")
        return path.read_bytes()
    except (OSError, ValueError) as error:  # ValueError: a NUL character in the name
        if isinstance(error, BadImage):
            raise
        reason = getattr(error, "strerror", None) or str(error)
        raise BadImage(f"{path}: cannot be opened ({reason.lower()}); expected an image file") from error


def decode(data: bytes, where: str, size: tuple[int, int] | None = None, margin: int = EXACT) -> Tensor:
    """Decode an image completely.

    Args:
        data: A PNG, JPEG, WebP, AVIF, BMP, TIFF or PNM file; RGB, grey, palette or CMYK, with or without alpha, 8 or 16
            bits.
        where: What to call it in messages.
        size: Height and width that it will be reduced to: a large JPEG is decoded at a fraction of its size.
        margin: How much larger than ``size`` the fraction stays, ``EXACT`` or ``FAST``.

    Returns:
        (3, H, W) uint8, RGB, with the channels last in memory.

    Raises:
        BadImage: Empty, damaged, too large, not an image or without a known range of values.
    """
    with _opened(data, where) as image:
        if size is not None:
            image.draft(None, (size[1] * margin, size[0] * margin))  # does nothing but for JPEG
        image.load()
        return torch.from_numpy(np.array(_to_rgb(_upright(image)))).permute(2, 0, 1)


def decode_levels(data: bytes, where: str) -> Tensor:
    """Decode a label map: (1, H, W) float32 of the levels of a grey picture, or the indices of a palette, as stored.

    Raises:
        BadImage: As :func:`decode`, and for coloured or transparent pictures.
    """
    with _opened(data, where) as image:
        image.load()
        image = _upright(image)
        levels = np.asarray(image)
        if levels.ndim == 3 and levels.shape[2] == 3 and (levels == levels[..., :1]).all():
            levels = levels[..., 0]
        if levels.ndim != 2 or image.mode == "F":
            raise BadImage("a coloured picture, expected a grey one whose levels are the classes")
        return torch.from_numpy(levels.astype(np.float32))[None]


@contextlib.contextmanager
def _opened(data: bytes, where: str) -> Iterator[Image.Image]:
    """The picture in ``data``; what goes wrong in the block becomes a BadImage that names it."""
    if not data:
        raise BadImage(f"{where}: empty file (0 bytes), expected an image")
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{where}: too large ({error}); expected at most {MAX_PIXELS / 1e6:.0f} megapixels") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage(f"{where}: {_what_it_is(data)}; expected a PNG, JPEG, WebP, BMP or TIFF file") from error
    except BadImage as error:
        raise BadImage(f"{where}: {error}") from error
    except Exception as error:  # Pillow's decoders raise nearly anything on damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{where}: damaged image ({reason}); replace or remove the file") from error


def _known_formats() -> list[str]:
    Image.init()
    return [name for name in _FORMATS if name in Image.OPEN]


def _what_it_is(data: bytes) -> str:
    start = data[:512]
    if start[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        return "a HEIC photo, which Pillow cannot read"
    text = start.decode("utf-8", errors="replace")
    if sum(c.isprintable() or c.isspace() for c in text) >= 0.95 * len(text):
        return f"text, not an image (it starts with {' '.join(text.split())[:30]!r})"
    return "not an image, or damaged in its first bytes"


def _upright(image: Image.Image) -> Image.Image:
    # Cameras write broken EXIF blocks around sound pictures: then the picture stays as stored.
    with contextlib.suppress(Exception):
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # transposing would copy the others as well
            return ImageOps.exif_transpose(image)
    return image


def _to_rgb(image: Image.Image) -> Image.Image:
    if image.mode == "RGB" and "transparency" not in image.info:
        return image
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
