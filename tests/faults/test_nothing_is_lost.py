"""Files of the user stay, whatever they are called: only what this program has written is removed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from rich.table import Table

from stylegan_inv import convert, train
from stylegan_inv.benchmark import __main__ as benchmark
from stylegan_inv.benchmark.quality.comparison_report import check_target
from stylegan_inv.directions import __main__ as directions
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.invert.output_folder import remove_previous_result
from stylegan_inv.prepare import __main__ as prepare
from stylegan_inv.prepare import verify_images
from stylegan_inv.report import __main__ as report
from stylegan_inv.runtime.resumable_job import ResumableJob
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.runtime.run_location import _continue_in
from stylegan_inv.sweeps.summary import check_folder
from stylegan_inv.utils.files import atomic_write, is_partial, remove_partial
from stylegan_inv.utils.safetensors_files import write_safetensors
from tests.cli import call, error_of
from tests.fake_run import make_run
from tests.reported_run import make_run as make_reported


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "two_steps")


@pytest.fixture(autouse=True)
def environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as every command sets it


@pytest.fixture
def photos(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    (tmp_path / "photos").mkdir()
    for number in range(2):
        array = np.random.default_rng(number).integers(0, 200, (20, 20, 3), dtype=np.uint8)
        Image.fromarray(array).save(tmp_path / "photos" / f"{number}.png")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "photos"


def contents(folder: Path) -> dict[str, bytes]:
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


KEY = "0123456789abcdef" * 4
#: Content of a folder ``unfinished`` of the user -> file -> content.
FOREIGN = {
    "other files": {"thesis.tex": "years of work"},
    "a job of another program": {"job.json": '{"name": "print"}', "part_1.txt": "x"},
    "a short key": {"job.json": '{"key": "abc"}', "thesis.tex": "x"},
    "a list": {"job.json": "[1]"},
    "no text": {"job.json": "\ufffd" * 9},
    "hidden": {".notes": "x"},
    "subfolders": {"a/b/thesis.tex": "x"},
}


@pytest.mark.parametrize("overwrite", [False, True])
@pytest.mark.parametrize("kind", FOREIGN)
def test_a_folder_of_the_user_is_refused(tmp_path: Path, kind: str, overwrite: bool) -> None:
    for name, text in FOREIGN[kind].items():
        (tmp_path / "out" / "unfinished" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "out" / "unfinished" / name).write_text(text)
    before = contents(tmp_path)
    job = ResumableJob(tmp_path / "out", {"a": 1})
    with pytest.raises(UserError, match="was not made by this program"):
        job.check(overwrite)
    with pytest.raises(UserError, match="was not made by this program"):
        job.begin(lambda folder: None, lambda: False)  # made by the user after the check
    job.remove()
    (tmp_path / "out" / ".unfinished.lock").unlink(missing_ok=True)
    assert contents(tmp_path) == before


def test_a_file_or_a_link_instead_of_the_folder(tmp_path: Path) -> None:
    own, out = tmp_path / "own", tmp_path / "out"
    own.mkdir(), out.mkdir()
    (own / "job.json").write_text(json.dumps({"key": KEY}))
    (out / "unfinished").symlink_to(own)
    for words in ("is a link that leads out", "was not made by this program"):
        job = ResumableJob(out, {"a": 1})
        with pytest.raises(UserError, match=words):
            job.check(overwrite=True)
        job.remove()
        assert contents(own)
        (out / "unfinished").unlink()
        (out / "unfinished").write_text("a file")


def test_a_job_of_this_program_is_dropped_and_continued(tmp_path: Path) -> None:
    job, other = ResumableJob(tmp_path, {"a": 1}), ResumableJob(tmp_path, {"a": 2})
    job.check(overwrite=False)
    assert job.begin(lambda folder: None, lambda: False) and job.has_begun()
    job.part_file(3).write_bytes(b"x"), job.batch_file(4).write_bytes(b"x")
    (job.folder / "part_00000_of_00002.pt").write_bytes(b"x")
    (job.folder / "notes of mine.txt").write_text("x")
    with pytest.raises(UserError, match="another command"):
        other.check(overwrite=False)
    other.check(overwrite=True)
    assert other.begin(lambda folder: None, lambda: False)
    assert sorted(path.name for path in other.folder.iterdir()) == ["job.json", "notes of mine.txt"]
    other.remove()
    assert [path.name for path in other.folder.iterdir()] == ["notes of mine.txt"]


def test_a_removal_that_is_interrupted_is_still_ours(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    job = ResumableJob(tmp_path, {"a": 1})
    job.begin(lambda folder: None, lambda: False)
    for number in range(3):
        job.part_file(number).write_bytes(b"x")
    real, left = Path.unlink, [2]

    def unlink(self: Path, missing_ok: bool = False) -> None:
        left[0] -= 1
        if left[0] < 0:
            raise KeyboardInterrupt
        real(self, missing_ok)

    monkeypatch.setattr(Path, "unlink", unlink)
    with pytest.raises(KeyboardInterrupt):
        job.remove()
    monkeypatch.undo()
    ResumableJob(tmp_path, {"a": 2}).check(overwrite=True)
    assert job.has_begun() and len(list(job.folder.iterdir())) == 2


def test_invert_refuses_before_it_writes(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "unfinished").mkdir(parents=True)
    (tmp_path / "out" / "unfinished" / "thesis.tex").write_text("years of work")
    before = contents(tmp_path)
    for more in ("overwrite=false", "overwrite=true"):
        line = error_of(monkeypatch, capsys, invert, f"run={run}", f"input={photos}", "output=out", more)
        assert "unfinished was not made by this program" in line and contents(tmp_path) == before


def test_evaluate_refuses_before_it_writes(
    photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "unfinished").mkdir(parents=True)
    (tmp_path / "out" / "unfinished" / "thesis.tex").write_text("years of work")
    for more in ("overwrite=false", "overwrite=true"):
        line = error_of(monkeypatch, capsys, evaluate, f"images={photos}", f"targets={photos}", "output=out", more)
        assert "unfinished was not made by this program" in line
    assert contents(tmp_path / "out") == {"unfinished/thesis.tex": b"years of work"}


def test_overwrite_keeps_what_is_no_result(
    run: Path, photos: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The names of results are ordinary names: a folder without codes has none of them."""
    mine = {"losses.csv": "mine", "losses.png": "mine", "left_out.json": "{}", "warnings.json": '{"mine": 1}'}
    mine |= {"contact_sheet_002.png": "mine", ".mine.partial": "x", ".x.deadbeef.partial.old.png": "x"}
    for name, text in mine.items():
        (tmp_path / "out").mkdir(exist_ok=True)
        (tmp_path / "out" / name).write_text(text)
    call(monkeypatch, invert, f"run={run}", f"input={photos}", "output=out", "overwrite=true")
    assert {name: (tmp_path / "out" / name).read_text() for name in mine} == mine
    source = f"generator.source={run / 'generator.safetensors'}"
    options = ("input=out", "edit=truncate", "edit.psi=[1]", "generator=file", source)
    call(monkeypatch, edit, *options, "output=out", "overwrite=true")
    assert (tmp_path / "out" / "warnings.json").read_text() == mine["warnings.json"]


def test_an_earlier_result_is_removed_from_its_folder_only(tmp_path: Path) -> None:
    """The names in a file of codes may be anyone's, and so may folders behind links."""
    out, elsewhere = tmp_path / "out", tmp_path / "elsewhere"
    for file in (out / "reconstructions" / "a.png", elsewhere / "a.png", elsewhere / "a.safetensors"):
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text("x")
    (out / "variants").mkdir()
    for link in ("variants/1", "noise", "generators"):
        (out / link).symlink_to(elsewhere)
    (out / "losses.csv").write_text("of the result")
    names = {"names": json.dumps(["a.png"]), "reconstructions": json.dumps(["reconstructions/a.png"])}
    write_safetensors(out / "latents.safetensors", {"w": torch.zeros(1, 6, 8)}, names)
    remove_previous_result(out)
    assert sorted(contents(out)) == [] and len(contents(elsewhere)) == 2


def test_temporary_files_of_other_programs_stay(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a name.png") as ours:
        ours.write_bytes(b"x")
        assert is_partial(ours)
        for name in (
            ".video.mp4.partial",
            ".a.partial",
            ".a.partial.png",
            ".notes.txt.partial.bak",
            ".a.XYZ12345.partial.b",
        ):
            (tmp_path / name).write_bytes(b"x")
            assert not is_partial(tmp_path / name)
        assert remove_partial(tmp_path) == [ours]
        ours.write_bytes(b"x")


def test_pack_keeps_a_folder_of_the_name_of_its_work(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "a.zip.partial").mkdir()
    (tmp_path / "a.zip.partial" / "thesis.tex").write_text("years of work")
    command = ["pack", str(photos), str(tmp_path / "a.zip"), "--workers", "0"]
    with pytest.raises(SystemExit):
        prepare.main(command)
    assert "exists already" in capsys.readouterr().err
    assert contents(tmp_path / "a.zip.partial") == {"thesis.tex": b"years of work"}
    (tmp_path / "a.zip.partial" / "thesis.tex").unlink()
    prepare.main(command)
    assert (tmp_path / "a.zip").is_file() and not (tmp_path / "a.zip.partial").exists()


def test_masks_never_replace_images(photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "labels").mkdir()
    Image.new("L", (20, 20), 1).save(tmp_path / "labels" / "0.png")
    before = contents(photos)
    with pytest.raises(SystemExit):
        prepare.main(["masks", "labels", str(tmp_path / "labels"), str(photos), "--classes", "1", "--workers", "0"])
    assert "would be replaced by masks" in capsys.readouterr().err and contents(photos) == before
    for _ in range(2):
        prepare.main(
            ["masks", "labels", str(tmp_path / "labels"), str(tmp_path / "m"), "--classes", "1", "--workers", "0"]
        )


def test_a_training_keeps_a_config_that_none_has_written(tmp_path: Path) -> None:
    (tmp_path / "config.yaml").write_text("mine: 1\n")
    with pytest.raises(UserError, match="no training has written"):
        _continue_in(RunFolder(tmp_path), {}, "hash", False)  # type: ignore[arg-type]
    RunFolder(tmp_path).update_record(command="hash")
    assert _continue_in(RunFolder(tmp_path), {}, "hash", False).ckpt_path is None  # type: ignore[arg-type]


@pytest.mark.parametrize("name", ["metrics.csv", "metrics.json", "versions.json", "run.json", "config.yaml"])
def test_a_training_keeps_files_that_none_has_written(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("{}")
    with pytest.raises(UserError, match=f"holds {name}, which no training has written"):
        _continue_in(RunFolder(tmp_path), {}, "hash", False)  # type: ignore[arg-type]


def test_a_sweep_keeps_files_that_none_has_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    check_folder(tmp_path)
    for name in ("sweep.csv", "sweep.md", "sweep.png", "sweep.json"):
        (tmp_path / name).write_text("my own sweep")
        with pytest.raises(UserError, match=r"sweep\.\w+"):
            check_folder(tmp_path)
        (tmp_path / name).unlink()
    (tmp_path / "sweep.csv").write_text("my own sweep")
    line = error_of(monkeypatch, capsys, train, "-m", "seed=0,1", f"hydra.sweep.dir={tmp_path}")
    assert "holds sweep.csv, which no sweep has written" in line
    assert [path.name for path in tmp_path.iterdir()] == ["sweep.csv"]
    (tmp_path / "multirun.yaml").write_text("hydra: {}")
    check_folder(tmp_path)


def test_links_to_nowhere_are_not_replaced(
    photos: Path, run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    for name, command in {
        "a.zip": lambda target: prepare.main(["pack", str(photos), target, "--workers", "0"]),
        "a.safetensors": lambda target: convert.main([str(run / "generator.safetensors"), target]),
    }.items():
        (tmp_path / name).symlink_to("nowhere")
        with pytest.raises(SystemExit):
            command(str(tmp_path / name))
        assert "exists already" in capsys.readouterr().err and (tmp_path / name).is_symlink()


def test_a_report_replaces_reports_only(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    make_reported(tmp_path / "run")
    for file in (tmp_path / "page.html", tmp_path / "run" / "report.html"):
        options = ["run=run"] + ([f"output={file.name}"] if file.parent == tmp_path else [])
        file.write_text("<html>my thesis</html>")
        line = error_of(monkeypatch, capsys, report, *options)
        assert "exists already and is no earlier result of this command; give another, or overwrite=true" in line
        assert file.read_text() == "<html>my thesis</html>"
        call(monkeypatch, report, *options, "overwrite=true")
        call(monkeypatch, report, *options)
        assert "my thesis" not in file.read_text()
    (tmp_path / "link.html").symlink_to("nowhere")
    assert "exists already" in error_of(monkeypatch, capsys, report, "run=run", "output=link.html")
    assert "not writable" in error_of(monkeypatch, capsys, report, "run=run", "output=page.html/x.html")


def test_verify_replaces_its_own_reports_only(
    photos: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "r.json"
    command = ["verify", str(photos), "--report", str(file), "--workers", "0"]
    for text in ("my notes", "{}", "[1]", '{"path": 1, "images": 2}', ""):
        file.write_text(text)
        with monkeypatch.context() as patch:
            patch.setattr(verify_images, "ordered", lambda *_: pytest.fail("checked after the work"))
            with pytest.raises(SystemExit):
                prepare.main(command)
        assert "or --overwrite" in capsys.readouterr().err and file.read_text() == text
    prepare.main([*command, "--overwrite"])
    prepare.main(command)
    assert json.loads(file.read_text())["images"] == 2


def test_directions_replace_directions_only(run: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name, command in {"sefa_1": "sefa --count 2", "pca_0": "ganspace --count 1 --samples 20"}.items():
        file = tmp_path / f"{name}.safetensors"
        options = [*command.split(), "--generator", str(run / "generator.safetensors"), "--output", str(tmp_path)]
        write_safetensors(file, {"w": torch.zeros(1)}, {"kind": "mine"})
        before = file.read_bytes()
        with pytest.raises(SystemExit):
            directions.main(options)
        assert f"{name}.safetensors: exists already" in capsys.readouterr().err and file.read_bytes() == before
        directions.main([*options, "--overwrite"])
        directions.main(options)
        assert file.read_bytes() != before
    file = tmp_path / "age.safetensors"
    file.write_text("mine")
    with pytest.raises(SystemExit):
        directions.main(["means", "--attribute", "age", "--scores", "factors", "--output", str(file)])
    assert "exists already" in capsys.readouterr().err and file.read_text() == "mine"


def test_measurements_replace_measurements_only(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(benchmark.embedded_speed, "run", lambda options: [])
    monkeypatch.setattr(benchmark, "world_table", lambda rows, title: Table())
    monkeypatch.setattr(benchmark, "tune_allocator", lambda: None)
    file = tmp_path / "new" / "speed.json"
    command = ["world", "--threads", str(torch.get_num_threads()), "--json", str(file)]
    for _ in range(2):
        benchmark.main(command)
        assert json.loads(file.read_text()) == []
    for text in ("my notes", '{"rows": 3}', "[1]", "{"):
        file.write_text(text)
        with pytest.raises(SystemExit):
            benchmark.main(command)
        assert "or --overwrite" in capsys.readouterr().err and file.read_text() == text
    benchmark.main([*command, "--overwrite"])
    assert json.loads(file.read_text()) == []


def test_a_comparison_replaces_results_only(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "table.md").write_text("mine")
    (tmp_path / "report.html").write_text("mine")
    with pytest.raises(SystemExit):
        benchmark.main(["methods", "--quick", "--runs", str(tmp_path / "runs"), "--into", str(tmp_path)])
    assert "has table.md, report.html and no benchmark.json" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["report.html", "table.md"]
    (tmp_path / "benchmark.json").write_text("{}")
    check_target(tmp_path)
