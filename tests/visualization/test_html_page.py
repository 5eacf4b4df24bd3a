"""HTML pages are escaped, self-contained and well-formed, and hold the numbers and images that they were given."""

from __future__ import annotations

import base64
import csv
import math
import re
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from stylegan_inv.errors import UserError
from stylegan_inv.report.folder_reader import FolderReader
from stylegan_inv.report.run_report import run_sections, sweep_sections
from stylegan_inv.visualization.html_page import (
    code,
    collapsible,
    definitions,
    figure,
    grid,
    side_by_side,
    table,
    tiles,
    write_page,
)
from stylegan_inv.visualization.line_chart import line_chart
from tests.cli import REPOSITORY, assert_user_error, run_cli
from tests.reported_run import make_run

EVIL = "<script>alert('x')</script> & \"quotes\" </style> ]]>"
VOID = {"meta", "img", "link", "br", "line", "circle", "polyline"}


class Page(HTMLParser):
    """Parses a page strictly (every tag is closed in order) and keeps its texts, attributes and tables."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.texts: list[str] = []
        self.rows: list[list[str]] = []
        self.feed(html)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag in VOID
        self.tags.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)
        if self.open and self.open[-1] in ("td", "th"):
            self.rows[-1][-1] += data


def assert_self_contained(html: str, page: Page) -> None:
    assert "script" not in {tag for tag, _ in page.tags} and "link" not in {tag for tag, _ in page.tags}
    for tag, attributes in page.tags:
        assert not any(name.startswith("on") for name in attributes), (tag, attributes)
        for name in ("src", "href", "srcset", "data", "action"):
            value = attributes.get(name) or ""
            assert not value or value.startswith(("data:image/", "#")), (tag, value[:80])
    style = html[html.index("<style>") : html.index("</style>")]
    assert "url(" not in style and "@import" not in style and "prefers-color-scheme: dark" in style


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    image = Image.new("RGB", (3, 2), (10, 200, 30))
    parts = [
        EVIL,
        table([EVIL], [[EVIL]], EVIL),
        figure(image, EVIL),
        tiles({EVIL: EVIL}),
        definitions({EVIL: EVIL}),
        code(EVIL),
        collapsible(EVIL, EVIL),
        side_by_side(EVIL, EVIL),
        grid(EVIL),
        line_chart(EVIL, {EVIL: [(0, 1), (1, 2)], "b": [(0, 1)]}),
    ]
    html = write_page(EVIL, {EVIL: parts, "empty": [], "none": [""]}, tmp_path / "new" / "r.html", EVIL).read_text()
    page = Page(html)
    assert_self_contained(html, page)
    assert "".join(page.texts).count(EVIL) == html.count("&lt;script&gt;alert(") - 3, (
        "the other occurrences are in attributes"
    )
    assert "empty" not in html and "none</h2>" not in html


def test_images_are_embedded_unchanged(tmp_path: Path) -> None:
    file = tmp_path / "a.png"
    Image.fromarray(np.arange(48, dtype=np.uint8).reshape(4, 4, 3)).save(file)
    page = Page(write_page("t", {"s": [figure(file, "a caption")]}, tmp_path / "r.html").read_text())
    (source,) = [attributes["src"] for tag, attributes in page.tags if tag == "img"]
    assert base64.b64decode(str(source).removeprefix("data:image/png;base64,")) == file.read_bytes()
    with pytest.raises(UserError, match="expected a .png"):
        figure(tmp_path / "a.svg")
    with pytest.raises(UserError, match="b.png: cannot be opened"):
        figure(tmp_path / "b.png")


def test_tables() -> None:
    made = table(["method", "mse", "n"], [["psp", 0.00751234, 3], ["e4e", math.nan, None]])
    page = Page(made)
    assert page.rows == [["method", "mse", "n"], ["psp", "0.007512", "3"], ["e4e", "", ""]]
    assert [a.get("class") for t, a in page.tags if t == "td"] == [None, "n", "n"] * 2
    columns = [["–", "1 ± 2"], ["", "-"], ["3 of 4", "98%"], ["a 1", "2"], ["+0.1 (-1 to 2)", "1e-5"]]
    page = Page(table(list("abcde"), list(zip(*columns, strict=True))))
    assert [a.get("class") for t, a in page.tags if t == "th"] == ["n", None, "n", None, "n"]
    with pytest.raises(UserError, match="row of 1 cells, expected 2: a, b"):
        table(["a", "b"], [["x"]])


@pytest.mark.parametrize("log", [False, True])
def test_curves_are_drawn_at_their_values(log: bool) -> None:
    ys = [1.0, 10.0, 1000.0] if log else [2.0, 3.0, 2.5]
    page = Page(line_chart("loss", {"": list(zip([0, 5, 10], ys, strict=True))}))
    (line,) = [attributes["points"] for tag, attributes in page.tags if tag == "polyline"]
    points = [tuple(map(float, pair.split(","))) for pair in str(line).split()]
    rules = [float(str(attributes["y1"])) for tag, attributes in page.tags if tag == "line"]
    labels = [float(text) for text in page.texts[1 : 1 + len(rules)]]
    scale = np.log if log else np.asarray
    expected = np.interp(scale(ys), scale(labels), rules)  # reads the axis labels
    assert [y for _, y in points] == pytest.approx(list(expected), abs=0.11)
    assert points[1][0] == pytest.approx((points[0][0] + points[2][0]) / 2, abs=0.11)


def test_charts_omit_points_that_are_not_finite_and_average_long_series() -> None:
    assert line_chart("a", {"": [(0, 1.0)]}) == "" and line_chart("a", {"": [(0, 1.0), (1, math.nan)]}) == ""
    for constant in (0.0, 5.0, -3.0, 1e-12, 1e12):
        assert "<polyline" in line_chart("a", {"": [(0, constant), (1, constant)]})
    page = Page(line_chart("a", {"": [(x, float(x % 2)) for x in range(1000)]}))
    (line,) = [attributes["points"] for tag, attributes in page.tags if tag == "polyline"]
    assert len(str(line).split()) == 250, "averaged in groups of four"
    heights = {pair.split(",")[1] for pair in str(line).split()}
    assert len(heights) == 1, "each group has the mean 1/2"


def test_report_of_a_run(tmp_path: Path) -> None:
    html = write_page("run", run_sections(FolderReader(make_run(tmp_path))), tmp_path / "report.html").read_text()
    page = Page(html)
    assert_self_contained(html, page)
    texts = {text.strip() for text in page.texts}
    assert {"Result", "Losses", "Worst images", "Latent codes", "Evaluation: test", "0.0123", "squared units"} <= texts
    assert ["007", "0.9"] in page.rows and ["a<b.png", "0.8"] in page.rows, "names are not parsed as numbers"
    assert ["mse", "0.5", "0.1", "0.4 to 0.6", "9", "1"] in page.rows and [
        "frechet",
        "1.5",
        "",
        "",
        "9",
        "0",
    ] in page.rows
    assert ["id", "", "0.1", "", "9", "1"] in page.rows and ["mse", "0.5"] in page.rows
    assert sum(tag == "img" for tag, _ in page.tags) == 3 and sum(tag == "svg" for tag, _ in page.tags) == 4
    assert "note: <b>bold</b>" in "".join(page.texts)


def test_report_of_an_unfinished_run(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("method_name: psp\n")
    with pytest.raises(UserError, match="has measured nothing yet"):
        run_sections(FolderReader(tmp_path))
    (tmp_path / "metrics.csv").write_text("step,train/loss/l2\n0,0.5\n1,0.25\n2")  # the last line is incomplete
    sections: dict[str, Any] = run_sections(FolderReader(tmp_path))
    assert "has not ended" in sections["Result"][0] and re.search("<polyline", sections["Losses"][0])


def test_report_of_a_sweep(tmp_path: Path) -> None:
    with (tmp_path / "sweep.csv").open("w", newline="") as file:
        csv.writer(file).writerows([["job", "a", "val/mse"], [0, "fpn", 0.123456], [1, "small", ""]])
    page = Page(write_page("s", sweep_sections(FolderReader(tmp_path)), tmp_path / "r.html").read_text())
    assert page.rows == [["job", "a", "val/mse"], ["0", "fpn", "0.1235"], ["1", "small", ""]]
    (tmp_path / "sweep.csv").unlink()
    with pytest.raises(UserError, match="no sweep.csv"):
        sweep_sections(FolderReader(tmp_path))


def test_command_line(tmp_path: Path) -> None:
    make_run(tmp_path / "run")
    done = run_cli("report", "run=run", cwd=tmp_path)
    assert done.returncode == 0 and "run/report.html" in done.stdout, done.stderr
    assert "<h1>restyle: run</h1>" in (tmp_path / "run" / "report.html").read_text()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["run"], "no other files are written"
    assert_user_error(run_cli("report", "run=absent", cwd=tmp_path), "absent", "no such folder")


def test_the_command_imports_no_lightning() -> None:
    """Which takes four of the six seconds of its start."""
    code = "import sys, stylegan_inv.report.__main__; print({'pytorch_lightning', 'torchmetrics'} & set(sys.modules))"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=REPOSITORY)
    assert done.stdout.strip() == "set()"
