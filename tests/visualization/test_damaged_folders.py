"""A page about a folder that is damaged, or that a stranger has made to read other files."""

from __future__ import annotations

import base64
import io
import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from PIL import Image, PngImagePlugin

from stylegan_inv.benchmark.quality import comparison_report
from stylegan_inv.errors import UserError
from stylegan_inv.report import __main__ as report
from stylegan_inv.report import folder_reader, run_report
from stylegan_inv.report.folder_reader import FolderReader
from stylegan_inv.report.run_report import run_sections, sweep_sections
from stylegan_inv.visualization.html_page import write_page
from stylegan_inv.visualization.line_chart import line_chart
from tests.cli import call, error_of
from tests.reported_run import make_run

SECRET = "the user's secret"


def write(name: str, content: str | bytes) -> Callable[[Path], None]:
    data = content.encode() if isinstance(content, str) else content

    def damage(run: Path) -> None:
        (run / name).unlink(missing_ok=True)
        (run / name).write_bytes(data)

    return damage


def link(name: str, target: str = "secret") -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        if (run / name).is_dir():
            shutil.rmtree(run / name)
        (run / name).unlink(missing_ok=True)
        (run / name).symlink_to(run.parent / target)

    return damage


def folder(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink()
        (run / name).mkdir()

    return damage


def pipe(name: str) -> Callable[[Path], None]:
    def damage(run: Path) -> None:
        (run / name).unlink()
        os.mkfifo(run / name)

    return damage


ROW = "step,train/loss/l2,val/mse\n"
#: Damage -> what the page says about it; empty where it is not worth a note.
DAMAGES = {
    "text in metrics.csv": (write("metrics.csv", ROW + "0,abc,\n1,0.5,0.4\nx,1,1\n2,0.3,0.2\n"), "'abc'"),
    "NUL in metrics.csv": (write("metrics.csv", ROW + "0,0.5,\n1,\0\0,0.4\n"), "bytes that are no text"),
    "a long field": (write("metrics.csv", ROW + "0,0.5,\n1," + "9" * 200_000 + ",\n"), "metrics.csv: row 2"),
    "no UTF-8 in metrics.csv": (write("metrics.csv", b"step,val/mse\n0,\xff\n1,2\n"), "metrics.csv"),
    "numbers without end": (write("metrics.csv", ROW + "0,1e999,-1e308\n1,nan,1e308\n2,-inf,0\n3,1e-320,1\n"), ""),
    "no step in metrics.csv": (write("metrics.csv", "a,val/mse\n0,1\n1,2\n"), ""),
    "rows of other lengths": (write("metrics.csv", ROW + "0\n1,2,3,4,5,6\n2,1,1\n"), ""),
    "ten thousand columns": (write("metrics.csv", ",".join(f"val/{i}" for i in range(10_000)) + ",step\n"), ""),
    "lists in metrics.json": (write("metrics.json", '{"val/mse": [1], "val/id": {"a": 1}, "seconds": "x"}'), "'[1]'"),
    "a list as metrics.json": (write("metrics.json", "[1, 2]"), "expected an object"),
    "deep metrics.json": (write("metrics.json", "[" * 100_000), "metrics.json"),
    "huge numbers": (write("metrics.json", '{"val/mse": ' + "9" * 5000 + "}"), "metrics.json"),
    "huge floats": (write("metrics.json", '{"val/mse_step1": 1e308, "val/mse_step2": -1e308, "val/mse": 1e999}'), ""),
    "endless steps": (write("metrics.json", '{"val/mse": 1, "val/mse_step' + "9" * 5000 + '": 2}'), ""),
    "no UTF-8 in metrics.json": (write("metrics.json", b'{"val/mse": "\xff"}'), "metrics.json"),
    "worst/last.csv without step": (write("worst/last.csv", "image,mse\n1.png,0.5\n"), ""),
    "worst/last.csv without heads": (write("worst/last.csv", "\n\n"), ""),
    "an evaluation of another shape": (write("evaluation/test/metrics.json", '{"metrics": {"mse": 3}, "sets": 1}'), ""),
    "an evaluation of text": (
        write(
            "evaluation/test/metrics.json",
            '{"metrics": {"mse": {"mean": "a", "low": [], "high": null, "count": {}}, "id_step1": null}, "counts": 3}',
        ),
        "'a'",
    ),
    "a list as protocol": (write("evaluation/test/metrics.json", '{"protocol": [1], "counts": {"images": []}}'), ""),
    "bad YAML": (write("config.yaml", "a: [1, 2\nb: }"), ""),
    "no UTF-8 in config.yaml": (write("config.yaml", b"method_name: \xff\xfe"), "config.yaml"),
    "a tag of Python": (write("config.yaml", "method_name: !!python/object/apply:os.getcwd []"), ""),
    "a list as config.yaml": (write("config.yaml", "- 1\n- 2\n"), ""),
    "an odd method name": (write("config.yaml", "method_name: {a: [1]}\nmethod: 3\ndataset: [x]\n"), ""),
    "versions of another shape": (write("versions.json", '{"torch": {"a": [null]}, "x": 1e999}'), ""),
    "codes of another shape": (write("codes/last.json", "[]"), "codes/last.json"),
    "a panel that is no image": (write("panels/last.png", SECRET), "panels/last.png"),
    "a panel that is cut": (write("panels/last.png", b"\x89PNG\r\n\x1a\n" + bytes(30)), "panels/last.png"),
    "a folder as panel": (folder("panels/last.png"), "is no file"),
    "a pipe as panel": (pipe("panels/last.png"), "is no file"),
    "a pipe as metrics.csv": (pipe("metrics.csv"), "is no file"),
    "a link as panel": (link("panels/last.png"), "leads out"),
    "a link to a picture": (link("panels/last.png", "private.png"), "leads out"),
    "a link as folder of panels": (link("panels", "pictures"), "leads out"),
    "a link as worst images": (link("worst/last.png", "private.png"), "leads out"),
    "a link as latent codes": (link("codes/last.png", "private.png"), "leads out"),
    "a link as evaluation": (link("evaluation/test/metrics.json", "private.json"), "leads out"),
    "a link as folder of evaluations": (link("evaluation", "evaluations"), "leads out"),
    "a link as metrics.json": (link("metrics.json", "private.json"), "leads out"),
    "a link as metrics.csv": (link("metrics.csv"), "leads out"),
    "a link as versions.json": (link("versions.json", "private.json"), "leads out"),
    "a link to itself": (lambda run: link("panels/last.png", f"{run.name}/panels/last.png")(run), "panels/last.png"),
    "a dangling link": (link("panels/last.png", "nowhere"), "leads out"),
}  # fmt: skip


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("base")
    make_run(root / "run")
    (root / "secret").write_text(SECRET)
    (root / "private.json").write_text(json.dumps({"val/mse": 0.5, "protocol": {"x": SECRET}, SECRET: 1}))
    (root / "pictures").mkdir()
    (root / "evaluations" / "test").mkdir(parents=True)
    shutil.copy(root / "private.json", root / "evaluations" / "test" / "metrics.json")
    for file in (root / "private.png", root / "pictures" / "last.png"):
        Image.new("RGB", (3, 3), (1, 2, 3)).save(file)
    return root


def pictures(html: str) -> list[Image.Image]:
    return [Image.open(io.BytesIO(base64.b64decode(text))) for text in re.findall(r"base64,([^\"]+)", html)]


@pytest.mark.parametrize("kind", DAMAGES)
def test_what_can_be_read_is_shown(base: Path, tmp_path: Path, kind: str) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True, symlinks=True)
    damage, note = DAMAGES[kind]
    damage(tmp_path / "run")
    reader = FolderReader(tmp_path / "run")
    report._title(tmp_path / "run", False)
    page = write_page("run", run_sections(reader), tmp_path / "r.html").read_text(encoding="utf-8")
    assert SECRET not in page and "Traceback" not in page
    assert base64.b64encode(SECRET.encode()).decode()[:12] not in page
    assert all(picture.size == (4, 4) for picture in pictures(page)), "no picture from elsewhere"
    assert any(note in line for line in reader.notes) if note else True
    assert all("\n" not in line for line in reader.notes) and len(page) < 1 << 20
    assert not reader.notes or "Not shown" in page


def test_pictures_hold_pixels_only(base: Path, tmp_path: Path) -> None:
    """A PNG of a stranger may hold text, or another file behind its end."""
    run = shutil.copytree(base / "run", tmp_path / "run")
    notes = PngImagePlugin.PngInfo()
    notes.add_text("comment", SECRET)
    Image.new("RGB", (5, 4), (9, 8, 7)).save(run / "panels" / "last.png", pnginfo=notes)
    with (run / "panels" / "last.png").open("ab") as file:
        file.write(b"<script>alert(1)</script>" + SECRET.encode())
    shown = pictures("".join(run_sections(FolderReader(run))["Images"]))[0]
    assert shown.size == (5, 4) and shown.getpixel((0, 0)) == (9, 8, 7) and not shown.info
    data = re.findall(r"base64,([^\"]+)", "".join(run_sections(FolderReader(run))["Images"]))[0]
    assert SECRET.encode() not in base64.b64decode(data)


@pytest.mark.parametrize("cell", ["abc", "x{}"])
def test_bad_cells_are_counted(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, cell: str) -> None:
    """Work and notes grow with the files and kinds of problems, not with the number of bad cells."""
    run = shutil.copytree(base / "run", tmp_path / "run")
    rows = "".join(f"{step},{cell.format(step)},1\n" for step in range(200_000))
    (run / "metrics.csv").write_text(ROW + rows)
    described: list[str] = []
    monkeypatch.setattr(folder_reader, "readable", lambda text: described.append(text) or text)
    reader = FolderReader(run)
    page = write_page("run", run_sections(reader), tmp_path / "r.html").read_text(encoding="utf-8")
    first = cell.format(0)
    assert reader.notes == [f"metrics.csv: train/loss/l2 holds '{first}', expected a number, and 199,999 more like it"]
    assert len(described) < 10 and len(page) < 1 << 17 and page.count("expected a number") == 1


def test_notes_and_rows_are_bounded(base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = shutil.copytree(base / "run", tmp_path / "run")
    for number in range(80):
        (run / "evaluation" / f"{number:03d}").mkdir()
        (run / "evaluation" / f"{number:03d}" / "metrics.json").write_text("[")
    monkeypatch.setattr(folder_reader, "_MOST_CELLS", 40)
    (run / "metrics.csv").write_text(ROW + "".join(f"{step},1,2\n" for step in range(50)))
    reader = FolderReader(run)
    run_sections(reader)
    assert len(reader.notes) == 51 and reader.notes[-1] == "31 more problems"
    assert "metrics.csv: has more than 40 values; shown are the first 13 rows" in reader.notes
    (run / "sweep.csv").write_text("job,seed\n" + "".join(f"{job},1\n" for job in range(20)))
    monkeypatch.setattr(folder_reader, "_MOST_ROWS", 10)
    reader = FolderReader(run)
    assert sweep_sections(reader)["Jobs"][0].count("<tr>") == 11
    assert reader.notes == ["sweep.csv: shown are the first 10 of 20 rows"]


def test_the_command_names_what_is_not_shown(
    base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.copytree(base, tmp_path, dirs_exist_ok=True)
    link("panels/last.png")(tmp_path / "run")
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, report, "run=run")
    assert "not shown: panels/last.png: is a link that leads out of the folder" in capsys.readouterr().out
    (tmp_path / "page.html").mkdir()
    assert "is a folder" in error_of(monkeypatch, capsys, report, "run=run", "output=page.html")
    write("metrics.json", "[")(tmp_path / "run")
    write("metrics.csv", "")(tmp_path / "run")
    assert "metrics.json: Expecting value" in error_of(monkeypatch, capsys, report, "run=run")
    write("sweep.csv", b"\xff\0")(tmp_path / "run")
    assert "no sweep.csv with jobs" in error_of(monkeypatch, capsys, report, "run=run")


def test_a_damaged_comparison(base: Path, tmp_path: Path) -> None:
    for content in ("[", "[]", "{}", '{"protocol": 3}', '{"protocol": {"x": 1}}'):
        (tmp_path / "benchmark.json").write_text(content)
        with pytest.raises(UserError, match="is damaged"):
            comparison_report.render_again(tmp_path)
    (tmp_path / "grid.png").symlink_to(base / "private.png")
    assert comparison_report._figure(FolderReader(tmp_path), "grid.png", "") == []


def test_charts_of_any_numbers() -> None:
    for points in (
        [(0.0, 1e308), (1.0, -1e308)],
        [(float("inf"), 1.0), (float("nan"), 2.0)],
        [(0, 5e-324), (1, 1e-323)],
    ):
        line_chart("a", {"": points})
    assert line_chart("a", {"": [(0.0, 1e308), (1.0, -1e308)]}) == ""


def test_a_table_of_steps_is_bounded(tmp_path: Path) -> None:
    """Each metric at a step of its own would be a table of the square of their number."""
    metrics = {f"m{number}_step{number}": {"mean": 1.0} for number in range(3000)}
    (tmp_path / "metrics.json").write_text(json.dumps({"metrics": metrics}))
    assert sum(map(len, run_report._evaluation(FolderReader(tmp_path), "metrics.json"))) < 5_000_000
