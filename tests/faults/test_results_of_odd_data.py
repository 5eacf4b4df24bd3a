"""Results of odd folders: names that collide, files that change between two calls, inputs among the results."""

from __future__ import annotations

import csv
import json
import os
import resource
import shutil
import signal
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch

from stylegan_inv.data.images.image_files import distinct_names, storable_name
from stylegan_inv.directions import __main__ as directions
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.evaluate.image_pairs import match_folders
from stylegan_inv.evaluate.score_table import write_per_image
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.invert.inputs import Images
from stylegan_inv.invert.output_folder import image_names
from stylegan_inv.invert.parts import PartWriter
from stylegan_inv.latents.discovery.scores import csv_scores
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.runtime.resumable_job import ResumableJob
from stylegan_inv.runtime.run_folder import RunFolder
from stylegan_inv.runtime.run_location import _continue_in
from stylegan_inv.utils.files import atomic_write
from tests.cli import call, error_of
from tests.fake_run import make_run
from tests.faults.odd_data import photo, prepared

needs_bytes = pytest.mark.skipif(sys.platform in ("darwin", "win32"), reason="names of files are text there")


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "two_steps")


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HYDRA_FULL_ERROR", "1")  # as every command sets it
    monkeypatch.chdir(tmp_path)


# -- names -------------------------------------------------------------------------------------------------------------

#: Names of inputs that are odd beside each other.
COLLIDING = {
    "file and folder": ["a.jpg", "a.png/b.png", "a.png/a.png/c.png"],
    "case": ["a.jpg", "A.png/b.png"],
    "accents": ["\u00e9.png", "e\u0301.png", "E\u0301.png"],
    "numbers": ["a.jpg", "a.png", "a.jpg_2.png", "a.jpg.png"],
    "long": ["x" * 251 + ".png", "x" * 251 + ".jpg", "x" * 250 + "y.png"],
    "backslashes": ["a\\b.png", "a/b.png", "a%5Cb.png"],
    "dots": ["..png", "...png", "a/..png", "a./b.png"],
}


@pytest.mark.parametrize("kind", COLLIDING)
def test_each_image_has_a_file_of_its_own(tmp_path: Path, kind: str) -> None:
    names = image_names(COLLIDING[kind])
    for number, name in enumerate(names):
        for file in (tmp_path / name, (tmp_path / "noise" / name).with_suffix(".safetensors")):
            file.parent.mkdir(parents=True, exist_ok=True)
            with file.open("x") as opened:
                opened.write(str(number))
    assert [(tmp_path / name).read_text() for name in names] == [str(number) for number in range(len(names))]
    assert not any("\\" in name for name in names) and len({name.casefold() for name in names}) == len(names)


def test_names_that_need_no_change() -> None:
    names = ["a.png", "b/a.png", "\u00e9.png", "x" * 200 + ".png"]
    assert image_names(names) == names and list(map(storable_name, names)) == names
    assert distinct_names(["a.png", "a.jpg"]) == ["a.png.png", "a.jpg.jpg"]


@needs_bytes
def test_colliding_names_through_invert_edit_and_evaluate(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    names = ["a.jpg", "a.png/b.png", "back\\slash.png", os.fsdecode(b"caf\xe9.png"), "${oc.env:HOME}.png", "${x}.png"]
    for number, name in enumerate(names):
        photo(Path("photos", name), 50 + 20 * number)
    call(monkeypatch, invert, f"run={run}", "input=photos", "output=out")
    assert len(read_latents("out").names) == 6
    assert len([path for path in Path("out/reconstructions").rglob("*.png") if path.is_file()]) == 6
    source = f"generator.source={run / 'generator.safetensors'}"
    call(monkeypatch, edit, "input=out", "output=edited", "edit=truncate", "edit.psi=[1]", "generator=file", source)
    assert len(list(Path("edited/images").iterdir())) == 6
    # The names of files are no expressions.
    pairs = ("images=out/reconstructions", "targets=photos", "on_missing=skip", "output=scores", "metrics=image")
    call(monkeypatch, evaluate, *pairs)
    assert json.loads(Path("scores/metrics.json").read_text())["counts"]["images"] == 4


@needs_bytes
def test_reconstructions_of_names_that_are_not_utf8_have_targets(tmp_path: Path) -> None:
    photo(tmp_path / "targets" / os.fsdecode(b"caf\xe9.png"))
    photo(tmp_path / "images" / "caf%E9.png")
    assert match_folders(tmp_path / "images", tmp_path / "targets", None, None).names == ["caf%E9.png"]


def test_cells_are_no_formulas(tmp_path: Path) -> None:
    names = ["=1+1.png", "+x.png", "-2+3.png", "@SUM(A1).png", "\tx.png", "a=b.png", "./c.png"]

    write_per_image(tmp_path / "a.csv", range(7), names, {"mse": torch.arange(7.0)})
    with (tmp_path / "a.csv").open(newline="") as file:
        cells = [row["name"] for row in csv.DictReader(file)]
    assert not any(cell.startswith(("=", "+", "-", "@", "\t")) for cell in cells)
    assert [os.path.normpath(cell) for cell in cells] == [os.path.normpath(name) for name in names]
    assert csv_scores(tmp_path / "a.csv", "mse", names[::-1]).tolist() == [6, 5, 4, 3, 2, 1, 0]


# -- inputs and results ------------------------------------------------------------------------------------------------


def test_inputs_that_are_results_are_not_replaced(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(2):
        photo(f"photos/{number}.png", 100 + number)
    call(monkeypatch, invert, f"run={run}", "input=photos", "output=out")
    before = {path: path.read_bytes() for path in Path("out").rglob("*.png")}
    for given in ("out/reconstructions", "out/reconstructions/1.png", "out/contact_sheet.png"):
        line = error_of(monkeypatch, capsys, invert, f"run={run}", f"input={given}", "output=out", "overwrite=true")
        assert f"input={given}: is a result in output=out" in line
    options = ("method=image2stylegan_pp", "application=inpainting", "input=photos", "output=out", "overwrite=true")
    line = error_of(monkeypatch, capsys, invert, *options, "mask=out/reconstructions")
    assert "mask=out/reconstructions: is a result in output=out" in line
    assert {path: path.read_bytes() for path in before} == before
    line = error_of(monkeypatch, capsys, invert, "method=projector", "input=.")  # the default output is in here, too
    assert "output=outputs/projector/inversions" in line and "is inside input=." in line


def test_an_unfinished_inversion_is_no_folder_of_images(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("out/reconstructions/a.png")
    ResumableJob(Path("out"), {"a": 1}).begin(lambda folder: None, lambda: False)
    for command in (edit, invert):
        line = error_of(monkeypatch, capsys, command, f"run={run}", "input=out", "output=other")
        assert "input=out: holds an inversion that was interrupted" in line


@pytest.mark.parametrize("taken", [False, True])
def test_an_output_that_vanishes_while_working(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], taken: bool
) -> None:
    """Removed, or dropped by another command with overwrite=true; exit code 0 would say that the codes are there."""
    for number in range(3):
        photo(f"photos/{number}.png", 100 + number)
    save, saved = PartWriter.save, []

    def save_and_vanish(self: PartWriter, file: Path, key: str) -> None:
        save(self, file, key)
        saved.append(file)
        if len(saved) == 1:
            shutil.rmtree("out")
            if taken:
                ResumableJob(Path("out"), {"another": 1}).begin(lambda folder: None, lambda: False)

    monkeypatch.setattr(PartWriter, "save", save_and_vanish)
    command = (f"run={run}", "input=photos", "output=out", "batch_size=1")
    assert "output=out: was removed, or taken over" in error_of(monkeypatch, capsys, invert, *command)
    assert len(saved) == 1 and [path.name for path in Path("out").glob("unfinished/*")] == ["job.json"] * taken
    call(monkeypatch, invert, *command, "overwrite=true")
    assert len(read_latents("out").names) == 3


def test_two_masks_of_one_name(tmp_path: Path) -> None:
    from stylegan_inv.invert.inputs import Inputs

    images = Images.find(str(photo("photos/a.png").parent))
    photo("masks/a.png"), photo("masks/b.png"), photo("masks/b.jpg")
    assert len(Inputs(images, 16, mask="masks")) == 1
    photo("masks/a.jpg")
    with pytest.raises(UserError, match="two masks of one name"):
        Inputs(images, 16, mask="masks")


@pytest.mark.parametrize("text", ["0-999999999", "0-" + "9" * 5000, "9" * 30, "\u0663"])
def test_numbers_of_synthfaces_are_bounded(text: str) -> None:
    with pytest.raises(UserError, match="expected"):
        Images.find(f"synthfaces:{text}")


# -- the same command --------------------------------------------------------------------------------------------------


@pytest.fixture
def keys(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """The keys of the commands that have been prepared."""
    found: list[str] = []
    check = ResumableJob.check

    def record(self: ResumableJob, overwrite: bool) -> None:
        found.append(self.key)
        check(self, overwrite)

    monkeypatch.setattr(ResumableJob, "check", record)
    yield found


def test_a_file_that_has_changed_makes_another_command(monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    for name in ("images/a.png", "targets/a.png", "masks/a.png"):
        photo(name)
    folders = ("images=images", "targets=targets", "masks=masks", "output=out", "overwrite=true", "metrics=image")
    for changed in (None, None, "images", "targets", "masks"):
        if changed is not None:
            photo(f"{changed}/a.png", 90)
        call(monkeypatch, evaluate, *folders)
    assert keys[0] == keys[1] and len(set(keys)) == 4


def test_masks_and_weights_are_part_of_an_inversion(monkeypatch: pytest.MonkeyPatch, keys: list[str]) -> None:
    photo("photos/a.png"), photo("masks/a.png")
    monkeypatch.setattr(invert, "load_method", lambda *arguments, **others: pytest.skip("not reached"))

    def key() -> str:
        with pytest.raises(pytest.skip.Exception):
            call(
                monkeypatch,
                invert,
                *("method=image2stylegan_pp", "application=inpainting", "input=photos", "mask=masks", "output=out"),
                *("generator=file", "generator.source=g.safetensors"),
            )
        return keys[-1]

    Path("g.safetensors").write_bytes(b"one")
    first = key()
    assert key() == first
    photo("masks/a.png", 90)
    second = key()
    Path("g.safetensors").write_bytes(b"another")
    assert len({first, second, key()}) == 3


# -- folders of the user -----------------------------------------------------------------------------------------------

MINE = ("run.json", "versions.json", "metrics.csv", "metrics.json", "panels/last.png", "checkpoints/last.ckpt")


@pytest.mark.parametrize("name", (*MINE, "worst/last.csv", "codes/last.json"))
def test_a_training_replaces_no_file_that_none_has_written(tmp_path: Path, name: str) -> None:
    (tmp_path / "run" / name).parent.mkdir(parents=True)
    (tmp_path / "run" / "thesis.tex").write_text("x")
    assert _continue_in(RunFolder(tmp_path / "run"), {}, "hash", False).ckpt_path is None  # type: ignore[arg-type]
    (tmp_path / "run" / name).write_text("mine")
    with pytest.raises(UserError, match=f"holds {name.split('/')[0]}, which no training has written|cannot be read"):
        _continue_in(RunFolder(tmp_path / "run"), {}, "hash", False)  # type: ignore[arg-type]


def test_links_beside_the_file_of_a_direction(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """A virtual environment in the working directory has links that lead out of it."""
    Path("bin").mkdir()
    Path("bin/python").symlink_to(sys.executable)
    found = ["means", "--attribute", "smile", "--scores", "factors", "--samples", "200", "--output"]
    directions.main([*found, "smile.safetensors"])
    Path("link.safetensors").symlink_to("/dev/null")
    with pytest.raises(SystemExit):
        directions.main([*found, "link.safetensors"])
    assert "is a pipe or a device" in capsys.readouterr().err


# -- errors of the system ----------------------------------------------------------------------------------------------


def circle() -> str:
    Path("circle").symlink_to("circle")
    return "circle"


@pytest.mark.parametrize("path", [lambda: "n" * 300, lambda: f"{'n' * 300}/x", circle], ids=["long", "deep", "circle"])
def test_paths_that_cannot_exist(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], path: Callable[[], str]
) -> None:
    photo("photos/a.png")
    odd = path()
    error_of(monkeypatch, capsys, invert, f"run={run}", "input=photos", f"output={odd}")
    error_of(monkeypatch, capsys, invert, f"run={run}", f"input={odd}", "output=out")
    error_of(monkeypatch, capsys, edit, "samples=1", f"output={odd}")
    error_of(monkeypatch, capsys, evaluate, f"images={odd}", "targets=photos", "metrics=image")
    for command in (["verify", odd], ["pack", "photos", odd], ["masks", "folder", "photos", odd]):
        assert prepared(capsys, *command).startswith("error: ")
    assert not Path("out").exists()


def test_errors_of_writing_name_the_file(tmp_path: Path) -> None:
    former, ignored = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, former[1]))
    try:
        with pytest.raises(OSError, match="File too large: '.*a.txt'"), atomic_write(tmp_path / "a.txt") as temporary:
            temporary.write_bytes(bytes(200))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, former)
        signal.signal(signal.SIGXFSZ, ignored)


def test_a_name_that_is_too_long_while_working(
    run: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    photo("photos/a.png")
    monkeypatch.setattr("stylegan_inv.invert.inversion_job.image_names", lambda names: ["n" * 300 + ".png"])
    assert "File name too long" in error_of(monkeypatch, capsys, invert, f"run={run}", "input=photos", "output=out")


@pytest.mark.parametrize("strengths", ["[1,1.00000001]", "[0,-0.0]"])
def test_strengths_whose_images_would_have_one_name(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], strengths: str
) -> None:
    line = error_of(monkeypatch, capsys, edit, "samples=1", f"edit.strength={strengths}", "output=out")
    assert "edit.strength" in line and "expected different numbers, in six digits" in line
