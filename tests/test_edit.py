"""The edit command: the images it writes, and errors in the input before anything is written."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from stylegan_inv.data.images.image_files import read_image, save_image
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_generator, save_generator
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.directions import Direction, load_direction, save_direction
from stylegan_inv.latents.edits.base import EditInputs
from stylegan_inv.latents.interpolation import interpolate
from stylegan_inv.latents.truncation import truncate
from tests.cli import assert_user_error, run_cli
from tests.fake_run import RESOLUTION, make_run


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object, module=edit) -> None:
    """Runs the command line in this process, which saves the start of a new one."""
    monkeypatch.setattr(sys, "argv", ["edit", *map(str, arguments)])
    module.main()


def refused(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    before = sorted(Path.cwd().rglob("*"))
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *arguments)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.strip().splitlines()
    assert line.startswith("error: ")
    assert sorted(Path.cwd().rglob("*")) == before, "nothing was written"
    return line


@pytest.fixture
def run(tmp_path: Path) -> Path:
    return make_run(tmp_path / "run")


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    for k, name in enumerate(["a.png", "b.png", "c.png"]):
        array = np.random.default_rng(k).integers(0, 90 * k + 60, (20, 20, 3), dtype=np.uint8)
        (tmp_path / "photos").mkdir(exist_ok=True)
        Image.fromarray(array).save(tmp_path / "photos" / name)
    return tmp_path / "photos"


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")


@torch.no_grad()
def rendered(generator, w: torch.Tensor) -> torch.Tensor:
    return generator.synthesis(w).clamp(-1, 1)


def same(file: Path, image: torch.Tensor) -> None:
    """Asserts that a saved image equals this one up to the rounding to 8 bits."""
    torch.testing.assert_close(read_image(file), image, atol=1.01 / 127.5, rtol=0)


# -- results ----------------------------------------------------------------------------------------------------------


def test_attribute_of_random_samples(monkeypatch):
    command(
        monkeypatch, "edit=pose", "edit.strength=[-1,0,2]", "edit.also={age: 0.5}", "samples=2", "seed=4", "output=out"
    )
    generator = load_generator("synthfaces64")
    w = generator.mapping(torch.randn(2, 96, generator=torch.Generator().manual_seed(4)))
    pose, age = load_direction("pose"), load_direction("age")
    for row in range(2):
        for strength, text in ((-1, "also_pose_-1"), (0, "also_pose_+0"), (2, "also_pose_+2")):
            image = rendered(generator, age.apply(pose.apply(w[row : row + 1], strength), 0.5))[0]
            same(Path("out", "images", f"seed_4__{row}_{text}.png"), image)
        same(Path("out", "images", f"seed_4__{row}_unchanged.png"), rendered(generator, w[row : row + 1])[0])
    strip = Image.open("out/strip.png")
    assert strip.width > 4 * 160 and strip.height > 2 * 160


def test_inversions_are_edited_and_shown_next_to_their_input(run, photos, monkeypatch):
    vector = torch.nn.functional.normalize(torch.randn(8), dim=0)
    save_direction(Direction(vector, "tilt", layers=(0, 1), unit=3.0), "tilt.safetensors")
    own = ("edit=direction", "edit.direction=tilt.safetensors", "edit.strength=[0,2]")
    command(monkeypatch, f"run={run}", f"input={photos}", *own, "batch_size=2", "output=direct")
    command(monkeypatch, f"run={run}", f"input={photos}", "output=inverted", module=invert)
    command(
        monkeypatch,
        "input=inverted",
        "generator=file",
        f"generator.source={run}/generator.safetensors",
        *own,
        "output=stored",
    )
    generator = load_generator(run / "generator.safetensors")
    for name in ("a", "b", "c"):
        w = torch.zeros(1, 6, 8)
        w[..., :3] = read_image(photos / f"{name}.png", RESOLUTION).mean((1, 2))
        same(Path("direct/images", f"{name}_input.png"), read_image(photos / f"{name}.png", RESOLUTION))
        for folder in ("direct", "stored"):
            same(Path(folder, "images", f"{name}_unchanged.png"), rendered(generator, w)[0])
            w_moved = w.clone()
            w_moved[:, :2] += 6 * vector
            same(Path(folder, "images", f"{name}_tilt_+2.png"), rendered(generator, w_moved)[0])


def test_images_do_not_overwrite_each_other(run, photos, monkeypatch):
    for name in ("a.jpg", "sub/b.png", "sub_b.png"):
        (photos / "sub").mkdir(exist_ok=True)
        Image.open(photos / "a.png").save(photos / name)
    command(monkeypatch, f"run={run}", f"input={photos}", "edit=truncate", "edit.psi=[1,1.5]", "output=out")
    assert len(list(Path("out/images").iterdir())) == 6 * 3


def test_default_output_is_in_the_run(run, photos, monkeypatch, capsys):
    command(monkeypatch, f"run={run}", f"input={photos}", "edit=truncate", "edit.psi=0")
    assert (run / "edits" / "truncate_photos" / "strip.png").is_file()
    assert str(run / "edits" / "truncate_photos" / "strip.png") in capsys.readouterr().out


def test_noise_that_an_inversion_found_is_used(run, photos, monkeypatch):
    from tests import fake_run

    original, level = fake_run.TwoSteps.invert, {"a": 0.0}

    def invert_with_noise(self, images):
        found = original(self, images)
        found.noise = [
            maps.expand(len(images), -1, -1, -1) + level["a"] for maps in self.generator.synthesis.noise_maps()
        ]
        for layer in self.generator.synthesis.layers():
            layer.noise_strength.fill_(0.5)
        return found

    monkeypatch.setattr(fake_run.TwoSteps, "invert", invert_with_noise)
    for value in (0.0, 1.0):
        level["a"] = value
        command(monkeypatch, f"run={run}", f"input={photos}", "edit=truncate", "edit.psi=1", f"output=n{value:.0f}")
    one, other = (read_image(f"n{k}/images/a_psi_1.png") for k in (0, 1))
    assert float((one - other).abs().mean()) > 0.01


def test_tuned_generators_render_the_edits_of_their_image(run, photos, monkeypatch):
    from stylegan_inv.generators.variants.low_rank_difference import compress, tuned
    from tests import fake_run

    original, base = fake_run.TwoSteps.invert, load_generator(run / "generator.safetensors")
    changed = load_generator(run / "generator.safetensors")
    changed.synthesis.b16.torgb.bias.add_(0.2)
    difference = compress(base.synthesis, changed.synthesis, 4)

    def invert_tuned(self, images):
        found = original(self, images)
        scale = images.mean((1, 2, 3)).sign()  # another generator for each image
        found.weights = {
            name: torch.stack([(part if s > 0 else 0 * part) for s in scale]) for name, part in difference.items()
        }
        return found

    monkeypatch.setattr(fake_run.TwoSteps, "invert", invert_tuned)
    Image.fromarray(np.full((20, 20, 3), 250, np.uint8)).save(photos / "light.png")
    command(
        monkeypatch, f"run={run}", f"input={photos}", "edit=truncate", "edit.psi=[1,0]", "output=out", "batch_size=3"
    )
    for name, network in (("a", base), ("light", tuned(base, difference))):
        w = torch.zeros(1, 6, 8)
        w[..., :3] = read_image(photos / f"{name}.png", RESOLUTION).mean((1, 2))
        same(Path(f"out/images/{name}_psi_1.png"), rendered(network, w)[0])
        same(Path(f"out/images/{name}_psi_0.png"), rendered(network, truncate(w, base.w_avg, 0))[0])


def test_grid_has_a_table_for_each_image(monkeypatch):
    command(
        monkeypatch,
        "edit=age",
        "edit.strength=[-1,1]",
        "edit.grid={pose: [-1,0,1]}",
        "samples=2",
        "output=out",
        "cell=64",
    )
    tables = sorted(Path("out").glob("grid_*.png"))
    assert [table.name for table in tables] == ["grid_000_seed_0__0.png", "grid_001_seed_0__1.png"]
    assert Image.open(tables[0]).height > 3 * 64
    generator, age, pose = load_generator("synthfaces64"), load_direction("age"), load_direction("pose")
    w = generator.mapping(torch.randn(2, 96, generator=torch.Generator().manual_seed(0)))
    for row, table in enumerate(tables):
        for turned in (-1, 0, 1):
            for aged in (-1, 1):
                image = rendered(generator, age.apply(pose.apply(w[row : row + 1], turned), aged))[0]
                same(Path("out/images", table.stem, f"pose_{turned:+d}_age_{aged:+d}.png"), image)


def test_mix(monkeypatch):
    command(monkeypatch, "edit=mix", "edit.kept=1", "edit.ranges=[coarse,[9]]", "samples=3", "output=out")
    generator = load_generator("synthfaces64")
    w = generator.mapping(torch.randn(3, 96, generator=torch.Generator().manual_seed(0)))
    for source in (0, 2):
        mixed = w[[1]].clone()
        mixed[:, :4] = w[source, :4]
        same(Path(f"out/images/seed_0__{source}_coarse_of_source.png"), rendered(generator, mixed)[0])
        mixed = w[[1]].clone()
        mixed[:, 9] = w[source, 9]
        same(Path(f"out/images/seed_0__{source}_layers_9_of_source.png"), rendered(generator, mixed)[0])


@pytest.mark.parametrize("space", ["w+", "z"])
def test_morph_and_its_animation(monkeypatch, space):
    options = ("edit=morph", "edit.steps=2", f"edit.space={space}", "edit.mode=spherical", "samples=3")
    command(monkeypatch, *options, "animation=gif", "frames=9", "seconds=0.9", "output=out")
    generator = load_generator("synthfaces64")
    z = torch.randn(3, 96, generator=torch.Generator().manual_seed(0))
    if space == "z":
        w = generator.mapping(interpolate(z[:1], z[1:2], 0.5, "spherical"))
    else:
        w = generator.mapping(z)
        w = interpolate(w[:1], w[1:2], 0.5, "spherical", generator.w_avg)
    middle = rendered(generator, w)[0]
    same(Path("out/images/seed_0__0_-_seed_0__1_0.50.png"), middle)
    animation = Image.open("out/animation.gif")
    assert animation.n_frames == 9 and animation.info["duration"] == 100 and animation.info["loop"] == 0
    animation.seek(3)  # 9 frames for three pairs: the second image
    shown = torch.tensor(np.asarray(animation.convert("RGB"))).float().permute(2, 0, 1)[:, 2:-2, 2:-2] / 127.5 - 1
    second = rendered(generator, generator.mapping(z[1:2]))
    small = torch.nn.functional.interpolate(shown[None], (64, 64), mode="area")
    assert float((small - second).abs().mean()) < 0.08


def test_animation_of_a_sweep_plays_forwards_and_backwards(monkeypatch):
    command(monkeypatch, "edit=pose", "edit.strength=[-1,1]", "samples=3", "animation=gif", "frames=5", "output=out")
    animation = Image.open("out/animation.gif")
    assert animation.n_frames == 8
    frames = []
    for k in range(8):
        animation.seek(k)
        frames.append(np.asarray(animation.convert("RGB"), dtype=float))
    for k in (1, 2, 3):
        assert np.abs(frames[k] - frames[8 - k]).mean() == 0
    assert np.abs(frames[0] - frames[4]).mean() > 3


def test_truncate(monkeypatch):
    command(
        monkeypatch, "edit=truncate", "edit.psi=[1,0.5,0]", "edit.layers=fine", "samples=2", "output=out", "psi=0.8"
    )
    generator = load_generator("synthfaces64")
    w = generator.mapping(torch.randn(2, 96, generator=torch.Generator().manual_seed(0)), psi=0.8)
    same(Path("out/images/seed_0__1_psi_0.5.png"), rendered(generator, truncate(w, generator.w_avg, 0.5, [8, 9]))[1])


def test_noise(monkeypatch, capsys, tmp_path):
    assert "ignores noise" in refused(monkeypatch, capsys, "edit=noise")
    generator = load_generator("synthfaces64")
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.fill_(0.1)
    save_generator(generator, tmp_path / "noisy.safetensors")
    options = ("generator=file", f"generator.source={tmp_path}/noisy.safetensors", "edit.samples=3", "samples=2")
    command(monkeypatch, "edit=noise", *options, "output=out")
    assert len(list(Path("out/images").iterdir())) == 2 * 5
    every, none = (read_image(f"out/images/seed_0__1_noise__{name}.png") for name in ("all", "none"))
    assert float((every - none).abs().mean()) > 0.01
    assert float(read_image("out/images/seed_0__1_deviation.png").max()) == 1.0


def test_neighbours(run, photos, monkeypatch, capsys):
    command(monkeypatch, f"run={run}", f"input={photos}", "output=all/inverted", module=invert)
    options = (
        "generator=file",
        f"generator.source={run}/generator.safetensors",
        "edit=neighbours",
        "edit.folder=all",
        "edit.count=2",
    )
    command(monkeypatch, "input=all/inverted", *options, "output=out")
    for image in Path("out/images").glob("*_image.png"):
        nearest = Path(str(image).replace("_image", "_neighbour_1"))
        assert image.read_bytes() == nearest.read_bytes(), "each image is its own nearest neighbour"
    assert "has no animation" in refused(
        monkeypatch, capsys, "input=all/inverted", *options, "output=o2", "animation=gif"
    )
    assert "count=9" in refused(monkeypatch, capsys, "input=all/inverted", *options, "edit.count=9", "output=o2")


# -- errors ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["edit.strength=[a]"], "edit.strength=['a']: expected numbers"),
        (["edit.strength=strong"], "edit.strength=strong"),
        (["edit.strength=[true]"], "edit.strength=[True]: expected numbers"),
        (["edit.strength=inf"], "edit.strength=inf: expected a finite number"),
        (["edit.strength=[]"], "edit.strength=[]: expected numbers"),
        (["edit.strength=[1,2,1]"], "edit.strength=[1, 2, 1]: expected different numbers"),
        (["edit.also={age: much}"], "edit.also.age=much"),
        (["edit.also={youth: 1}"], "direction 'youth': no such file"),
        (["edit.grid={age: [0], pose: [0]}"], "expected one direction"),
        (["edit.layers=big"], "layers=big"),
        (["edit=mix", "samples=1"], "edit=mix: got 1 image, expected at least 2"),
        (["edit=morph", "samples=1"], "edit=morph: got 1 image, expected at least 2"),
        (["edit=mix", "edit.kept=8"], "edit.kept=8: expected a whole number from 0 to 7; there are 8 images"),
        (["edit=mix", "edit.ranges=[huge]"], "layers=huge"),
        (["edit=morph", "edit.mode=round"], "edit.mode=round"),
        (["edit=morph", "edit.steps=0"], "edit.steps=0"),
        (["edit=truncate", "edit.psi=much"], "edit.psi=much"),
        (["edit=nothing"], "nothing"),
        (["edit.power=3"], "power"),
        (["samples=0"], "samples=0"),
        (["psi=half"], "psi=half"),
        (["animation=avi"], "animation=avi: expected one of gif, mp4; or null for none"),
        (["edit.strength=3", "animation=gif"], "has no animation with these settings"),
        (["frames=1"], "frames=1"),
        (["input=absent", "run=."], "absent"),
        (["input=.", "default_run=null"], "need a run that inverts them"),
        (["input=.", "run=restyle"], "the nearest name is restyle_synthfaces"),
        (["run=."], "got no input"),
        (["generator=file", "generator.source=absent"], "absent"),
    ],
)
def test_bad_input_is_one_line(monkeypatch, capsys, arguments, says):
    assert says in refused(monkeypatch, capsys, "edit=smile", "output=out", *arguments)


def test_directions_that_do_not_belong_to_the_generator(run, photos, monkeypatch, capsys):
    base = (f"run={run}", f"input={photos}", "output=out")
    assert "expected (L, 192); give a direction of this generator" in refused(monkeypatch, capsys, *base, "edit=smile")
    save_direction(Direction(torch.ones(192), "other", generator_hash="0" * 64), Path("..", "other.safetensors"))
    save_direction(Direction(torch.ones(5, 192), "space", space="w+"), Path("..", "space.safetensors"))
    line = refused(monkeypatch, capsys, "edit=direction", "edit.direction=../other.safetensors")
    assert "was made for another generator (000000000000..." in line
    assert "(10, 192)" in refused(monkeypatch, capsys, "edit=direction", "edit.direction=../space.safetensors")


def test_codes_of_another_generator(run, photos, monkeypatch, capsys):
    command(monkeypatch, f"run={run}", f"input={photos}", "output=codes", module=invert)
    assert "of another generator" in refused(monkeypatch, capsys, "input=codes", "edit=truncate")
    assert "is inside input" in refused(monkeypatch, capsys, f"run={run}", f"input={photos}", f"output={photos}/out")
    assert "holds codes already" in refused(monkeypatch, capsys, "input=codes", f"run={run}", "edit=truncate")


def test_number_of_images_is_checked_before_they_are_inverted(run, photos, monkeypatch, capsys):
    from tests import fake_run

    monkeypatch.setattr(fake_run.TwoSteps, "invert", lambda self, images: pytest.fail("inverted"))
    line = refused(monkeypatch, capsys, f"run={run}", f"input={photos}/a.png", "edit=mix")
    assert "got 1 image, expected at least 2" in line


def test_output_with_content_is_kept(monkeypatch, capsys):
    save_image(torch.zeros(3, 8, 8), Path("out", "mine.png"))
    assert "has content" in refused(monkeypatch, capsys, "edit=smile", "output=out")


def test_mp4_without_its_package_is_an_error(monkeypatch, capsys):
    from stylegan_inv.visualization import animation

    monkeypatch.setattr(animation.importlib.util, "find_spec", lambda name: None)
    assert "pip install imageio-ffmpeg" in refused(monkeypatch, capsys, "animation=mp4")


def test_mp4(monkeypatch):
    pytest.importorskip("imageio_ffmpeg")
    command(monkeypatch, "edit=pose", "edit.strength=[-1,1]", "samples=1", "animation=mp4", "frames=5", "output=out")
    assert Path("out/animation.mp4").read_bytes()[4:8] == b"ftyp"


def test_the_real_command_line(tmp_path):
    result = run_cli("edit", "edit=smile", "samples=1", "output=out", cwd=tmp_path / "cwd")
    assert result.returncode == 0, result.stderr
    assert sorted(path.name for path in (tmp_path / "cwd").iterdir()) == ["out"], "Hydra leaves nothing behind"
    assert_user_error(run_cli("edit", "edit.strength=a", cwd=tmp_path / "cwd"), "edit.strength=a")


@pytest.mark.parametrize("name", ["n" * 3000, "../../../elsewhere/x"])
def test_names_of_directions_may_be_anything(name, monkeypatch):
    """The name in a file is part of the default output folder and of the names of images."""
    save_direction(Direction(torch.ones(192), name), Path("..", "odd.safetensors"))
    command(monkeypatch, "edit=direction", "edit.direction=../odd.safetensors", "samples=1", "edit.strength=[1,2]")
    assert len(list(Path("outputs", "edits").glob("*/images/*_+*.png"))) == 2
    assert not Path("..", "..", "elsewhere").exists()


def test_images_that_are_not_finite_are_an_error(monkeypatch):
    inputs, codes = (
        EditInputs(load_generator("synthfaces64"), torch.zeros(2, 10, 192), ["a", "b"]),
        torch.ones(2, 10, 192),
    )
    image = torch.zeros(2, 3, 64, 64)
    monkeypatch.setattr(inputs, "_render_with", lambda *_: image)
    image[0] = torch.nan
    assert inputs.render(codes).shape == image.shape  # of an image that could not be inverted
    image[1] = torch.inf
    with pytest.raises(UserError, match="codes up to 1 are not finite; give smaller strengths"):
        inputs.render(codes)
