"""Animations of edits, as GIF or MP4."""

from __future__ import annotations

import importlib.util
import math
from pathlib import Path

import numpy as np
from PIL import Image
from torch import Tensor

from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of
from stylegan_inv.utils.files import atomic_write

KINDS = ("gif", "mp4")
_CELL = 128
_GAP = 2
#: Number of frames that the palette of a GIF is computed from.
_PALETTE_FRAMES = 9
#: Viewers play GIFs more slowly if their frames last less than 20 ms.
_MIN_MILLISECONDS = 20


def check_animation(kind: str | None) -> None:
    """Checks that an animation can be written.

    Args:
        kind: ``"gif"``, ``"mp4"``, or None for no animation.

    Raises:
        UserError: If the format is unknown, or its encoder is not installed.
    """
    if kind is None:
        return
    one_of("animation", kind, KINDS, hint="or null for none")
    if kind == "mp4" and importlib.util.find_spec("imageio_ffmpeg") is None:
        raise UserError("animation=mp4: needs the package imageio-ffmpeg; pip install imageio-ffmpeg, or animation=gif")


def write_animation(frames: Tensor, path: Path, seconds: float = 3.0, there_and_back: bool = False) -> Path:
    """Writes an animation that repeats; the suffix of ``path`` selects the format.

    Args:
        frames: (F, N, 3, R, R) in [-1, 1]. Each frame shows N images in a grid, each at most 128 px wide.
        path: Path with the suffix ``.gif`` or ``.mp4``.
        seconds: Duration of all frames once.
        there_and_back: Whether to append the frames in reverse order, so that the repetition has no jump.

    Returns:
        ``path``.
    """
    tiled = [_tile(frame) for frame in frames]
    duration = seconds / len(tiled)
    if there_and_back:
        tiled += tiled[-2:0:-1]
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary:
        if path.suffix.lower() == ".gif":
            _write_gif(tiled, temporary, duration)
        else:
            _write_mp4(tiled, temporary, duration)
    return path


def _tile(images: Tensor) -> Image.Image:
    """Arranges images (N, 3, R, R) in a grid that is about square."""
    side = min(_CELL, images.shape[-1]) if images.shape[-1] > _CELL // 2 else _CELL
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    width, height = columns * (side + _GAP) + _GAP, rows * (side + _GAP) + _GAP
    # MP4 requires an even width and height.
    page = Image.new("RGB", (width + width % 2, height + height % 2), (236, 236, 236))
    for k, image in enumerate(images):
        small = to_pil(image).resize((side, side), Image.Resampling.BICUBIC)
        page.paste(small, (_GAP + k % columns * (side + _GAP), _GAP + k // columns * (side + _GAP)))
    return page


def _write_gif(frames: list[Image.Image], path: Path, duration: float) -> None:
    # One palette for all frames: with a palette for each, constant colours would flicker.
    sample = frames[:: max(1, len(frames) // _PALETTE_FRAMES)]
    strip = Image.fromarray(np.concatenate([np.asarray(frame) for frame in sample]))
    palette = strip.quantize(256, method=Image.Quantize.MEDIANCUT)
    indexed = [frame.quantize(palette=palette, dither=Image.Dither.FLOYDSTEINBERG) for frame in frames]
    milliseconds = max(_MIN_MILLISECONDS, round(1000 * duration))
    indexed[0].save(path, save_all=True, append_images=indexed[1:], duration=milliseconds, loop=0, optimize=False)


def _write_mp4(frames: list[Image.Image], path: Path, duration: float) -> None:
    import imageio_ffmpeg  # optional, see check_animation

    writer = imageio_ffmpeg.write_frames(str(path), frames[0].size, fps=1 / duration, macro_block_size=2)
    writer.send(None)
    for frame in frames:
        writer.send(np.ascontiguousarray(frame))
    writer.close()
