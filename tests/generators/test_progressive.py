"""Growing networks: the schedule, and the fade from one resolution to the next."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_discriminator, load_generator
from stylegan_inv.generators.io.formats import save_discriminator, save_generator
from stylegan_inv.generators.ops import setup_filter, upsample2d
from stylegan_inv.generators.progressive import Growth, Stage, at_stage

CHANNELS = {4: 6, 8: 6, 16: 5, 32: 4}


def random_numbers(network):
    with torch.no_grad():
        for p in network.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return network


def grown(style: str, resolution: int = 32, progressive: bool = True) -> Generator:
    torch.manual_seed(0)
    channels = {r: c for r, c in CHANNELS.items() if r <= resolution}
    options: dict[str, Any] = {"z_dim": 4, "w_dim": 5, "mapping_layers": 1, "style": style, "progressive": progressive}
    return random_numbers(Generator(resolution, channels=channels, **options))


def test_schedule():
    growth = Growth(32, start=8, grow_images=100, fade_images=50)
    for images, stage in {
        0: Stage(8), 100: Stage(8), 101: Stage(16, 0.02), 125: Stage(16, 0.5), 150: Stage(16), 250: Stage(16),
        275: Stage(32, 0.5), 300: Stage(32), 10**9: Stage(32),
    }.items():  # fmt: skip
        assert growth.stage(images) == stage, images
    assert growth.images == 300 and growth.stage(growth.images - 1).alpha < 1
    assert Growth(32, 8, 10, 0).stage(10) == Stage(16) and Growth(32, 8, 10, 0).images == 20
    assert Growth(16, 16, 10, 10).stage(0) == Stage(16) and Growth(16, 16, 10, 10).images == 0
    with pytest.raises(UserError, match=r"grow_from=64: expected one of \[4, 8, 16, 32\]"):
        Growth(32, start=64)
    with pytest.raises(UserError, match="not both 0"):
        Growth(32, 8, 0, 0)


@pytest.mark.parametrize("style", ["modulated", "adain"])
def test_part_of_a_generator(style):
    generator = grown(style)
    w = torch.randn(2, generator.num_ws, 5)
    whole = generator.synthesis(w)
    assert torch.equal(generator.synthesis(w, stage=Stage(32)), whole)
    for r in (8, 16, 32):
        before, after = generator.synthesis(w, stage=Stage(r // 2)), generator.synthesis(w, stage=Stage(r))
        assert before.shape == (2, 3, r // 2, r // 2) and after.shape == (2, 3, r, r)
        # Alpha 0: the image of half the resolution, enlarged as each network enlarges images.
        if style == "adain":
            large = F.interpolate(before, scale_factor=2, mode="nearest")
        else:
            large = upsample2d(before, setup_filter((1, 3, 3, 1)))
        torch.testing.assert_close(generator.synthesis(w, stage=Stage(r, 0.0)), large)
        torch.testing.assert_close(generator.synthesis(w, stage=Stage(r, 0.3)), torch.lerp(large, after, 0.3))
    with pytest.raises(UserError, match="resolution=64"):
        generator.synthesis(w, stage=Stage(64))


@pytest.mark.parametrize("style", ["modulated", "adain"])
def test_a_part_is_the_smaller_network(style):
    large, small = grown(style), grown(style, 16)
    state = large.state_dict()
    small.load_state_dict({key: state[key] for key in small.state_dict()})
    w = torch.randn(2, large.num_ws, 5)
    noise = large.synthesis.noise_maps()
    part = large.synthesis(w, noise=noise, stage=Stage(16))
    torch.testing.assert_close(part, small.synthesis(w[:, : small.num_ws], noise=small.synthesis.noise_maps()))


def test_stylegan2_grows_into_the_same_network():
    growing, fixed = grown("modulated"), grown("modulated", progressive=False)
    fixed.load_state_dict(growing.state_dict())
    z = torch.randn(2, 4)
    assert torch.equal(growing(z), fixed(z))
    torch.testing.assert_close(growing.freeze()(z), fixed(z))


def test_discriminator():
    torch.manual_seed(0)
    discriminator = random_numbers(Discriminator(32, channels=CHANNELS, progressive=True))
    for r in (4, 8, 16, 32):
        image = torch.randn(4, 3, r, r)
        assert discriminator(image).shape == (4, 1)
        if r > 4:
            # Alpha 0: the logits of the smaller network for the image at half the size.
            torch.testing.assert_close(discriminator(image, alpha=0.0), discriminator(F.avg_pool2d(image, 2)))
            assert not torch.allclose(discriminator(image, alpha=0.5), discriminator(image))
    fixed = Discriminator(32, channels=CHANNELS)
    state = discriminator.state_dict()
    fixed.load_state_dict({key: state[key] for key in fixed.state_dict()})
    assert torch.equal(fixed(image), discriminator(image))
    for network, size, alpha in ((fixed, 16, 1.0), (fixed, 32, 0.5), (discriminator, 4, 0.5), (discriminator, 64, 1.0)):
        with pytest.raises(UserError, match="expects images|alpha=0.5"):
            network(torch.randn(4, 3, size, size), alpha=alpha)


def test_real_images_fade_like_generated_ones():
    image = torch.randn(2, 3, 32, 32)
    assert torch.equal(at_stage(image, Stage(32)), image)
    half = F.avg_pool2d(image, 2)
    torch.testing.assert_close(at_stage(image, Stage(16)), half)
    large = half.repeat_interleave(2, dim=2).repeat_interleave(2, dim=3)
    torch.testing.assert_close(at_stage(image, Stage(32, 0.0)), large)
    torch.testing.assert_close(at_stage(image, Stage(32, 0.25)), 0.75 * large + 0.25 * image)


@pytest.mark.parametrize("style", ["modulated", "adain"])
def test_files(style, tmp_path):
    generator, discriminator = grown(style), Discriminator(32, channels=CHANNELS, progressive=True)
    save_generator(generator, tmp_path / "g.safetensors")
    save_discriminator(discriminator, tmp_path / "d.safetensors")
    w = torch.randn(1, generator.num_ws, 5)
    part = load_generator(tmp_path / "g.safetensors").synthesis(w, stage=Stage(8))
    torch.testing.assert_close(part, generator.synthesis(w, stage=Stage(8)))
    torch.save(discriminator.state_dict(), tmp_path / "d.pt")
    image = torch.randn(4, 3, 8, 8)
    for name in ("d.safetensors", "d.pt"):
        assert torch.equal(load_discriminator(tmp_path / name)(image), discriminator(image)), name
