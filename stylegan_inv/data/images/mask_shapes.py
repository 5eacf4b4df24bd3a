"""Masks from text descriptions and image files.

A description is ``ellipse:0.5,0.6,0.2,0.3`` (centre and radii) or ``rectangle:0.2,0.5,0.8,0.9`` (left, top, right,
bottom), both as fractions of the side; ``label:hair`` or ``label:hair,glasses`` (classes of the label map); or
``changed`` (where the second image differs from the first). ``+`` joins several descriptions. A mask file is white
where the mask is 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.errors import UserError

_NUMBERS = {"ellipse": "cx,cy,rx,ry", "rectangle": "x0,y0,x1,y1"}
_SUBSAMPLES = 4  # per pixel and axis, for antialiased edges


def is_description(text: str) -> bool:
    """Returns whether a text is a description of a mask, and not the path of a file."""
    return text == "changed" or text.split(":", 1)[0] in (*_NUMBERS, "label")


def check_description(text: str, labels: Sequence[str] | None = None, changed: bool = True) -> None:
    """Checks a description without drawing it.

    Args:
        text: Description, as explained at the top of this module.
        labels: Names of the classes of the label map; None if there is no label map.
        changed: Whether there is a second image.

    Raises:
        UserError: The shape is unknown, its numbers are wrong, it has no area, or it refers to a label or image that
            does not exist.
    """
    for part in text.split("+"):
        kind, _, rest = part.partition(":")
        if kind == "changed":
            if not changed:
                raise UserError("mask=changed: compares two images, but got one; give reference=<image>")
        elif kind == "label":
            if labels is None:
                raise UserError(f"mask={part}: the input has no label map; use input=synthfaces:…, a shape or a file")
            unknown = [name for name in rest.split(",") if name not in labels]
            if unknown:
                raise UserError(f"mask={part}: no label {unknown[0]!r}, expected some of {', '.join(labels)}")
        elif kind in _NUMBERS:
            _numbers(part)
        else:
            raise UserError(
                f"mask={part}: no such file or shape; expected ellipse:cx,cy,rx,ry, rectangle:x0,y0,x1,y1, label:…, "
                "changed or an image file"
            )


def draw_mask(
    text: str,
    size: int,
    label: Tensor | None = None,
    labels: Sequence[str] = (),
    image: Tensor | None = None,
    second: Tensor | None = None,
) -> Tensor:
    """Draws the mask of an image.

    Args:
        text: Description that :func:`check_description` accepts.
        size: Side in pixels.
        label: Label map (size, size), for ``label:``.
        labels: Names of the classes of the label map.
        image: Image (3, size, size), for ``changed``.
        second: Second image (3, size, size), for ``changed``.

    Returns:
        Mask (1, size, size) in [0, 1].
    """
    mask = torch.zeros(1, size, size)
    for part in text.split("+"):
        kind, _, rest = part.partition(":")
        if kind == "label":
            assert label is not None
            numbers = torch.tensor([labels.index(name) for name in rest.split(",")])
            drawn = torch.isin(label, numbers)[None].float()
        elif kind == "changed":
            assert image is not None and second is not None
            drawn = _changed(image, second)
        else:
            drawn = _shape(kind, _numbers(part), size)
        mask = torch.maximum(mask, drawn)
    return mask


def read_mask(path: Path, of: Path | None, size: int, mode: str = "crop") -> Tensor:
    """Reads a mask from an image file, cropped and resized as its image.

    Args:
        path: File of the mask.
        of: File of the image of this mask, which must have the same size; None accepts a mask of any size.
        size: Side in pixels.
        mode: See :class:`.Geometry`.

    Returns:
        Mask (1, size, size) in [0, 1].

    Raises:
        UserError: The file is not an image, or has another size than its image.
    """
    if of is not None:
        (height, width), (rows, columns) = (read_image(file).shape[-2:] for file in (path, of))
    if of is not None and (height, width) != (rows, columns):
        got, expected = f"{width} x {height}", f"{columns} x {rows}"
        raise UserError(f"mask {path}: is {got} pixels, but {of} is {expected}; expected the same size")
    return (read_image(path, size, mode).mean(0, keepdim=True) + 1) / 2  # type: ignore[arg-type]


def check_mask(mask: Tensor, what: str) -> Tensor:
    """Returns a mask (1, S, S) that is not empty.

    Args:
        mask: The mask.
        what: Name of the mask for messages.

    Raises:
        UserError: No pixel is above one half.
    """
    if float(mask.max()) < 0.5:
        raise UserError(f"{what}: the mask is empty, expected some white pixels")
    return mask


def _numbers(part: str) -> list[float]:
    kind, _, rest = part.partition(":")
    try:
        numbers = [float(number) for number in rest.split(",")]
    except ValueError:
        numbers = []
    if len(numbers) != 4:
        raise UserError(f"mask={part}: expected {kind}:{_NUMBERS[kind]}, four numbers as fractions of the side")
    a, b, c, d = numbers
    if not (c > 0 and d > 0 if kind == "ellipse" else c > a and d > b):
        raise UserError(
            f"mask={part}: has no area, expected {kind}:{_NUMBERS[kind]} with "
            + ("positive radii" if kind == "ellipse" else "x0 < x1 and y0 < y1")
        )
    return numbers


def _shape(kind: str, numbers: Sequence[float], size: int) -> Tensor:
    centres = (torch.arange(size * _SUBSAMPLES) + 0.5) / (size * _SUBSAMPLES)
    y, x = centres[:, None], centres[None, :]
    a, b, c, d = numbers
    if kind == "ellipse":
        inside = ((x - a) / c).square() + ((y - b) / d).square() <= 1
    else:
        inside = (x >= a) & (x < c) & (y >= b) & (y < d)
    return F.avg_pool2d(inside[None].float(), _SUBSAMPLES)


def _changed(image: Tensor, second: Tensor) -> Tensor:
    """Returns where two images differ by more than rounding, dilated by 1/64 of the side."""
    differs = ((image - second).abs().amax(0, keepdim=True) > 4 / 127.5).float()
    width = 2 * max(1, image.shape[-1] // 64) + 1
    return F.max_pool2d(differs[None], width, stride=1, padding=width // 2)[0]
