"""Names, captions and values of a stranger become text of a page, never elements, attributes or what ends a page."""

from __future__ import annotations

import csv
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import pytest
from PIL import Image

from stylegan_inv.evaluate.score_table import Results
from stylegan_inv.report import __main__ as report
from stylegan_inv.visualization.html_page import code, collapsible, definitions, figure, table, tiles, write_page
from stylegan_inv.visualization.line_chart import line_chart
from stylegan_inv.visualization.metrics_table import print_metrics
from tests.cli import call

#: What a browser takes for markup, if it is not escaped, or what changes the order of the text around it.
HOSTILE = (
    "<script>alert(1)</script>",
    "--></style></title></pre></textarea><img src=x onerror=alert(1)>",
    "\" onload=\"alert(1)' style='x:expression(1)",
    "javascript:alert(1)",
    "<![CDATA[<!--<svg/onload=alert(1)>]]>",
    "{{ 7 * 7 }}{% raw %}{# #}",
    "&lt;b&gt;&#60;b&#62;&nbsp",
    "a\0b\x1b]0;title\x07\r\n\x0c\x85",
    "\u202eevil\u2066\u200f",
    "\ud800\udce9",
    "]]>`${alert(1)}`</svg><foreignObject><body onload=alert(1)>",
)
#: The elements of the templates, and their attributes.
ELEMENTS = frozenset(
    "html head meta title style body header h1 h2 p nav a main section div table caption thead tbody tr th td figure "
    "img figcaption svg text line polyline g circle dl dt dd pre details summary b span".split()
)
ATTRIBUTES = frozenset(
    "lang charset name content http-equiv href id class alt src viewbox role aria-label x y text-anchor dy x1 x2 y1 y2 "
    "style points r cx cy".split()
)
STYLE = re.compile(r"(stroke|fill):var\(--c\d\)(;font-weight:600)?")


class Page(HTMLParser):
    """Checks each element and attribute, and keeps the text."""

    def __init__(self, page: str) -> None:
        super().__init__(convert_charrefs=True)
        self.texts: list[str] = []
        self.elements: list[str] = []
        self.feed(page)
        self.close()

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        assert tag in ELEMENTS, tag
        self.elements.append(tag)
        for name, value in attributes:
            assert name in ATTRIBUTES and value is not None, (tag, name)
            if name == "href":
                assert re.fullmatch(r"#s\d+", value), value
            elif name == "src":
                assert re.fullmatch(r"data:image/png;base64,[A-Za-z0-9+/=]+", value), value[:80]
            elif name == "style":
                assert STYLE.fullmatch(value), value
            elif name not in ("alt", "aria-label", "content"):
                assert re.fullmatch(r"[\w .,#-]*", value), (name, value)
            else:
                self.texts.append(value)

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    def handle_comment(self, data: str) -> None:
        raise AssertionError(f"a comment: {data}")

    def handle_decl(self, decl: str) -> None:
        assert decl == "doctype html"

    def handle_pi(self, data: str) -> None:
        raise AssertionError(f"an instruction: {data}")

    unknown_decl = handle_pi


def hostile_run(folder: Path) -> Path:
    """A run in whose files every text is hostile."""
    for name in ("panels", "worst", "codes"):
        (folder / name).mkdir(parents=True)
        Image.new("RGB", (4, 4)).save(folder / name / "last.png")
    pairs = {text: text for text in HOSTILE}
    (folder / "config.yaml").write_text(json.dumps({"method_name": HOSTILE[1], **pairs}))
    (folder / "versions.json").write_text(json.dumps({**pairs, "list": [*HOSTILE], "map": pairs}))
    metrics = {
        f"{kind}{text}{end}": 0.5 for kind in ("val/", "") for text in HOSTILE for end in ("", "_step1", "_step2")
    }
    (folder / "metrics.json").write_text(json.dumps({**metrics, "seconds": HOSTILE[0], HOSTILE[0] + "2": HOSTILE[1]}))
    columns = [
        f"{kind}{text}{end}"
        for kind in ("train/loss/", "val/", "lr/")
        for text in HOSTILE
        for end in ("", "_step3", "_step7")
    ]
    for file, heads in (("metrics.csv", ["step", *columns]), ("worst/last.csv", ["step", "image", *HOSTILE])):
        with (folder / file).open("w", newline="", encoding="utf-8", errors="replace") as stream:
            writer = csv.writer(stream)
            writer.writerow([head.replace("\0", "") for head in heads])
            for step in range(3):
                values = [step + 1.0 if file == "metrics.csv" else text.replace("\0", "") for text in ("", *heads[2:])]
                writer.writerow([step, *values])
    (folder / "codes" / "last.json").write_text(json.dumps({"step": HOSTILE[0], "images": [*HOSTILE]}))
    summary = dict.fromkeys(("mean", "std", "low", "high", "count", "skipped"), HOSTILE[1]) | {"mean": 0.5}
    evaluation = {
        "protocol": {**pairs, "a": [*HOSTILE]}, "counts": {"images": HOSTILE[0]}, "sets": dict.fromkeys(HOSTILE, 1.0),
        "metrics": {f"{text}{end}": summary for text in HOSTILE for end in ("", "_step1")},
    }  # fmt: skip
    for text in HOSTILE:
        place = folder / "evaluation" / text.replace("/", "∕").replace("\0", "").replace("\ud800", "\udcff")
        place.mkdir(parents=True)
        (place / "metrics.json").write_text(json.dumps(evaluation))
    return folder


def test_the_report_of_a_hostile_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = hostile_run(tmp_path / '"><img src=x onerror=alert(1)>')
    call(monkeypatch, report, f"run='{run}'", f"output='{tmp_path}/a.html'", "title='</title><script>'")
    page = Page((tmp_path / "a.html").read_text(encoding="utf-8"))
    shown = "".join(page.texts)
    for text in (HOSTILE[0], HOSTILE[1], HOSTILE[2], HOSTILE[5]):
        assert text in shown
    assert page.elements.count("section") > len(HOSTILE) and "svg" in page.elements


def test_the_report_of_a_hostile_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = tmp_path / "<script>"
    run.mkdir()
    with (run / "sweep.csv").open("w", newline="", encoding="utf-8", errors="replace") as file:
        csv.writer(file).writerows([[text.replace("\0", "") for text in HOSTILE]] * 3)
    call(monkeypatch, report, f"run='{run}'", f"output='{tmp_path}/a.html'")
    assert HOSTILE[1] in Page((tmp_path / "a.html").read_text(encoding="utf-8")).texts


def test_every_part_of_a_page(tmp_path: Path) -> None:
    picture = Image.new("RGB", (2, 2))
    for text in HOSTILE:
        lines = {text: [(0, 1), (1, 2)], "b": [(0, 1)]}
        parts = [
            text, table([text, text], [[text, 1.0], [2, text]], text), figure(picture, text), tiles({text: text}),
            definitions({text: text}), code(text), collapsible(text, text), line_chart(text, lines),
        ]  # fmt: skip
        write_page(text, {text: parts, "x": [text]}, tmp_path / "a.html", text)
        content = (tmp_path / "a.html").read_text(encoding="utf-8")
        Page(content)
        assert not re.search(r"[\0-\x08\x0b\x0c\x0e-\x1f\x7f\x85\u202e\u2066]", content), text
        assert "\u202e" not in text or content.count("\\u202eevil") > 10


@pytest.mark.parametrize("name", ["[/bold]", "[link=http://x]y[/link]", "[red]", "\\[a]"])
def test_tables_in_the_terminal(name: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Rich takes texts in square brackets for styles, and ends with an error at those that do not fit."""
    print_metrics({f"val/{name}": 0.5}, name)
    assert capsys.readouterr().out.count(name) == 2
    Results({"text": name}, {"images": 1}, {}, {name: 0.5}, {}, {}).print()
    assert capsys.readouterr().out.count(name) == 2
