"""The invert command: the results of each input file, and errors in the input before anything is written."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors import safe_open
from safetensors.torch import load_file

from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.generators.io.weight_files import file_hash
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.invert import inversion_result
from stylegan_inv.invert.inversion_result import Parts
from stylegan_inv.invert.output_folder import image_names, remove_previous_result
from stylegan_inv.invert.parts import PartResult, PartWriter, shown_steps
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.methods.common.base import Inversion, Step
from stylegan_inv.utils import files
from tests.cli import assert_user_error, call, error_of, run_cli
from tests.fake_run import RESOLUTION, make_run


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("a run") / "two_steps")


def photo(path: Path, level: int, size: tuple[int, int] = (20, 20)) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    array = np.random.default_rng(level).integers(0, level + 1, (size[1], size[0], 3), dtype=np.uint8)
    Image.fromarray(array).save(path)
    return path


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for i, name in enumerate(["a.png", "b.png", "sub/a.png", "img10.png", "img2.png"]):
        photo(tmp_path / "my photos" / name, 50 + 40 * i)
    return tmp_path / "my photos"


# -- results ----------------------------------------------------------------------------------------------------------


def test_results_belong_to_their_files(run, photos, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    call(monkeypatch, invert, f"run={run}", f"input={photos}", "output=out", "batch_size=2")
    latents = read_latents("out")
    assert latents.names == ["a.png", "b.png", "img2.png", "img10.png", "sub/a.png"]
    assert latents.w.shape == (5, 6, 8) and latents.w.dtype == torch.float32
    for w, name, file in zip(latents.w, latents.names, latents.reconstructions, strict=True):
        image = read_image(photos / name, RESOLUTION)
        torch.testing.assert_close(w[:, :3], image.mean((1, 2)).expand(6, 3))
        assert file == f"reconstructions/{name}"
        assert torch.equal(read_image(Path("out", file)), image), "images are saved without loss"
    assert latents.metadata["generator_hash"] == file_hash(run / "generator.safetensors")
    assert latents.metadata["method"] == "TwoSteps" and latents.metadata["run"] == str(run.resolve())
    assert sorted(p.name for p in tmp_path.iterdir()) == ["my photos", "out"], "Hydra leaves nothing behind"
    assert sorted(p.name for p in Path("out").iterdir()) == [
        "contact_sheet.png", "latents.safetensors", "reconstructions",
    ]  # fmt: skip
    printed = capsys.readouterr().out
    assert "5 images inverted, mean squared error 0.0000" in printed
    for name in ("latents.safetensors", "reconstructions", "contact_sheet.png"):
        assert str(Path("out", name)) in printed


def test_an_inversion_of_which_every_image_failed_is_an_error(tmp_path, photos, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "broken", "Diverged")
    line = error_of(monkeypatch, capsys, invert, "run=broken", f"input={photos}", "output=out")
    assert "out: none of 5 images was inverted" in line and "not finite" in line
    assert not list(Path("out").glob("latents*"))
    line = error_of(monkeypatch, capsys, edit, "run=broken", f"input={photos}", "output=edited", "edit=truncate")
    assert "none of 5 images was inverted" in line
    options = (
        "dataset=synthfaces",
        "resolution=64",
        "dataset.test_size=2",
        "metrics=evaluation_basic",
        "output=scores",
    )
    assert "the reconstructions of all 2 images" in error_of(monkeypatch, capsys, evaluate, "run=broken", *options)


def test_contact_sheet_shows_input_steps_and_difference(run, photos, tmp_path, monkeypatch):
    call(monkeypatch, invert, f"run={run}", f"input={photos}", f"output={tmp_path}/out")
    sheet = Image.open(tmp_path / "out" / "contact_sheet.png")
    columns = 4  # input, step 1, step 2, difference
    cell = np.asarray(sheet, dtype=float)[:, -columns * 164 :]
    rows = [cell[sheet.height - (5 - r) * 164 :][:160] for r in range(5)]
    names = ["a.png", "b.png", "img2.png", "img10.png", "sub/a.png"]
    for row, name in zip(rows, names, strict=True):
        want = (read_image(tmp_path / "my photos" / name, RESOLUTION).mean().item() + 1) * 127.5
        got = [row[:, c * 164 : c * 164 + 160].mean() for c in range(columns)]
        np.testing.assert_allclose(got, [want, (want + 127.5) / 2, want, 0], atol=1.5)


def test_one_file_as_input_and_the_default_output(photos, tmp_path, monkeypatch):
    run = make_run(tmp_path / "run")
    call(monkeypatch, invert, f"run={run}", f"input={photos}/img2.png")
    assert read_latents(run / "inversions" / "img2").names == ["img2.png"]
    call(monkeypatch, invert, f"run={run}/checkpoints/last.ckpt", f"input={photos}/")
    assert len(read_latents(run / "inversions" / "my photos").names) == 5


def test_same_stems_do_not_overwrite_each_other(run, tmp_path, monkeypatch):
    for i, name in enumerate(["a.png", "a.jpg", "A.webp", "a.png.bmp", "b.png"]):
        photo(tmp_path / "in" / name, 40 * i + 40)
    call(monkeypatch, invert, f"run={run}", f"input={tmp_path}/in", f"output={tmp_path}/out")
    latents = read_latents(tmp_path / "out")
    assert len(list((tmp_path / "out" / "reconstructions").iterdir())) == 5
    for name, file in zip(latents.names, latents.reconstructions, strict=True):
        assert torch.equal(read_image(tmp_path / "out" / file), read_image(tmp_path / "in" / name, RESOLUTION))


def test_image_names():
    assert image_names(["a.png", "b/a.png", "c.tar.png"]) == ["a.png", "b/a.png", "c.tar.png"]
    assert image_names(["a.jpg", "a.png"]) == ["a.jpg.png", "a.png.png"]
    assert image_names(["a.jpg", "a.png", "a.png.bmp"]) == ["a.jpg.png", "a.png.png", "a.png_2.png"]
    assert image_names(["x.jpg", "X.jpg"]) == ["x.jpg.png", "X.jpg_2.png"]
    many = [f"{stem}{suffix}" for stem in ("a", "A", "a.png", "a.png_2") for suffix in (".png", ".jpg", ".PNG")]
    assert len({name.casefold() for name in image_names(many)}) == len(many)


def test_more_than_a_page(run, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(inversion_result, "ROWS_PER_SHEET", 3)
    for i in range(7):
        photo(tmp_path / "in" / f"{i}.png", 100)
    call(monkeypatch, invert, f"run={run}", f"input={tmp_path}/in", f"output={tmp_path}/out", "batch_size=2")
    sheets = sorted(p.name for p in (tmp_path / "out").glob("contact*"))
    assert sheets == ["contact_sheet_001.png", "contact_sheet_002.png", "contact_sheet_003.png"]
    heights = [Image.open(tmp_path / "out" / name).height for name in sheets]
    assert heights[0] == heights[1] > heights[2]
    assert "contact_sheet_001.png ... contact_sheet_003.png" in capsys.readouterr().out


def test_long_refinements_show_six_steps():
    images = torch.zeros(1, 3, 8, 8)
    steps = [Step(torch.zeros(1, 6, 8), images) for _ in range(50)]
    chosen = shown_steps(_inversion(images, steps))
    assert list(chosen) == ["step 1", "step 11", "step 21", "step 30", "step 40", "step 50"]
    assert list(shown_steps(_inversion(images, steps[:1]))) == ["reconstruction"]
    assert list(shown_steps(_inversion(images, None))) == ["reconstruction"]


def _inversion(image, steps, w=None):
    return Inversion(torch.zeros(len(image), 6, 8) if w is None else w, image, steps=steps)


def test_overwrite_replaces_the_previous_result_and_nothing_else(run, photos, tmp_path, monkeypatch, capsys):
    out = tmp_path / "out"
    call(monkeypatch, invert, f"run={run}", f"input={photos}", f"output={out}")
    (out / "notes.txt").write_text("mine")
    (out / "reconstructions" / "mine.png").write_text("mine")
    capsys.readouterr()
    assert "has content" in error_of(
        monkeypatch, capsys, invert, f"run={run}", f"input={photos}/b.png", f"output={out}"
    )
    call(monkeypatch, invert, f"run={run}", f"input={photos}/b.png", f"output={out}", "overwrite=true")
    files_left = sorted(p.name for p in (out / "reconstructions").rglob("*.png"))
    assert files_left == ["b.png", "mine.png"] and (out / "notes.txt").read_text() == "mine"
    assert read_latents(out).names == ["b.png"]


def test_forged_names_in_a_previous_result_remove_nothing_outside(tmp_path):
    from safetensors.torch import save_file

    victim = tmp_path / "victim.png"
    victim.touch()
    out = tmp_path / "out"
    out.mkdir()
    forged = {"names": json.dumps(["x"] * 3)}
    forged["reconstructions"] = json.dumps(["../victim.png", str(victim), "reconstructions/../../victim.png"])
    save_file({"w": torch.zeros(3, 1, 1)}, out / "latents.safetensors", forged)
    remove_previous_result(out)
    assert victim.exists() and not (out / "latents.safetensors").exists()


def test_generator_larger_than_the_input(tmp_path):
    """Reconstructions keep the size of the generator; the error and the sheet have that of the input."""
    name = "reconstructions/x.png"
    part = PartWriter(tmp_path / "out", [name], {}, compare=True)
    image = torch.zeros(1, 3, 8, 8)
    large = torch.full((1, 3, 32, 32), 0.5)
    part.add([0], image, _inversion(large, None, torch.zeros(1, 6, 8)))
    part.save(tmp_path / "part", "key")
    parts = Parts([tmp_path / "part"], "key", ["x.png"], [name])
    result = inversion_result.assemble(tmp_path / "out", parts, {}, 10)
    assert Image.open(tmp_path / "out" / "reconstructions" / "x.png").size == (32, 32)
    assert result.mean_squared_error == pytest.approx(0.25)


def test_parts_of_another_version_are_refused(tmp_path):
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(1, 6, 8), "index": torch.zeros(1)}, tmp_path / "part", {"unreadable": "[]"})
    with pytest.raises(UserError, match="written by another version; give overwrite=true to start again"):
        PartResult.load(tmp_path / "part", "key")
    PartWriter(tmp_path, [], {}, compare=True).save(tmp_path / "empty", "key")
    assert PartResult.load(tmp_path / "empty", "key") == PartResult()


def test_codes_are_plain_safetensors_for_other_programs(run, photos, tmp_path, monkeypatch):
    call(monkeypatch, invert, f"run={run}", f"input={photos}", f"output={tmp_path}/out")
    with safe_open(tmp_path / "out" / "latents.safetensors", framework="np") as file:
        assert list(file.keys()) == ["w"] and file.get_tensor("w").shape == (5, 6, 8)
        assert json.loads(file.metadata()["names"])[0] == "a.png"


# -- errors -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def unloaded(monkeypatch):
    """Fails a test in which a network is loaded."""

    def refuse(*arguments):
        raise AssertionError("a network was loaded before the input was checked")

    monkeypatch.setattr("stylegan_inv.loading.load_inverter", refuse)


def refused(monkeypatch, capsys, tmp_path, *arguments) -> str:
    before = sorted(tmp_path.rglob("*"))
    monkeypatch.chdir(tmp_path)
    line = error_of(monkeypatch, capsys, invert, *arguments)
    assert sorted(tmp_path.rglob("*")) == before, "no file is written"
    return line


@pytest.mark.usefixtures("unloaded")
def test_bad_arguments(run, photos, tmp_path, monkeypatch, capsys):
    base = [f"run={run}", f"input={photos}", "output=out"]
    for change, expected in {
        "run=absent": "run=absent: no such run folder",
        "input=absent": "absent: no such folder",
        "device=gpu": "device=gpu: expected auto, cpu",
        "device=cuda:99": "device=cuda:99",
        "batch_size=0": "batch_size=0: expected a whole number of at least 1",
        "batch_size=many": "batch_size=many",
        "num_workers=-1": "num_workers=-1",
        "resolution=8": "resolution=8",
        "mode=squash": "mode=squash: expected one of crop, fit",
        "on_bad_image=replace": "on_bad_image=replace: expected one of error, skip",
        "no_such_key=1": "no_such_key",
        f"output='{photos}/out'": "is inside input=",
        f"output='{photos}/a.png'": "is inside input=",
    }.items():
        assert expected in refused(monkeypatch, capsys, tmp_path, *base, change)
    assert "input" in refused(monkeypatch, capsys, tmp_path, base[0])
    assert "run" in refused(monkeypatch, capsys, tmp_path, base[1], "default_run=null")


@pytest.mark.usefixtures("unloaded")
def test_bad_outputs(run, photos, tmp_path, monkeypatch, capsys):
    base = [f"run={run}", f"input={photos}"]
    (tmp_path / "file").write_text("x")
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "x").touch()
    assert "is a file" in refused(monkeypatch, capsys, tmp_path, *base, "output=file", "overwrite=true")
    assert "has content" in refused(monkeypatch, capsys, tmp_path, *base, "output=full")
    assert "not writable" in refused(monkeypatch, capsys, tmp_path, *base, "output=file/below")
    monkeypatch.setattr(files.os, "access", lambda path, mode: False)  # chmod does not stop root
    assert "not writable" in refused(monkeypatch, capsys, tmp_path, *base, "output=new/deep")


@pytest.mark.usefixtures("unloaded")
def test_bad_images(run, photos, tmp_path, monkeypatch, capsys):
    base = [f"run={run}", "output=out"]
    (photos / "broken.png").write_bytes((photos / "a.png").read_bytes()[:300])
    line = refused(monkeypatch, capsys, tmp_path, *base, f"input={photos}")
    assert "broken.png: damaged" in line and "on_bad_image=skip" in line
    (photos / "empty.jpg").touch()
    assert "1 more of 7 files" in refused(monkeypatch, capsys, tmp_path, *base, f"input={photos}")
    (tmp_path / "none").mkdir()
    assert "no images" in refused(monkeypatch, capsys, tmp_path, *base, "input=none")
    (tmp_path / "none" / "text.png").write_text("hello")
    for more in ("on_bad_image=error", "on_bad_image=skip"):
        assert "text, not an image" in refused(monkeypatch, capsys, tmp_path, *base, "input=none", more)


def test_bad_images_are_skipped_and_reported(run, photos, tmp_path, monkeypatch, capsys):
    (photos / "b.png").write_bytes(b"")
    call(monkeypatch, invert, f"run={run}", f"input={photos}", f"output={tmp_path}/out", "on_bad_image=skip")
    assert read_latents(tmp_path / "out").names == ["a.png", "img2.png", "img10.png", "sub/a.png"]
    printed = capsys.readouterr().out
    assert "1 of 5 files cannot be read and are skipped" in printed and "b.png: empty file" in printed


def test_folder_that_is_no_run(photos, tmp_path, monkeypatch, capsys):
    (tmp_path / "norun").mkdir()
    line = refused(monkeypatch, capsys, tmp_path, "run=norun", f"input={photos}", "output=out")
    assert "no config.yaml" in line


def test_read_latents_errors(tmp_path):
    with pytest.raises(UserError, match="no such file"):
        read_latents(tmp_path)
    (tmp_path / "latents.safetensors").write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a file of codes"):
        read_latents(tmp_path)
    from safetensors.torch import save_file

    save_file({"w": torch.zeros(2, 6, 8)}, tmp_path / "latents.safetensors", {"names": "[]", "reconstructions": "[]"})
    with pytest.raises(UserError, match=r"\(2, 6, 8\) for 0 names"):
        read_latents(tmp_path)


def test_the_real_command_line(run, photos, tmp_path):
    result = run_cli("invert", f"run={run}", "input=my photos", "output=out", "num_workers=2", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert len(read_latents(tmp_path / "out").names) == 5
    assert sorted(path.name for path in tmp_path.iterdir()) == ["my photos", "out"]


def test_the_real_command_line_with_bad_input(tmp_path):
    assert_user_error(run_cli("invert", "run=.", "input=absent", cwd=tmp_path), "absent: no such folder")
    assert not list(tmp_path.iterdir())


def test_official_checkpoint_inverts_an_image(tmp_path: Path) -> None:
    from tests.encoders.official import W_DIM, psp_file

    torch.save(psp_file("GradualStyleEncoder"), tmp_path / "psp.pt")
    Image.fromarray(np.full((80, 70, 3), 90, np.uint8)).save(tmp_path / "grey.png")
    result = run_cli("invert", "run=psp.pt", "input=grey.png", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    folder = tmp_path / "outputs" / "psp" / "inversions" / "grey"
    latents = load_file(folder / "latents.safetensors")
    assert [value.shape[2] for value in latents.values()] == [W_DIM] and (folder / "contact_sheet.png").is_file()
