"""The invert command with methods that need no training: results, continuing, errors."""

from __future__ import annotations

import csv
import sys
from pathlib import Path

import pytest
import torch
from PIL import Image

from stylegan_inv.data.images.image_files import read_image
from stylegan_inv.generators import Generator, load_generator, save_generator
from stylegan_inv.generators.variants.low_rank_difference import tuned
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.saved_codes import read_difference, read_latents, read_noise
from stylegan_inv.optim import per_image_optimization

QUICK = ("method.stages.w.steps=6", "method.stages.noise.steps=6", "method.stages.w.lr=0.05", "batch_size=1")


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A generator of 16 px whose noise has an effect."""
    generator = Generator(16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.fill_(0.2)
    generator.domain = "synthfaces"
    file = tmp_path_factory.mktemp("tiny") / "generator.safetensors"
    save_generator(generator, file)
    return str(file)


@pytest.fixture
def photos(tmp_path: Path) -> Path:
    (tmp_path / "photos").mkdir()
    for name, colour in {"a": (200, 150, 120), "b": (60, 90, 200)}.items():
        Image.new("RGB", (20, 20), colour).save(tmp_path / "photos" / f"{name}.png")
    return tmp_path / "photos"


def command(monkeypatch: pytest.MonkeyPatch, *arguments: object) -> None:
    monkeypatch.setattr(sys, "argv", ["invert", *map(str, arguments)])
    invert.main()


def test_writes_codes_noise_curves_and_images(small, photos, tmp_path, monkeypatch, capsys) -> None:
    common = ("method=image2stylegan_pp", f"generator.source={small}", *QUICK)
    command(monkeypatch, *common, f"input={photos}", f"output={tmp_path}/out")
    latents, generator = read_latents(tmp_path / "out"), load_generator(small)
    assert latents.names == ["a.png", "b.png"]
    for w, file in zip(latents.w, latents.reconstructions, strict=True):
        noise = read_noise(tmp_path / "out", file)
        assert noise is not None
        again = generator.synthesis(w[None], noise=noise)[0].clamp(-1, 1)
        assert (again - read_image(tmp_path / "out" / file)).abs().max() < 1.01 / 127.5
    with open(tmp_path / "out" / "losses.csv") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 2 * (6 + 6) and {row["image"] for row in rows} == {"a.png", "b.png"}
    assert (tmp_path / "out" / "losses.png").is_file() and not (tmp_path / "out" / "unfinished").exists()
    assert "losses.png" in capsys.readouterr().out


def test_a_killed_command_continues_and_another_is_refused(small, photos, tmp_path, monkeypatch, capsys) -> None:
    common = ["method=image2stylegan_pp", f"generator.source={small}", *QUICK, f"input={photos}"]
    command(monkeypatch, *common, f"output={tmp_path}/whole")
    real, count = per_image_optimization.adam, [0]

    def killed(*arguments: object) -> None:
        count[0] += 1
        if count[0] > 15:  # in the second image
            raise KeyboardInterrupt
        real(*arguments)  # type: ignore[arg-type]

    monkeypatch.setattr(per_image_optimization, "adam", killed)
    with pytest.raises(SystemExit) as stop:
        command(monkeypatch, *common, f"output={tmp_path}/out", "save_every_seconds=0")
    assert stop.value.code == 130 and capsys.readouterr().err.splitlines()[-1] == "interrupted"
    left = sorted(path.name for path in (tmp_path / "out" / "unfinished").iterdir())
    assert left == ["batch_00001.safetensors", "job.json", "part_00000.safetensors"]
    capsys.readouterr()
    count[0] = -1000
    with pytest.raises(SystemExit):
        command(monkeypatch, *common, f"output={tmp_path}/out", "method.seed=5")
    assert "holds the beginning of another command" in capsys.readouterr().err
    count[0] = -1000
    command(monkeypatch, *common, f"output={tmp_path}/out", "save_every_seconds=0")
    assert count[0] + 1000 < 12, "the first image was not optimised again"
    torch.testing.assert_close(read_latents(tmp_path / "out").w, read_latents(tmp_path / "whole").w)


def test_tuned_generators_are_stored_as_differences(small, photos, tmp_path, monkeypatch) -> None:
    pti = ("method=pti", "method.start.steps=3", "method.steps=4", "method.distance_threshold=null", "method.rank=2")
    command(monkeypatch, *pti, f"generator.source={small}", f"input={photos}/a.png", f"output={tmp_path}/out")
    latents = read_latents(tmp_path / "out")
    difference = read_difference(tmp_path / "out", latents.reconstructions[0])
    assert difference is not None
    noise = read_noise(tmp_path / "out", latents.reconstructions[0])
    image = tuned(load_generator(small), difference).synthesis(latents.w, noise=noise)[0].clamp(-1, 1)
    assert (image - read_image(tmp_path / "out" / latents.reconstructions[0])).abs().max() < 1.01 / 127.5


def test_bad_input(small, photos, tmp_path, monkeypatch, capsys) -> None:
    Image.new("L", (20, 20)).save(tmp_path / "black.png")
    Image.new("L", (10, 20), 255).save(tmp_path / "narrow.png")
    base = ["method=image2stylegan_pp", f"generator.source={small}", f"input={photos}/a.png", f"output={tmp_path}/out"]
    for arguments, expected in {
        ("application=crossover", "mask=ellipse:0.5,0.5,0.2,0.2"): "give reference=",
        ("application=inpainting",): "give mask=",
        ("application=inpainting", f"mask={tmp_path}/black.png"): "the mask is empty",
        ("application=inpainting", f"mask={tmp_path}/narrow.png"): "is 10 x 20 pixels, but",
        ("application=inpainting", "mask=ellipse:3,3,0.1,0.1"): "the mask is empty",
        ("application=inpainting", "mask=label:hair"): "has no label map",
        ("application=crossover", f"reference={photos}/none.png", "mask=changed"): "none.png",
        ("input=synthfaces:9-3",): "the smaller number first",
        ("run=somewhere",): "expected one of them",
        ("method=projector", "mask=ellipse:0.5,0.5,0.2,0.2"): "Projector takes none; method=image2stylegan_pp does",
        ("method=pti", f"reference={photos}/b.png"): "PTI takes none; method=image2stylegan_pp does",
    }.items():
        with pytest.raises(SystemExit) as stop:
            command(monkeypatch, *base, *arguments)
        (line,) = capsys.readouterr().err.strip().splitlines()
        assert stop.value.code == 2 and line.startswith("error: ") and expected in line, line
        assert not (tmp_path / "out").exists()
    with pytest.raises(SystemExit):
        command(monkeypatch, "method=restyle", f"input={photos}", "output=out")
    assert "must be trained first" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        command(monkeypatch, f"input={photos}", "output=out", "default_run=null")
    assert "got neither run nor method" in capsys.readouterr().err
