"""A static page that can be mailed: one HTML file with its style and pictures inside, no script, nothing loaded.

    write_report(
        "Inversion of SynthFaces",
        {
            "Result": ["Mean of three seeds.", table(["method", "mse"], [["psp", 0.0075], ["restyle", 0.0067]])],
            "Trade-off": [picture(folder / "tradeoff.png", "Distortion against editability")],
        },
        folder / "report.html",
    )

Functions here return `Html`, which is put into the page as it is. Everything else (titles, captions, cells, a plain
string among the parts of a section: a paragraph) is text and is escaped.
"""

from __future__ import annotations

import base64
import math
import mimetypes
import re
from collections.abc import Mapping, Sequence
from html import escape
from io import BytesIO
from pathlib import Path

from PIL import Image

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write

_STYLE = Path(__file__).with_suffix(".css")
#: A cell of these is set flush right: 0.0067, -3, 12 %, 1.2e-4 ± 0.1, 27.4 dB
_NUMBER = re.compile(r"[-+−±]?(\d[\d,]*\.?\d*|\.\d+|nan|inf)([eE][-+]?\d+)?\b.{0,40}", re.DOTALL)
#: What stands in a column of numbers where there is none.
_NOTHING = ("", "-", "–", "—")


class Html(str):
    """Text that is HTML already; all other text is escaped where it enters a page."""


def write_report(title: str, sections: Mapping[str, Sequence[str]], file: str | Path, subtitle: str = "") -> Path:
    """Write a page with a table of contents and the sections in their order.

    Args:
        title: Heading and title of the page.
        sections: Heading -> parts, each `Html` from a function of this module or a plain string, which becomes a
            paragraph. A section without parts is left out.
        file: Where to; its folder is made. An old page is replaced at once, never half.
        subtitle: A line below the title.

    Returns:
        ``file``.
    """
    shown = {heading: [part for part in parts if part] for heading, parts in sections.items()}
    shown = {heading: parts for heading, parts in shown.items() if parts}
    contents = "".join(f'<a href="#s{i}">{escape(heading)}</a>' for i, heading in enumerate(shown))
    body = "".join(
        f'<section id="s{i}"><h2>{escape(heading)}</h2>{"".join(_html(part) for part in parts)}</section>\n'
        for i, (heading, parts) in enumerate(shown.items())
    )
    page = (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">\n'
        # Not a promise but a rule that the browser keeps: no script, no font, no request.
        '<meta http-equiv="Content-Security-Policy" '
        "content=\"default-src 'none'; img-src data:; style-src 'unsafe-inline'\">\n"
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(title)}</title>\n<style>\n{_STYLE.read_text(encoding='utf-8')}</style></head>\n<body>\n"
        f"<header><h1>{escape(title)}</h1>{f'<p>{escape(subtitle)}</p>' if subtitle else ''}"
        f"{f'<nav>{contents}</nav>' if len(shown) > 1 else ''}</header>\n<main>\n{body}</main>\n</body></html>\n"
    )
    file = Path(file)
    file.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(file) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return file


def table(heads: Sequence[str], rows: Sequence[Sequence[object]], caption: str = "") -> Html:
    """A table; it scrolls by itself where the window is narrow.

    Args:
        heads: One a column.
        rows: Cells: floats are shown with 4 digits, None and NaN as nothing, `Html` as it is. A column of numbers
            (or of text that begins with one) is set flush right.
        caption: Shown above.

    Raises:
        UserError: A row of another length than ``heads``.
    """
    if wrong := [len(row) for row in rows if len(row) != len(heads)]:
        raise UserError(f"table: got a row of {wrong[0]} cells, expected {len(heads)}: {', '.join(heads)}")
    cells = [[_cell(cell) for cell in row] for row in rows]
    right = [_is_of_numbers([row[column] for row in cells]) for column in range(len(heads))]

    def line(tag: str, texts: Sequence[str]) -> str:
        made = (f"<{tag}{' class=n' if r else ''}>{_inline(t)}</{tag}>" for t, r in zip(texts, right, strict=True))
        return f"<tr>{''.join(made)}</tr>"

    said = f"<caption>{_inline(caption)}</caption>" if caption else ""
    body = "".join(line("td", row) for row in cells)
    return Html(f"<div class=wide><table>{said}<thead>{line('th', heads)}</thead><tbody>{body}</tbody></table></div>")


def picture(source: str | Path | Image.Image, caption: str = "") -> Html:
    """A picture inside the page, by a data URI, with its caption below.

    Args:
        source: A PNG, JPEG, GIF or WebP file, put in as it is; or a Pillow image, put in as PNG.
        caption: Also what is read out instead of the picture.

    Raises:
        UserError: The file cannot be read or is none of these.
    """
    if isinstance(source, Image.Image):
        buffer = BytesIO()
        source.save(buffer, "png")
        kind, content = "image/png", buffer.getvalue()
    else:
        kind, content = mimetypes.guess_type(str(source))[0] or "", b""
        if kind not in ("image/png", "image/jpeg", "image/gif", "image/webp"):
            raise UserError(f"{source}: expected a .png, .jpg, .gif or .webp for a report")
        try:
            content = Path(source).read_bytes()
        except OSError as error:
            raise UserError(f"{source}: cannot be read ({error.strerror})") from error
    data = base64.b64encode(content).decode("ascii")
    said = f"<figcaption>{_inline(caption)}</figcaption>" if caption else ""
    return Html(f'<figure><img alt="{escape(caption)}" src="data:{kind};base64,{data}">{said}</figure>')


def tiles(values: Mapping[str, object]) -> Html:
    """The few figures that matter, large: label -> value."""
    made = (f"<div><b>{_inline(_cell(value))}</b><span>{_inline(name)}</span></div>" for name, value in values.items())
    return Html(f"<div class=tiles>{''.join(made)}</div>")


def facts(values: Mapping[str, object]) -> Html:
    """Label and text, line by line: a protocol, versions."""
    made = (f"<dt>{_inline(name)}</dt><dd>{_inline(_cell(value))}</dd>" for name, value in values.items())
    return Html(f"<dl>{''.join(made)}</dl>")


def code(text: str) -> Html:
    """Text as it is, in lines: a config, a command."""
    return Html(f"<pre>{escape(text)}</pre>")


def beside(*parts: str) -> Html:
    """Parts side by side where the window is wide enough."""
    return Html(f"<div class=beside>{''.join(_html(part) for part in parts)}</div>")


def grid(*parts: str) -> Html:
    """Small parts of equal width, as many in a row as fit."""
    return Html(f"<div class=grid>{''.join(_html(part) for part in parts)}</div>") if any(parts) else Html("")


def folded(summary: str, *parts: str) -> Html:
    """Parts that open with a click; what is long and rarely read."""
    return Html(f"<details><summary>{escape(summary)}</summary>{''.join(_html(part) for part in parts)}</details>")


def _html(part: str) -> str:
    return part if isinstance(part, Html) else f"<p>{escape(part)}</p>"


def _inline(text: str) -> str:
    return text if isinstance(text, Html) else escape(text)


def _cell(value: object) -> str:
    if value is None or (isinstance(value, float) and math.isnan(value)):
        return ""
    if isinstance(value, str):
        return value
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _is_of_numbers(column: Sequence[str]) -> bool:
    texts = [re.sub("<[^>]*>", "", text) if isinstance(text, Html) else text for text in column]
    some = [text for text in texts if text not in _NOTHING]
    return bool(some) and all(_NUMBER.fullmatch(text) for text in some)
