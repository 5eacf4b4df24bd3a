"""Contact sheets: images in a table with captions."""

from __future__ import annotations

import unicodedata
from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path

import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from stylegan_inv.data.images.image_files import to_pil
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.text import readable

#: Longer captions are shortened in any cell.
_MOST_LETTERS = 400
_BACKGROUND, _INK, _QUIET, _WARNING = (236, 236, 236), (20, 20, 20), (80, 80, 80), (190, 20, 20)


def contact_sheet(
    columns: Mapping[str, Tensor] | Sequence[Tensor],
    captions: Sequence[str] | None = None,
    *,
    row_captions: Sequence[str] | None = None,
    row_warnings: Sequence[Sequence[str]] | None = None,
    cell: int = 160,
    gap: int = 4,
) -> Image.Image:
    """Draws images as a table with a caption above each column.

    Args:
        columns: Caption -> images (N, C, H, W), or the rows as a list of tensors (columns, C, H, W) with ``captions``.
            C is 3, or 1 for masks and other greyscale images; values in [-1, 1]. The image size may differ between
            columns.
        captions: Column captions for a list of rows; None for no captions.
        row_captions: One short text for each row, at its left.
        row_warnings: For each row the short texts of its warnings, written in red below its caption; the first image of
            a row with warnings has a red frame.
        cell: Side of a cell in pixels, at least 8. Images are resized to it.
        gap: Pixels between cells.

    Returns:
        An RGB image.

    Raises:
        UserError: If there are no images, the columns differ in length, or a shape is not supported.
    """
    table = _table(columns, captions)
    whole_number("contact_sheet: cell", cell, least=8)
    whole_number("contact_sheet: gap", gap, least=0)
    names, count = list(table), len(next(iter(table.values())))
    if row_captions is not None and len(row_captions) != count:
        raise UserError(f"contact_sheet: got {len(row_captions)} row captions for {count} rows")
    if row_warnings is not None and len(row_warnings) != count:
        raise UserError(f"contact_sheet: got warnings for {len(row_warnings)} of {count} rows")
    texts = _row_texts(count, row_captions, row_warnings)

    fonts = _Fonts(max(11, round(cell * 0.10)))
    line = fonts.height()
    top = line + 2 * gap if any(name.strip() for name in names) else gap
    left = gap
    if widest := max((fonts.width(text) for row in texts for text, _ in row), default=0):
        left += min(widest, round(1.25 * cell)) + 2 * gap
    sheet = Image.new("RGB", (left + len(names) * (cell + gap), top + count * (cell + gap)), _BACKGROUND)
    draw = ImageDraw.Draw(sheet)
    for column, name in enumerate(names):
        x = left + column * (cell + gap)
        text = _shorten(name, fonts, cell)
        draw.text((x + (cell - fonts.width(text)) // 2, gap), text, fill=_INK, font=fonts.of(text))
        for row, image in enumerate(table[name]):
            sheet.paste(_fit(to_pil(image), cell), (x, top + row * (cell + gap)))
    for row, lines in enumerate(texts):
        y = top + row * (cell + gap)
        if any(colour == _WARNING for _, colour in lines):
            width = max(1, gap - 1)
            low, high = (left - width, y - width), (left + cell - 1 + width, y + cell - 1 + width)
            draw.rectangle((low, high), outline=_WARNING, width=width)
        y += max(0, cell - line * len(lines)) // 2
        for number, (text, colour) in enumerate(lines):
            text = _shorten(text, fonts, left - 3 * gap)
            draw.text((gap, y + number * line), text, fill=colour, font=fonts.of(text))
    return sheet


def _row_texts(
    count: int, captions: Sequence[str] | None, warnings: Sequence[Sequence[str]] | None
) -> list[list[tuple[str, tuple[int, int, int]]]]:
    """Returns the lines of text at the left of each row, with their colours."""
    named = [[(text, _QUIET)] if text else [] for text in captions or [""] * count]
    warned = [[(text, _WARNING) for text in texts] for texts in warnings or [()] * count]
    return [one + others for one, others in zip(named, warned, strict=True)]


def difference_image(image: Tensor, target: Tensor, gain: float = 2.0) -> Tensor:
    """Returns the absolute difference of two images: black where they agree.

    Args:
        image: (B, 3, H, W) in [-1, 1].
        target: The same shape.
        gain: Factor of the difference. 1 maps the largest possible difference (black against white) to white; the
            default of 2 makes small differences visible.

    Returns:
        gain * abs(image - target), as an image in [-1, 1].

    Raises:
        UserError: If the shapes differ.
    """
    if image.shape != target.shape:
        raise UserError(f"difference_image: got shapes {tuple(image.shape)} and {tuple(target.shape)}, expected equal")
    difference = (image.float().clamp(-1, 1) - target.to(image.device).float().clamp(-1, 1)).abs()
    return (gain * difference - 1.0).clamp(-1, 1)


def _table(columns: Mapping[str, Tensor] | Sequence[Tensor], captions: Sequence[str] | None) -> dict[str, Tensor]:
    if not isinstance(columns, Mapping):
        rows = [row.detach().float().cpu() for row in columns]
        if not rows or any(row.shape != rows[0].shape or row.ndim != 4 for row in rows):
            raise UserError(
                f"contact_sheet: got rows of shapes {[tuple(row.shape) for row in rows]}, expected (columns, C, H, W), "
                "the same for all"
            )
        stacked = torch.stack(rows, dim=1)
        # Without captions the columns still need distinct keys; spaces are invisible.
        names = [" " * i for i in range(len(stacked))] if captions is None else list(captions)
        if len(names) != len(stacked) or len(set(names)) != len(names):
            raise UserError(f"contact_sheet: got captions {names}, expected {len(stacked)} different ones")
        return dict(zip(names, stacked, strict=True))
    if captions is not None:
        raise UserError("contact_sheet: got a dict and captions; its keys are the captions")
    table = {str(name): images.detach().float().cpu() for name, images in columns.items()}
    shapes = {name: tuple(images.shape) for name, images in table.items()}
    if not table or any(len(s) != 4 or s[0] < 1 or s[1] not in (1, 3) for s in shapes.values()):
        raise UserError(f"contact_sheet: got columns {shapes}, expected at least one of shape (N, 1 or 3, H, W)")
    if len({s[0] for s in shapes.values()}) != 1:
        raise UserError(f"contact_sheet: got columns {shapes}, expected the same number of images in each")
    return table


def _fit(image: Image.Image, cell: int) -> Image.Image:
    """Resizes an image to a square cell; other aspect ratios are centred on the background."""
    scale = cell / max(image.size)
    size = max(1, round(image.width * scale)), max(1, round(image.height * scale))
    # Nearest-neighbour interpolation would show blocks of uneven width unless the ratio is an integer.
    image = image.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    if size == (cell, cell):
        return image
    square = Image.new("RGB", (cell, cell), _BACKGROUND)
    square.paste(image, ((cell - size[0]) // 2, (cell - size[1]) // 2))
    return square


_Font = ImageFont.FreeTypeFont | ImageFont.ImageFont


def _font(size: int) -> _Font:
    # A scalable font, or Pillow's bitmap font where it was built without FreeType.
    return ImageFont.load_default(size)


class _Fonts:
    """The font of plain captions, and one with the letters that it lacks, which is loaded when it is needed.

    Args:
        size: Size of the letters in pixels.
    """

    def __init__(self, size: int) -> None:
        self.plain, self._size = _font(size), size

    def of(self, text: str) -> _Font:
        """Returns the font for a text that `drawable` has returned."""
        return self.plain if text.isascii() else ImageFont.truetype(str(_wide_font()[0]), self._size)

    def drawable(self, text: str) -> str:
        """Returns a text of at most 400 letters, with a question mark for each letter that no font has."""
        text = " ".join(readable(text).split())
        if len(text) > _MOST_LETTERS:
            text = text[: _MOST_LETTERS // 2] + text[-_MOST_LETTERS // 2 :]
        if text.isascii() or not isinstance(self.plain, ImageFont.FreeTypeFont):
            return text.encode("ascii", "replace").decode()
        known = _wide_font()[1]
        return "".join(c if c.isascii() or c in known else "?" for c in unicodedata.normalize("NFC", text))

    def width(self, text: str) -> int:
        """Returns the width of a text in pixels."""
        text = self.drawable(text)
        return round(self.of(text).getlength(text))

    def height(self) -> int:
        """Returns the height of a line in pixels."""
        return round(self.plain.getbbox("Ágjy")[3])


@cache
def _wide_font() -> tuple[Path, frozenset[str]]:
    """Returns the file of DejaVu Sans, which matplotlib carries, and its characters; no characters without the file."""
    import matplotlib  # slow to import
    from matplotlib.ft2font import FT2Font

    file = Path(matplotlib.get_data_path(), "fonts", "ttf", "DejaVuSans.ttf")
    return file, frozenset(map(chr, FT2Font(str(file)).get_charmap())) if file.is_file() else frozenset()


def _shorten(text: str, fonts: _Fonts, width: int) -> str:
    """Shortens a text in the middle, as the ends of file names distinguish them best."""
    text = fonts.drawable(text)
    if fonts.width(text) <= width:
        return text
    for keep in range(len(text) - 1, 1, -1):
        short = f"{text[: (keep + 1) // 2]}...{text[len(text) - keep // 2 :]}"
        if fonts.width(short) <= width:
            return short
    return text[:1]
