"""The invert command on runs that translate, pSp's variants, and encoder bootstrapping."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.data.images.image_files import read_image, to_uint8
from stylegan_inv.data.tasks.sketch import SketchToFace
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator, save_generator
from stylegan_inv.generators.variants import finetune
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from tests.cli import call, error_of
from tests.fake_run import make_run, write_config

RESOLUTION, DIM = 16, 8


class Linear(nn.Module):
    """An encoder whose codes are a linear map of 4 x 4 means."""

    def __init__(self, num_ws: int, w_dim: int, in_channels: int) -> None:
        super().__init__()
        self.linear, self.shape = nn.Linear(in_channels * 16, num_ws * w_dim), (num_ws, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.linear(F.adaptive_avg_pool2d(x, 4).flatten(1)).unflatten(1, self.shape)


def save_random_generator(file: Path, seed: int, dim: int = DIM) -> Path:
    torch.manual_seed(seed)
    channels = {4: 8, 8: 8, 16: 8}
    save_generator(Generator(RESOLUTION, z_dim=dim, w_dim=dim, mapping_layers=1, channels=channels), file)
    return file


def save_run(folder: Path, kind: type, generator: Path, task: dict[str, Any] | None = None, **arguments: Any) -> Any:
    """Writes a run folder with untrained weights; returns its method."""
    torch.manual_seed(3)
    method = kind(generator=load_generator(generator), encoder=Linear, **arguments)
    node = {
        "_target_": f"{kind.__module__}.{kind.__name__}",
        "generator": {"_target_": "stylegan_inv.generators.load_generator", "source": str(generator)},
        "encoder": {"_target_": f"{__name__}.Linear", "_partial_": True},
        **arguments,
    }
    (folder / "checkpoints").mkdir(parents=True)
    config = {"method": node, "dataset": {"resolution": RESOLUTION, "task": task}}
    write_config(folder, config)
    torch.save({"state_dict": method.state_dict(), "method": kind.__name__}, folder / "checkpoints" / "last.ckpt")
    return method.eval()


@pytest.fixture
def sketches(tmp_path: Path) -> Path:
    (tmp_path / "sketches").mkdir()
    for number in range(3):
        levels = np.random.default_rng(number).integers(0, 256, (RESOLUTION, RESOLUTION)).astype(np.uint8)
        Image.fromarray(levels).save(tmp_path / "sketches" / f"{number}.png")
    return tmp_path / "sketches"


def sketch_run(tmp_path: Path) -> tuple[Path, PSP]:
    generator = save_random_generator(tmp_path / "g.safetensors", 0)
    task = {"_target_": "stylegan_inv.data.SketchToFace"}
    return tmp_path / "run", save_run(tmp_path / "run", PSP, generator, task, in_channels=1)


def test_variants_of_sketches(tmp_path, sketches, monkeypatch, capsys) -> None:
    run, method = sketch_run(tmp_path)
    out = tmp_path / "out"
    call(monkeypatch, invert, f"run={run}", f"input={sketches}", f"output={out}", "variants=3", "batch_size=2")
    assert "squared error" not in capsys.readouterr().out, "a sketch is not the target"
    images = torch.stack([read_image(sketches / f"{number}.png") for number in range(3)])
    source = SketchToFace().read(images)
    torch.testing.assert_close(source[:, 0], (images[:, 0] + 1) / 2)
    w = method.invert(source).w
    torch.testing.assert_close(read_latents(out).w, w.detach(), rtol=1e-5, atol=1e-5)
    # 8 to 17 of 18 is 3 to 5 of 6; one random code for all images.
    z = torch.randn(3, 1, DIM, generator=torch.Generator().manual_seed(0))
    for number in (1, 2, 3):
        want = method.variants(source, z[number - 1], [3, 4, 5])
        torch.testing.assert_close(want.w[:, :3], w[:, :3])
        for row in range(3):
            saved = np.array(Image.open(out / "variants" / str(number) / f"{row}.png"))
            np.testing.assert_allclose(saved, to_uint8(want.image[row]).permute(1, 2, 0), atol=1)
    call(
        monkeypatch,
        invert,
        f"run={run}",
        f"input={sketches}",
        f"output={out}",
        "overwrite=true",
        "variants=1",
        "layers=[0]",
    )
    assert sorted(file.relative_to(out).parts[1] for file in out.glob("variants/*/*.png")) == ["1"] * 3
    call(monkeypatch, invert, f"run={run}", f"input={sketches}", f"output={out}", "overwrite=true")
    assert not list(out.glob("variants/*/*.png")), "the previous variants are removed"


def test_errors_of_variants(tmp_path, sketches, monkeypatch, capsys) -> None:
    run, _ = sketch_run(tmp_path)
    base = [f"input={sketches}", f"output={tmp_path}/out"]
    assert "layer 6 of codes with 6 layers" in error_of(
        monkeypatch, capsys, invert, f"run={run}", *base, "variants=1", "layers=[6]"
    )
    assert "variants=-1: expected a whole number" in error_of(
        monkeypatch, capsys, invert, f"run={run}", *base, "variants=-1"
    )
    assert f"start={run}: PSP does not refine" in error_of(
        monkeypatch, capsys, invert, f"run={run}", *base, f"start={run}"
    )
    other = make_run(tmp_path / "two_steps")
    assert "TwoSteps makes none" in error_of(monkeypatch, capsys, invert, f"run={other}", *base, "variants=1")
    assert not (tmp_path / "out").exists()


def test_bootstrapping_starts_from_the_result_of_the_other_run(tmp_path, sketches, monkeypatch) -> None:
    """Codes and images of one run are the starting point of a ReStyle run with another generator."""
    faces = save_random_generator(tmp_path / "faces.safetensors", 0)
    cartoons = save_random_generator(tmp_path / "cartoons.safetensors", 1)
    first = save_run(tmp_path / "first", ReStyle, faces, iterations=1)
    second = save_run(tmp_path / "second", ReStyle, cartoons, iterations=2)
    call(
        monkeypatch,
        invert,
        f"run={tmp_path}/second",
        f"start={tmp_path}/first",
        f"input={sketches}",
        f"output={tmp_path}/out",
    )
    x = torch.stack([read_image(sketches / f"{number}.png") for number in range(3)])
    begin = first.invert(x)
    w, y = begin.w, begin.image
    for _ in range(2):
        w = w + second.encoder(torch.cat([x, y], 1))
        y = second.generator.synthesis(w)
    torch.testing.assert_close(read_latents(tmp_path / "out").w, w.detach(), rtol=1e-4, atol=1e-4)


def test_starting_method_is_neither_saved_nor_trained(tmp_path) -> None:
    faces = save_random_generator(tmp_path / "faces.safetensors", 0)
    first = save_run(tmp_path / "first", PSP, faces)
    plain = ReStyle(generator=load_generator(faces), encoder=Linear)
    started = ReStyle(generator=load_generator(faces), encoder=Linear, start=first)
    assert started.state_dict().keys() == plain.state_dict().keys()
    assert len(list(started.parameters())) == len(list(plain.parameters()))
    assert not any(parameter.requires_grad for parameter in first.parameters())
    other = save_random_generator(tmp_path / "wide.safetensors", 0, dim=12)
    with pytest.raises(UserError, match="its codes are 6 x 12, expected 6 x 8"):
        plain.start_from(save_run(tmp_path / "wide", PSP, other))
    with pytest.raises(UserError, match="method.start='zero': expected 'average'"):
        plain.start_from("zero")


def test_finetuned_generators_are_trained_above_a_resolution_only(tmp_path) -> None:
    file = save_random_generator(tmp_path / "g.safetensors", 0)
    made = finetune.finetuned(file, from_resolution=8)
    learns = {name for name, parameter in made.named_parameters() if parameter.requires_grad}
    assert learns == {name for name, _ in made.named_parameters() if name.startswith(("synthesis.b8", "synthesis.b16"))}
    z = torch.randn(2, DIM)
    torch.testing.assert_close(made(z), load_generator(file)(z))
    made(z).square().mean().backward()
    # The noise strengths have gradients too, as constant maps are added.
    assert {name for name, parameter in made.named_parameters() if parameter.grad is not None} == learns
    with pytest.raises(UserError, match="from_resolution=32: expected one of 4, 8, 16"):
        finetune.finetuned(file, from_resolution=32)
