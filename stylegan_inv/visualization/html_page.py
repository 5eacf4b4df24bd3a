"""Self-contained HTML pages: one file with its style and images inside, without scripts or external resources.

    write_page(
        "Inversion of SynthFaces",
        {
            "Result": ["Mean of three seeds.", table(["method", "mse"], [["psp", 0.0075], ["restyle", 0.0067]])],
            "Trade-off": [figure(folder / "tradeoff.png", "Distortion against editability")],
        },
        folder / "report.html",
    )

The functions return :class:`markupsafe.Markup`, which the page inserts unchanged. All other text (titles, captions,
cells, a plain string among the parts of a section) is escaped. The layout is in ``templates/``.
"""

from __future__ import annotations

import base64
import math
import mimetypes
import re
from collections.abc import Mapping, Sequence
from functools import lru_cache
from io import BytesIO
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup
from PIL import Image

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.utils.regular_files import open_regular, read_bytes
from stylegan_inv.utils.text import readable

#: Cells that are aligned to the right: 0.0067, -3, 12 %, 1.2e-4 ± 0.1, 27.4 dB
_NUMBER = re.compile(r"[-+−±]?(\d[\d,]*\.?\d*|\.\d+|nan|inf)([eE][-+]?\d+)?\b.{0,40}", re.DOTALL)
#: Placeholders for a missing value in a column of numbers.
_MISSING = ("", "-", "–", "—")
_IMAGE_TYPES = ("image/png", "image/jpeg", "image/gif", "image/webp")
#: What ``templates/page.html`` has in its head.
_MARK, _HEAD_BYTES = b'<meta name="generator" content="stylegan_inv">', 1024
#: Characters that HTML does not allow, and those that change the order of the text around them.
_UNSEEN = re.compile(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f-\x9f\u202a-\u202e\u2066-\u2069\ufffe\uffff]")
#: Size limit of an image file of a page.
_MOST_BYTES = 1 << 28


def write_page(title: str, sections: Mapping[str, Sequence[str]], file: str | Path, subtitle: str = "") -> Path:
    """Writes a page with a table of contents and the sections in their order.

    Args:
        title: Heading and title of the page.
        sections: Heading -> parts: ``Markup`` from a function of this module, or a plain string, which becomes a
            paragraph. Sections without parts are omitted.
        file: Path of the page. Its folder is created; an existing page is replaced atomically.
        subtitle: A line below the title.

    Returns:
        ``file``.
    """
    shown = {heading: _elements([part for part in parts if part]) for heading, parts in sections.items()}
    text = render("page.html", title=title, subtitle=subtitle, sections={h: p for h, p in shown.items() if p})
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        shown_text = _UNSEEN.sub(lambda found: f"\\u{ord(found[0]):04x}", readable(text))
        temporary.write_text(shown_text, encoding="utf-8")
    return file


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Markup:
    """Returns a table that scrolls horizontally where the window is narrow.

    Args:
        heads: One heading for each column.
        rows: Cells. Floats are shown with 4 significant digits, None and NaN as empty cells. Columns of numbers (or of
            text that begins with a number) are aligned to the right.
        caption: Text above the table.

    Raises:
        UserError: If a row does not have one cell for each heading.
    """
    if wrong := [len(row) for row in rows if len(row) != len(heads)]:
        raise UserError(f"table: got a row of {wrong[0]} cells, expected {len(heads)}: {', '.join(heads)}")
    cells = [[_cell(cell) for cell in row] for row in rows]
    numeric = [_is_numeric([row[column] for row in cells]) for column in range(len(heads))]
    return _element("table", heads, cells, numeric, caption)


def figure(source: str | Path | Image.Image, caption: str = "") -> Markup:
    """Returns an image, embedded as a data URI, with its caption below.

    Args:
        source: A PNG, JPEG, GIF or WebP file, embedded unchanged; or a Pillow image, embedded as PNG.
        caption: Also the alternative text of the image.

    Raises:
        UserError: If the file cannot be read or has another format.
    """
    if isinstance(source, Image.Image):
        buffer = BytesIO()
        source.save(buffer, "png")
        kind, content = "image/png", buffer.getvalue()
    else:
        kind = mimetypes.guess_type(str(source))[0] or ""
        if kind not in _IMAGE_TYPES:
            raise UserError(f"{source}: expected a .png, .jpg, .gif or .webp for a report")
        content = read_bytes(source, _MOST_BYTES, "an image file")
    data = base64.b64encode(content).decode("ascii")
    return _element("figure", f"data:{kind};base64,{data}", caption)


def is_page(file: Path) -> bool:
    """Returns whether `write_page` has written a file, of which only the beginning is read."""
    with open_regular(file) as opened:
        return _MARK in opened.read(_HEAD_BYTES)


def tiles(values: Mapping[str, object]) -> Markup:
    """Returns the most important numbers in large type: label -> value."""
    return _element("tiles", {name: _cell(value) for name, value in values.items()})


def definitions(values: Mapping[str, object]) -> Markup:
    """Returns a list of labels and texts, e.g. a protocol or the versions of packages."""
    return _element("definitions", {name: _cell(value) for name, value in values.items()})


def code(text: str) -> Markup:
    """Returns preformatted text, e.g. a config or a command."""
    return _element("code", text)


def side_by_side(*parts: str) -> Markup:
    """Returns parts next to each other where the window is wide enough."""
    return _element("group", "columns", _elements(parts))


def grid(*parts: str) -> Markup:
    """Returns small parts of equal width, with as many in a row as fit; empty if all parts are."""
    return _element("group", "grid", _elements(parts)) if any(parts) else Markup("")


def collapsible(summary: str, *parts: str) -> Markup:
    """Returns parts that a click on the summary shows and hides."""
    return _element("collapsible", summary, _elements(parts))


def render(template: str, **values: Any) -> Markup:
    """Returns a file of ``templates/`` with its variables replaced; values that are not ``Markup`` are escaped."""
    return Markup(_templates().get_template(template).render(values))


@lru_cache(maxsize=1)
def _templates() -> Environment:
    loader = PackageLoader("stylegan_inv.visualization")
    return Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)


def _element(macro: str, *arguments: Any) -> Markup:
    return getattr(_templates().get_template("elements.html").module, macro)(*arguments)


def _elements(parts: Sequence[str]) -> list[Markup]:
    """Turns plain strings into paragraphs."""
    return [part if isinstance(part, Markup) else _element("paragraph", part) for part in parts]


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_numeric(column: Sequence[str]) -> bool:
    texts = [text.striptags() if isinstance(text, Markup) else text for text in column]
    present = [text for text in texts if text not in _MISSING]
    return bool(present) and all(_NUMBER.fullmatch(text) for text in present)
