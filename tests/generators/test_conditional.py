"""Conditional generators whose class is fixed, against a plain float64 mapping network; grey generators as RGB."""

from __future__ import annotations

import copy
import math
from pathlib import Path

import pytest
import torch
from torch import Tensor

from stylegan_inv.convert import main as convert
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator, save_generator, to_nvidia
from stylegan_inv.generators.grey import as_rgb

CLASSES = 3
CHANNELS = {4: 8, 8: 6, 16: 4}


def tiny(c_dim: int = CLASSES, **options: object) -> Generator:
    torch.manual_seed(0)
    generator = Generator(
        16, z_dim=5, w_dim=7, mapping_layers=2, channels=CHANNELS, c_dim=c_dim, mapping_lr_multiplier=1.0, **options
    )
    generator.w_avg.normal_()
    return generator


def plain_w(generator: Generator, z: Tensor, labels: list[int]) -> Tensor:
    """The conditional mapping network of StyleGAN2-ADA, written out in float64."""
    sd = {key: value.double() for key, value in generator.mapping.state_dict().items()}
    embedded = torch.stack([sd["embed.weight"][:, label] for label in labels]) / math.sqrt(CLASSES) + sd["embed.bias"]
    parts = [v / (v.square().mean(dim=1, keepdim=True) + 1e-8).sqrt() for v in (z.double(), embedded)]
    x = torch.cat(parts, dim=1)
    for layer in ("fc0", "fc1"):
        x = x @ sd[f"{layer}.weight"].T / math.sqrt(x.shape[1]) + sd[f"{layer}.bias"]
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    return x


def plain_average(generator: Generator, label: int) -> Tensor:
    z = torch.randn(200_000, 5, generator=torch.Generator().manual_seed(9))
    return plain_w(generator, z, [label] * len(z)).mean(0)


def test_codes_of_a_class_and_their_truncation() -> None:
    generator, z = tiny(), torch.randn(4, 5)
    generator.set_class(2)
    w = plain_w(generator, z, [2] * 4)
    torch.testing.assert_close(generator.mapping.w(z).double(), w, rtol=1e-5, atol=1e-6)
    average = plain_average(generator, 2)
    error = 6 * w.std() / 100  # of a mean over 10,000 samples
    assert (generator.w_avg - average).abs().max() < error < (generator.w_avg - plain_average(generator, 1)).abs().max()
    expected = generator.w_avg + 0.5 * (w.float() - generator.w_avg)
    torch.testing.assert_close(generator.mapping(z, psi=0.5)[:, 3], expected, rtol=1e-5, atol=1e-6)
    # As in NVIDIA's code, a condition is truncated towards the average of the file.
    c = torch.eye(CLASSES)[[1] * 4]
    expected = generator.mapping.w_avg + 0.5 * (plain_w(generator, z, [1] * 4).float() - generator.mapping.w_avg)
    torch.testing.assert_close(generator.mapping(z, psi=0.5, c=c)[:, 0], expected, rtol=1e-5, atol=1e-6)


def test_all_classes_are_drawn_evenly_and_do_not_depend_on_the_batch() -> None:
    generator, z = tiny(), torch.randn(3000, 5)
    generator.set_class("none")
    state = torch.random.get_rng_state()
    w = generator.mapping.w(z)
    assert torch.equal(state, torch.random.get_rng_state())
    torch.testing.assert_close(w[7:8], generator.mapping.w(z[7:8]))
    of_class = torch.stack([plain_w(generator, z, [k] * len(z)) for k in range(CLASSES)])
    nearest = (of_class - w).norm(dim=2)
    assert nearest.min(0).values.max() < 1e-4
    counts = nearest.argmin(0).bincount(minlength=CLASSES)
    assert (counts - 1000).abs().max() < 5 * math.sqrt(3000 * 2 / 9)
    for half in (torch.bfloat16, torch.float16):  # whose lower bits are zero as float32
        numbers = generator.mapping.classes.numbers(z.to(half))  # type: ignore[union-attr]
        assert (numbers.bincount(minlength=CLASSES) - 1000).abs().max() < 150
    assert torch.equal(generator.w_avg, generator.mapping.w_avg)  # the mean over the classes of the training


def test_a_class_for_each_image_of_a_batch() -> None:
    generator, z = tiny(), torch.randn(3, 5)
    generator.set_class("dataset")
    labels = torch.tensor([2, 0, 2])
    with generator.with_classes(labels):
        torch.testing.assert_close(
            generator.mapping.w(z).double(), plain_w(generator, z, [2, 0, 2]), rtol=1e-5, atol=1e-6
        )
        average = generator.w_avg
        assert average.shape == (3, 1, 7)
        for row, label in enumerate(labels):
            assert torch.equal(average[row, 0], generator.mapping.class_average(int(label)))
        # Of samples that belong to no image, only these classes occur.
        many = generator.mapping.classes.numbers(torch.randn(500, 5))  # type: ignore[union-attr]
        assert set(many.tolist()) == {0, 2}
    assert torch.equal(generator.w_avg, generator.mapping.w_avg)
    generator.set_class(1)
    with generator.with_classes(labels):  # a fixed class stays
        assert torch.equal(generator.w_avg, generator.mapping.class_average(1))


@pytest.mark.parametrize(
    ("value", "c_dim", "message"),
    [
        (3, 3, "class=3: expected a whole number from 0 to 2; or none"),
        (-1, 3, "class=-1: expected"),
        ("cat", 3, "class=cat: expected"),
        (True, 3, "class=True: expected"),
        (1.5, 3, "class=1.5: expected"),
        (0, 0, "class=0: the generator is unconditional"),
        ("dataset", 0, "class=dataset: the generator is unconditional"),
    ],
)
def test_wrong_classes(value: object, c_dim: int, message: str) -> None:
    with pytest.raises(UserError, match=message):
        tiny(c_dim).set_class(value)  # type: ignore[arg-type]


def test_files_of_conditional_generators(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator, z = tiny(), torch.randn(2, 5)
    save_generator(generator, tmp_path / "g.safetensors")
    loaded = load_generator(tmp_path / "g.safetensors")
    assert [r.message for r in caplog.records if "class=none, the mean over 3 classes" in r.message]
    assert torch.equal(loaded.w_avg, generator.w_avg) and torch.isfinite(loaded(z)).all()
    caplog.clear()
    loaded = load_generator(tmp_path / "g.safetensors", class_label=1)
    torch.testing.assert_close(loaded.mapping.w(z).double(), plain_w(generator, z, [1, 1]), rtol=1e-5, atol=1e-6)
    assert not caplog.records
    # Without a latent average in the file, it is the mean over the classes.
    state = {key: value for key, value in to_nvidia(generator.state_dict()).items() if "w_avg" not in key}
    torch.save({"g_ema": state}, tmp_path / "g.pt")
    found = load_generator(tmp_path / "g.pt").mapping
    mapped = torch.cat([found.w(part) for part in torch.randn(20_000, 5).split(1000)])
    assert 0 < (found.w_avg - mapped.mean(0)).abs().max() < 0.05 * mapped.std()


@pytest.mark.parametrize("style", ["modulated", "adain"])
@pytest.mark.parametrize("frozen", [False, True])
def test_grey_generators_repeat_their_channel(style: str, frozen: bool) -> None:
    grey = tiny(0, img_channels=1, style=style)
    with torch.no_grad():
        for name, parameter in grey.named_parameters():
            if "torgb" in name:
                parameter.normal_()
    rgb = as_rgb(copy.deepcopy(grey))
    if frozen:
        rgb.freeze()
    w = torch.randn(2, grey.num_ws, 7)
    image = rgb.synthesis(w)
    assert image.shape == (2, 3, 16, 16) and rgb.img_channels == 3 and rgb.grey
    torch.testing.assert_close(image, grey.synthesis(w).expand(-1, 3, -1, -1), rtol=1e-5, atol=1e-5)


def test_tuned_grey_generators_stay_grey() -> None:
    synthesis = copy.deepcopy(as_rgb(tiny(0, img_channels=1)).freeze().synthesis).requires_grad_()
    optimizer = torch.optim.Adam(synthesis.parameters(), lr=0.01)
    w, target = torch.randn(1, 6, 7), torch.rand(1, 3, 16, 16)  # a coloured target
    for _ in range(5):
        optimizer.zero_grad()
        (synthesis(w) - target).square().mean().backward()
        optimizer.step()
    synthesis.requires_grad_(False)
    image = synthesis(w)  # on the fast path, which reads the weights
    torch.testing.assert_close(image, image[:, :1].expand_as(image), rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("channels", "message"), [(2, "maps of 2 channels"), (4, "4 channels .RGBA"), (96, "tri-planes.* not a picture")]
)
def test_other_channels_are_refused(
    channels: int, message: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "g.safetensors"
    save_generator(Generator(4, z_dim=2, w_dim=2, mapping_layers=1, channels={4: 2}, img_channels=channels), path)
    with pytest.raises(UserError, match=f"g.safetensors: makes .*{message}"):
        load_generator(path, as_rgb=True)
    with pytest.raises(SystemExit) as stop:
        convert([str(path), str(tmp_path / "out.safetensors")])
    assert stop.value.code == 2
    lines = capsys.readouterr().err.strip().splitlines()
    assert len(lines) == 1 and f"{channels} channels" in lines[0]
    assert [p.name for p in tmp_path.iterdir()] == ["g.safetensors"]
