"""Short films of edits, as GIF or MP4."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write

KINDS = ("gif", "mp4")
_CELL = 128
_GAP = 2
_PALETTE_FROM = 9


def check_animation(kind: str | None) -> None:
    """Raise a UserError unless films of this kind can be written here; None is no film."""
    if kind is None:
        return
    if kind not in KINDS:
        raise UserError(f"animation={kind}: expected {' or '.join(KINDS)}, or null for none")
    if kind == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("animation=mp4: needs the package imageio-ffmpeg; pip install imageio-ffmpeg, or animation=gif")


def write_animation(frames: Tensor, path: Path, seconds: float = 3.0, there_and_back: bool = False) -> Path:
    """Write a film that repeats; the suffix chooses the format.

    Args:
        frames: (F, N, 3, R, R) in [-1, 1]: N pictures beside each other in each frame, at most 128 px large.
        path: ``.gif`` or ``.mp4``.
        seconds: of all frames once.
        there_and_back: play them backwards afterwards, so that the repetition does not jump.
    """
    pictures = [_tile(frame) for frame in frames]
    duration = seconds / len(pictures)
    if there_and_back:
        pictures += pictures[-2:0:-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        if path.suffix == ".gif":
            _write_gif(pictures, temporary, duration)
        else:
            _write_mp4(pictures, temporary, duration)
    return path


def _tile(images: Tensor) -> Image.Image:
    """(N, 3, R, R) in rows and columns, about as many of each."""
    side = min(_CELL, images.shape[-1]) if images.shape[-1] > _CELL // 2 else _CELL
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    size = (columns * (side + _GAP) + _GAP, rows * (side + _GAP) + _GAP)
    page = Image.new("RGB", (size[0] + size[0] % 2, size[1] + size[1] % 2), (236, 236, 236))  # MP4 wants even sides
    for k, image in enumerate(images):
        small = to_pil(image).resize((side, side), Image.Resampling.BICUBIC)
        page.paste(small, (_GAP + k % columns * (side + _GAP), _GAP + k // columns * (side + _GAP)))
    return page


def _write_gif(pictures: list[Image.Image], path: Path, duration: float) -> None:
    # One palette for all frames: with one each, colours that should rest flicker.
    shown = pictures[:: max(1, len(pictures) // _PALETTE_FROM)]
    strip = Image.fromarray(np.concatenate([np.asarray(one) for one in shown]))
    palette = strip.quantize(256, method=Image.Quantize.MEDIANCUT)
    indexed = [one.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for one in pictures]
    # Viewers slow films down whose frames last less than 20 ms.
    milliseconds = max(20, round(1000 * duration))
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=milliseconds, loop=0, optimize=False)


def _write_mp4(pictures: list[Image.Image], path: Path, duration: float) -> None:
    import imageio_ffmpeg  # see `check_animation`

    writer = imageio_ffmpeg.write_frames(str(path), pictures[0].size, fps=1 / duration, macro_block_size=2)
    writer.send(None)
    for picture in pictures:
        writer.send(np.ascontiguousarray(picture))
    writer.close()
