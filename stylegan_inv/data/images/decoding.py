"""Decodes image files to upright 8-bit RGB pixels.

Decoding applies the EXIF orientation, reduces 16-bit images to 8 bits, converts palette, grey and CMYK images to RGB,
and composites transparent pixels over white, as a browser does. It ignores colour profiles, as the authors of pSp, e4e
and ReStyle do.
"""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from stylegan_inv.data.images.quiet_decoders import silence_decoders
from stylegan_inv.errors import UserError
from stylegan_inv.utils.regular_files import open_regular, read_bytes
from stylegan_inv.utils.text import printable

#: Decoders to use. Pillow has more, among them EPS, which runs Ghostscript on the file.
_FORMATS = ("PNG", "JPEG", "MPO", "WEBP", "AVIF", "BMP", "TIFF", "PPM", "HEIF")
#: First bytes of other formats -> their names, for messages.
_OTHER_FORMATS = {
    b"GIF8": "a GIF",
    b"\0\0\0\x0cjP  ": "a JPEG 2000 file",
    b"\xff\x4f\xff\x51": "a JPEG 2000 file",
    b"\xff\x0a": "a JPEG XL file",
    b"\0\0\0\x0cJXL ": "a JPEG XL file",
    b"8BPS": "a Photoshop file",
    b"%PDF": "a PDF",
    b"\x76\x2f\x31\x01": "an OpenEXR file",
    b"PK\3\4": "a zip file",
    b"\x1f\x8b": "a gzip file",
}
#: Largest number of pixels, twice Pillow's warning level; a file of a few kB can claim any size.
MAX_PIXELS = 178_956_970
#: Largest size of an image file in bytes.
MAX_BYTES = 1 << 30
#: Progressive JPEGs of cameras and editors have about ten scans. Each takes time in proportion to the pixels, however
#: few bytes it has: 300 kB can keep the decoder busy for minutes.
_MOST_SCANS = 100
#: Pillow takes time in proportion to the square of the number of comments in a PNM file of text.
_MOST_COMMENTS = 1000
#: Colour behind transparent pixels.
BACKGROUND = (255, 255, 255)
#: A JPEG file is decoded at 1/2, 1/4 or 1/8 of its size if the result is still this many times the requested size.
#: EXACT decodes 1024 px in full for 256 px, so that results are comparable with published ones. FAST decodes 1024 px
#: at 512 px, which differs from the exact result by half a level on average.
EXACT, FAST = 4, 2


class BadImage(UserError):
    """An image file that cannot be read; the message names the file."""

    def __init__(self, message: str) -> None:
        # DataLoader re-raises the exception of a worker as `type(error)("Caught BadImage in DataLoader worker ...")`,
        # with the whole traceback in the message. Only the original message is kept.
        super().__init__(printable(message.rpartition("BadImage: ")[2].strip()))


def read_file(path: Path) -> bytes:
    """Returns the bytes of an image file.

    Raises:
        BadImage: The file does not exist, cannot be opened, is no regular file, or is larger than ``MAX_BYTES``.
    """
    try:
        return read_bytes(path, MAX_BYTES, "an image file")
    except UserError as error:
        raise BadImage(str(error)) from error


def decode(data: bytes, where: str, size: tuple[int, int] | None = None, margin: int = EXACT) -> Tensor:
    """Decodes an image.

    Args:
        data: Bytes of a PNG, JPEG, WebP, AVIF, BMP, TIFF or PNM file; RGB, grey, palette or CMYK, with or without
            alpha, 8 or 16 bits.
        where: Location of the file for messages.
        size: Height and width to which the image will be downsampled, which allows to decode a large JPEG at a
            fraction of its size; None decodes in full.
        margin: Least ratio between the decoded size and ``size``, ``EXACT`` or ``FAST``.

    Returns:
        Tensor (3, H, W) uint8, RGB, in channels-last memory format.

    Raises:
        BadImage: The file is empty, damaged, too large, not an image, or has an unknown range of values.
    """
    with _opened(data, where) as image:
        if size is not None:
            image.draft(None, (size[1] * margin, size[0] * margin))  # has an effect for JPEG only
        image.load()
        return torch.from_numpy(np.array(_to_rgb(_upright(image)))).permute(2, 0, 1)


def decode_levels(data: bytes, where: str) -> Tensor:
    """Decodes a label map.

    Args:
        data: Bytes of a grey or palette image.
        where: Location of the file for messages.

    Returns:
        Tensor (1, H, W) float32 of the grey levels, or of the palette indices, as they are stored.

    Raises:
        BadImage: As :func:`decode`, and if the image has colours or transparency.
    """
    with _opened(data, where) as image:
        image.load()
        image = _upright(image)
        levels = np.asarray(image)
        if levels.ndim == 3 and levels.shape[2] == 3 and (levels == levels[..., :1]).all():
            levels = levels[..., 0]
        if levels.ndim != 2 or image.mode == "F":
            raise BadImage("a colour image, expected a grey one whose levels are the classes")
        return torch.from_numpy(levels.astype(np.float32))[None]


def stored_size(path: Path) -> tuple[int, int]:
    """Returns height and width of an image file, as they are stored, without decoding it.

    Raises:
        BadImage: Not an image file.
    """
    try:
        with open_regular(path, "an image file") as file, Image.open(file, formats=_known_formats()) as image:
            return image.height, image.width
    except UserError as error:
        raise BadImage(str(error)) from error
    except Exception as error:  # Pillow raises exceptions of many types for damaged data
        raise BadImage(f"{path}: cannot be opened ({error}); expected an image file") from error


@contextlib.contextmanager
def _opened(data: bytes, where: str) -> Iterator[Image.Image]:
    """Opens an image and converts all errors of the ``with`` block to a BadImage that names the file."""
    if not data:
        raise BadImage(f"{where}: empty file (0 bytes), expected an image")
    _check_parts(data, where)
    try:
        with Image.open(io.BytesIO(data), formats=_known_formats()) as image:
            if image.width * image.height > MAX_PIXELS:
                raise Image.DecompressionBombError(f"{image.width} x {image.height} pixels")
            yield image
    except (Image.DecompressionBombError, Image.DecompressionBombWarning) as error:
        raise BadImage(f"{where}: too large ({error}); expected at most {MAX_PIXELS / 1e6:.0f} megapixels") from error
    except Image.UnidentifiedImageError as error:
        raise BadImage(f"{where}: {_guess_content(data)}; expected a PNG, JPEG, WebP, BMP or TIFF file") from error
    except BadImage as error:
        raise BadImage(f"{where}: {error}") from error
    except Exception as error:  # Pillow's decoders raise exceptions of many types for damaged data
        reason = " ".join(str(error).split()) or type(error).__name__
        raise BadImage(f"{where}: damaged image ({reason}); replace or remove the file") from error


def _check_parts(data: bytes, where: str) -> None:
    """Raises a BadImage for a file of many small parts, which takes a time out of proportion to its size to decode."""
    for start, part, most, what in (
        (b"\xff\xd8", b"\xff\xda", _MOST_SCANS, "scans"),
        (b"P1", b"#", _MOST_COMMENTS, "comments"),
        (b"P2", b"#", _MOST_COMMENTS, "comments"),
        (b"P3", b"#", _MOST_COMMENTS, "comments"),
    ):
        if data.startswith(start) and (count := data.count(part)) > most:
            raise BadImage(f"{where}: has {count:,} {what}, expected at most {most}; save it again")


@functools.cache
def reads_heic() -> bool:
    """Returns whether HEIC photos can be read: Pillow does with the package pillow-heif."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except ImportError:
        return False
    return "HEIF" in Image.OPEN


def _known_formats() -> list[str]:
    silence_decoders()
    Image.init()
    reads_heic()
    return [name for name in _FORMATS if name in Image.OPEN]


def _guess_content(data: bytes) -> str:
    """Returns what bytes that are no image seem to be, for messages."""
    start = data[:512]
    if start[4:8] == b"ftyp":
        if start[8:12] in (b"avif", b"avis"):
            return "an AVIF image, which this Pillow cannot read (pip install -U Pillow)"
        if start[8:12] in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
            return "a HEIC photo, which needs pip install 'stylegan_inv[heic]'"
        return "a video"
    if found := next((name for head, name in _OTHER_FORMATS.items() if start.startswith(head)), None):
        return f"{found}, which is not read"
    text = start.decode("utf-8", errors="replace")
    if sum(c.isprintable() or c.isspace() for c in text) >= 0.95 * len(text):
        return f"text, not an image (it starts with {' '.join(text.split())[:30]!r})"
    return "not an image, or damaged in its first bytes"


def _upright(image: Image.Image) -> Image.Image:
    # Some cameras write invalid EXIF data with valid images, which then keep their stored orientation.
    with contextlib.suppress(Exception):
        if image.getexif().get(ExifTags.Base.Orientation, 1) != 1:  # `exif_transpose` copies upright images too
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
        # 65535 / 255 = 257, so levels that were converted from 8 to 16 bits get their original values.
        return Image.fromarray(np.rint(levels / 257.0).astype(np.uint8)).convert("RGB")
    if image.mode in ("RGBA", "RGBa", "LA", "La", "PA") or "transparency" in image.info:
        image = image.convert("RGBA")
        return Image.alpha_composite(Image.new("RGBA", image.size, (*BACKGROUND, 255)), image).convert("RGB")
    return image.convert("RGB")
