"""Masks from a line of text: shapes, labels of a label map, or image files.

``ellipse:0.5,0.6,0.2,0.3`` (centre and radii), ``rectangle:0.2,0.5,0.8,0.9`` (left, top, right, bottom), both in shares
of the side; ``label:hair``, ``label:hair,glasses``; ``changed`` (where the second image differs from the first); or
the path of a picture, white where the mask is 1. Shapes and labels are joined by ``+``.
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
_FINE = 4  # samples a pixel and axis, for soft edges


def is_description(text: str) -> bool:
    """Whether this describes a mask, rather than naming a file."""
    return text == "changed" or text.split(":", 1)[0] in (*_NUMBERS, "label")


def check_description(text: str, labels: Sequence[str] | None = None, changed: bool = True) -> None:
    """Check a description without drawing it.

    Args:
        text: see the module.
        labels: names of the label map's classes, None where there is no map.
        changed: whether there is a second image.

    Raises:
        UserError: an unknown shape, another count of numbers, a shape without area, a label without a map.
    """
    for part in text.split("+"):
        kind, _, rest = part.partition(":")
        if kind == "changed":
            if not changed:
                raise UserError("mask=changed: compares two images, but got one; give reference=…")
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
                "changed or a picture"
            )


def draw_mask(
    text: str,
    size: int,
    label: Tensor | None = None,
    labels: Sequence[str] = (),
    image: Tensor | None = None,
    second: Tensor | None = None,
) -> Tensor:
    """The mask of one image.

    Args:
        text: checked by `check_description`.
        size: side in pixels.
        label: its label map (size, size), for ``label:``.
        labels: names of the label map's classes.
        image: (3, size, size) and
        second: the same, for ``changed``.

    Returns:
        (1, size, size) in [0, 1].
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
    """A mask from a picture, brought to the square as its image is.

    Args:
        path: of the mask.
        of: the image that it belongs to, whose size it must have; None: of any size.
        size: side in pixels.
        mode: ``crop`` or ``fit``.

    Returns:
        (1, size, size) in [0, 1].

    Raises:
        UserError: not a picture, or of another size than its image.
    """
    if of is not None:
        (height, width), (rows, columns) = (read_image(file).shape[-2:] for file in (path, of))
    if of is not None and (height, width) != (rows, columns):
        got, expected = f"{width} x {height}", f"{columns} x {rows}"
        raise UserError(f"mask {path}: is {got} pixels, but {of} is {expected}; expected the same size")
    return (read_image(path, size, mode).mean(0, keepdim=True) + 1) / 2  # type: ignore[arg-type]


def check_mask(mask: Tensor, what: str) -> Tensor:
    """Return a mask (1, S, S), or say that it is empty.

    Raises:
        UserError: nowhere above one half.
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
        raise UserError(f"mask={part}: expected {kind}:{_NUMBERS[kind]}, four numbers in shares of the side")
    a, b, c, d = numbers
    if not (c > 0 and d > 0 if kind == "ellipse" else c > a and d > b):
        raise UserError(
            f"mask={part}: has no area, expected {kind}:{_NUMBERS[kind]} with "
            + ("positive radii" if kind == "ellipse" else "x0 < x1 and y0 < y1")
        )
    return numbers


def _shape(kind: str, numbers: Sequence[float], size: int) -> Tensor:
    centres = (torch.arange(size * _FINE) + 0.5) / (size * _FINE)
    y, x = centres[:, None], centres[None, :]
    a, b, c, d = numbers
    if kind == "ellipse":
        inside = ((x - a) / c).square() + ((y - b) / d).square() <= 1
    else:
        inside = (x >= a) & (x < c) & (y >= b) & (y < d)
    return F.avg_pool2d(inside[None].float(), _FINE)


def _changed(image: Tensor, second: Tensor) -> Tensor:
    """Where two images differ by more than rounding, widened by a pixel or two."""
    differs = ((image - second).abs().amax(0, keepdim=True) > 4 / 127.5).float()
    width = 2 * max(1, image.shape[-1] // 64) + 1
    return F.max_pool2d(differs[None], width, stride=1, padding=width // 2)[0]
