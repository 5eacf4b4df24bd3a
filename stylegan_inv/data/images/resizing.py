"""From pixels of any shape to the shape that was asked for, the same way for an image, its mask and its label map.

Images and masks are resized with an antialiasing bilinear filter, label maps by the nearest pixel. The filter is
Pillow's, which the authors of pSp, e4e and ReStyle train and evaluate with (bit for bit on processors with AVX2), in a
third of its time.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError

Mode = Literal["crop", "fit", "stretch"]
MODES = ("crop", "fit", "stretch")
#: Sides of bars in a picture and its mask that differ by more than this share are not the same picture.
_SAME_PROPORTIONS = 0.02


@dataclass(frozen=True)
class Geometry:
    """What is cut out of a picture, and the size that it is brought to.

    Attributes:
        resolution: Side of the square.
        mode: ``crop`` cuts the largest central part of the right proportions, ``fit`` keeps the whole picture between
            black bars, ``stretch`` resizes it whatever its proportions.
        aspect: Height and width of the content in proportion; what is left of the square are black bars. (3, 4) is how
            StyleGAN2 was trained on LSUN cars: rows 32 to 223 of 256.
        bars: False leaves out the bars of ``aspect``: (192, 256) instead of (256, 256).
        box: Left, top, right and bottom in pixels of the file, cut out before anything else; None takes all.
    """

    resolution: int
    mode: Mode = "crop"
    aspect: tuple[int, int] = (1, 1)
    bars: bool = True
    box: tuple[int, int, int, int] | None = None

    def __post_init__(self) -> None:
        if isinstance(self.resolution, bool) or not isinstance(self.resolution, int) or self.resolution < 1:
            raise UserError(f"resolution={self.resolution!r}: expected a whole number of at least 1")
        if self.mode not in MODES:
            raise UserError(f"mode={self.mode!r}: expected 'crop', 'fit' or 'stretch'")
        if len(self.aspect) != 2 or any(isinstance(s, bool) or not isinstance(s, int) or s < 1 for s in self.aspect):
            raise UserError(f"aspect={list(self.aspect)}: expected height and width, e.g. [3, 4]")
        if any(self.resolution * side % max(self.aspect) for side in self.aspect):
            raise UserError(
                f"resolution={self.resolution}, aspect={list(self.aspect)}: the content would have a fraction of a "
                f"pixel; expected a resolution that {max(self.aspect)} divides"
            )
        if self.box is not None and (
            len(self.box) != 4 or not (0 <= self.box[0] < self.box[2] and 0 <= self.box[1] < self.box[3])
        ):
            raise UserError(
                f"box={list(self.box)}: expected left, top, right and bottom in pixels, e.g. [0, 40, 178, 218]"
            )

    @property
    def content(self) -> tuple[int, int]:
        """Height and width of what the picture fills."""
        height, width = (self.resolution * side // max(self.aspect) for side in self.aspect)
        return height, width

    def enlargement(self, height: int, width: int) -> float:
        """How much a picture of this size is enlarged; below 1 it is reduced."""
        if self.box is not None:
            height, width = self.box[3] - self.box[1], self.box[2] - self.box[0]
        scales = self.content[0] / height, self.content[1] / width
        return min(scales) if self.mode == "fit" else max(scales)

    def apply(self, pixels: Tensor, like: tuple[int, int] | None = None, nearest: bool = False) -> Tensor:
        """Cut and resize.

        Args:
            pixels: (C, H, W), uint8 or float32.
            like: Height and width of the image that this mask belongs to: it must have the same proportions.
            nearest: Take the nearest pixel instead of filtering; for classes.

        Returns:
            (C, resolution, resolution), or without bars (C, *content); of the same type.

        Raises:
            UserError: A picture that does not hold ``box``, or has other proportions than ``like``.
        """
        height, width = pixels.shape[-2:]
        like = like or (height, width)
        if abs(height * like[1] / (width * like[0]) - 1) > _SAME_PROPORTIONS:
            raise UserError(f"{width} x {height} px belong to an image of {like[1]} x {like[0]} px; expected one shape")
        if self.box is not None:
            left, top, right, bottom = self.box
            if right > like[1] or bottom > like[0]:
                raise UserError(f"box={list(self.box)} reaches out of an image of {like[1]} x {like[0]} px")
            x, y = width / like[1], height / like[0]
            pixels = pixels[..., round(top * y) : round(bottom * y), round(left * x) : round(right * x)]
        inner = self.content
        if self.mode == "crop":
            pixels = _central(pixels, inner)
        elif self.mode == "fit":
            scale = min(inner[0] / pixels.shape[-2], inner[1] / pixels.shape[-1])
            inner = max(1, round(pixels.shape[-2] * scale)), max(1, round(pixels.shape[-1] * scale))
        outer = (self.resolution, self.resolution) if self.bars else self.content
        return _between_bars(_resize(pixels, inner, nearest), outer)

    def shown(self, like: tuple[int, int]) -> Tensor:
        """Where the picture is and where bars are: (1, ...) float32, 1 and 0, for an image of height and width."""
        return self.apply(torch.ones(1, *like), nearest=True)


def _central(pixels: Tensor, shape: tuple[int, int]) -> Tensor:
    """The largest central part with the proportions of ``shape``."""
    height, width = pixels.shape[-2:]
    inner = (
        max(1, min(height, round(width * shape[0] / shape[1]))),
        max(1, min(width, round(height * shape[1] / shape[0]))),
    )
    top, left = (height - inner[0]) // 2, (width - inner[1]) // 2
    return pixels[..., top : top + inner[0], left : left + inner[1]]


def _resize(pixels: Tensor, shape: tuple[int, int], nearest: bool) -> Tensor:
    if tuple(pixels.shape[-2:]) == shape:
        return pixels
    if nearest:
        return F.interpolate(pixels[None], shape, mode="nearest-exact")[0]
    return F.interpolate(pixels[None], shape, mode="bilinear", antialias=True)[0]


def _between_bars(pixels: Tensor, outer: tuple[int, int]) -> Tensor:
    height, width = pixels.shape[-2:]
    if (height, width) == outer:
        return pixels
    top, left = (outer[0] - height) // 2, (outer[1] - width) // 2
    whole = pixels.new_zeros((pixels.shape[0], *outer))
    whole[:, top : top + height, left : left + width] = pixels
    return whole
