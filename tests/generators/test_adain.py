"""The original StyleGAN against float64 arithmetic from its formulae, on files with the structure of public ones."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_discriminator, load_generator, save_generator
from stylegan_inv.generators.io.network_export import LAYOUTS, exported
from stylegan_inv.generators.progressive import Stage
from stylegan_inv.generators.variants.blended_synthesis import blended_synthesis
from stylegan_inv.generators.variants.feature_copy import transfer_features
from stylegan_inv.methods.psp import PSP
from tests.forks import run_fork
from tests.generators import stylegan1

SMALL = {4: 4, 8: 3, 16: 2}
CASES = {"plain.pkl": "auto", "fused.pkl": True}


def tensors(variables: dict[str, np.ndarray]) -> dict[str, torch.Tensor]:
    return {key: torch.from_numpy(np.array(value)) for key, value in variables.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    """Pickles of one network: as published, with fused scaling, at 128 px, and with options that nobody supports."""
    root = tmp_path_factory.mktemp("stylegan1")
    small = stylegan1.variables(16, SMALL)
    large = stylegan1.variables(128, dict.fromkeys((4, 8, 16, 32, 64, 128), 2), depth=1)
    files = [
        ("plain.pkl", small, {"resolution": 16, "blur_filter": [1, 2, 1]}),
        ("fused.pkl", small, {"fused_scale": True}),
        ("large.pkl", large, {"structure": "fixed"}),
        ("blur.pkl", small, {"blur_filter": [1, 3, 3, 1]}),
        ("pixel.pkl", small, {"use_pixel_norm": True}),
        ("young.pkl", {**small, "lod": np.float32(1.5)}, {}),
    ]
    (root / "variables.pickle").write_bytes(pickle.dumps(files))
    script = Path(__file__).with_name("make_stylegan1_files.py")
    done = run_fork(str(script), str(root), cwd=root)
    assert done.returncode == 0, done.stderr
    return root


def check(generator: Generator, v: dict[str, np.ndarray], fused_from: int, tolerance: float = 2e-5) -> None:
    rng = np.random.default_rng(3)
    z = rng.normal(size=(2, 5))
    w = stylegan1.mapping(v, z)
    codes = rng.normal(size=(2, generator.num_ws, generator.w_dim))
    with torch.no_grad():
        own = generator.mapping(torch.tensor(z, dtype=torch.float32))
        assert own.shape == (2, generator.num_ws, generator.w_dim)
        np.testing.assert_allclose(own[:, 0], w, rtol=1e-4, atol=1e-5 * np.abs(w).max())
        np.testing.assert_array_equal(generator.w_avg, v["dlatent_avg"])
        for noise in (True, False):
            expected = stylegan1.synthesis(v, codes, noise=noise, fused_from=fused_from)[generator.resolution]
            image = generator.synthesis(torch.tensor(codes, dtype=torch.float32), noise="const" if noise else "none")
            np.testing.assert_allclose(image, expected, atol=tolerance * np.abs(expected).max())


@pytest.mark.parametrize("file", CASES)
def test_tensorflow_pickle_gives_the_images_of_the_formulas(folder, file):
    generator = load_generator(folder / file)
    assert generator.config["style"] == "adain" and generator.progressive and generator.num_ws == 6
    assert generator.channels == SMALL and (generator.z_dim, generator.w_dim) == (5, 6)
    check(generator, stylegan1.variables(16, SMALL), fused_from=4 if CASES[file] is True else 128)
    assert not (folder / "canary").exists()


def test_fused_scaling_begins_at_128_pixels(folder):
    channels = dict.fromkeys((4, 8, 16, 32, 64, 128), 2)
    check(load_generator(folder / "large.pkl"), stylegan1.variables(128, channels, depth=1), fused_from=128)


def test_fused_weights_are_mirrored_and_the_difference_shows(folder):
    codes = torch.randn(1, 6, 6)
    images = [load_generator(folder / file).synthesis(codes) for file in CASES]
    assert (images[0] - images[1]).abs().max() > 0.1 * images[0].abs().max()


@pytest.mark.parametrize("fused_from", [4, 16, 128])
def test_state_dict_of_interfacegans_port(fused_from, tmp_path):
    v = stylegan1.variables(16, SMALL)
    state = tensors(stylegan1.to_interfacegan(v, fused_from))
    torch.save(state, tmp_path / "stylegan_ffhq.pth")
    check(load_generator(tmp_path / "stylegan_ffhq.pth"), v, fused_from)


def test_published_keys_and_shapes_at_1024(tmp_path):
    """Every name of the public file finds its place; the table of channels is that of FFHQ."""
    channels = {r: min(16384 // r, 512) for r in (4, 8, 16, 32, 64, 128, 256, 512, 1024)}
    small = {r: max(c // 64, 1) for r, c in channels.items()}
    state = tensors(stylegan1.to_interfacegan(stylegan1.variables(1024, small, depth=8)))
    assert "synthesis.layer17.epilogue.style_mod.dense.wscale.bias" in state and "synthesis.output8.bias" in state
    assert "synthesis.layer10.weight" in state and "synthesis.layer8.conv.weight" in state
    torch.save(state, tmp_path / "g.pth")
    generator = load_generator(tmp_path / "g.pth")
    assert (generator.num_ws, generator.resolution, generator.channels) == (18, 1024, small)
    assert len(generator.synthesis.noise_maps()) == 18
    with torch.device("meta"):
        full = Generator(1024, channel_base=16384, style="adain", progressive=True)
    assert full.channels == channels
    # 26.2 million trainable numbers, as the authors print them.
    assert sum(p.numel() for p in full.parameters()) == 26_219_627


def test_round_trip_and_frozen(folder, tmp_path):
    generator = load_generator(folder / "plain.pkl")
    save_generator(generator, tmp_path / "g.safetensors")
    again = load_generator(tmp_path / "g.safetensors")
    assert again.config == generator.config and again.state_dict().keys() == generator.state_dict().keys()
    z = torch.randn(2, 5)
    assert torch.equal(again(z, psi=0.5), generator(z, psi=0.5))
    assert not any(p.requires_grad for p in again.parameters())
    torch.save(generator.state_dict(), tmp_path / "bare.pt")  # without our metadata: from the shapes
    assert torch.equal(load_generator(tmp_path / "bare.pt")(z), generator(z))
    with pytest.raises(UserError, match="float32"):
        again.freeze(dtype=torch.bfloat16)


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(1)
    generator = Generator(16, z_dim=4, w_dim=6, mapping_layers=1, channels={4: 8, 8: 8, 16: 4}, style="adain")
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(torch.randn_like(p) * 0.3)
    return generator.freeze()


def test_noise_modes(generator):
    w = generator.mapping(torch.randn(2, 4))
    const, none = generator.synthesis(w), generator.synthesis(w, noise="none")
    assert torch.equal(generator.synthesis(w, noise=generator.synthesis.noise_maps()), const)
    assert not torch.equal(const, none) and not torch.equal(generator.synthesis(w, noise="random"), const)
    zeros = [torch.zeros_like(n) for n in generator.synthesis.noise_maps()]
    torch.testing.assert_close(generator.synthesis(w, noise=zeros), none)
    with pytest.raises(UserError, match="expected 6 noise maps"):
        generator.synthesis(w, noise=zeros[:-1])
    with pytest.raises(UserError, match=r"codes must have shape \(B, 6, 6\)"):
        generator.synthesis(w[:, :-1])
    with pytest.raises(UserError, match="progressive=true"):
        generator.synthesis(w, stage=Stage(8))


def test_styles_are_local_to_their_layer(generator):
    w = generator.mapping(torch.randn(1, 4)).clone()
    image = generator.synthesis(w, noise="none")
    for layer in range(6):
        changed = w.clone()
        changed[:, layer] += 1
        assert not torch.equal(generator.synthesis(changed, noise="none"), image), layer


def test_gradients_to_second_order():
    torch.manual_seed(0)
    generator = Generator(8, z_dim=2, w_dim=3, mapping_layers=1, channels={4: 2, 8: 2}, style="adain").double()
    w = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    generator.requires_grad_(False)
    render = lambda codes: generator.synthesis(codes, noise="none")  # noqa: E731
    assert torch.autograd.gradcheck(render, w, fast_mode=True)
    assert torch.autograd.gradgradcheck(render, w, fast_mode=True)


def test_methods_invert_with_it(generator):
    method = PSP(generator=generator, encoder=lambda **kwargs: SmallEncoder(width=8, **kwargs))
    inversion = method.invert(torch.rand(2, 3, 16, 16) * 2 - 1)
    assert inversion.w.shape == (2, 6, 6) and inversion.image.shape == (2, 3, 16, 16)
    inversion.image.square().mean().backward()
    assert any(p.grad is not None and p.grad.abs().sum() > 0 for p in method.parameters())


def test_two_codes_blended_by_a_mask(generator):
    a, b = generator.mapping(torch.randn(2, 4)), generator.mapping(torch.randn(2, 4))
    synthesis: Any = generator.synthesis
    torch.testing.assert_close(blended_synthesis(synthesis, a, b, torch.ones(2, 1, 16, 16)), synthesis(a))
    torch.testing.assert_close(blended_synthesis(synthesis, a, b, torch.zeros(2, 1, 16, 16)), synthesis(b))


def test_features_copied_inside_a_mask(generator):
    a, b = generator.mapping(torch.randn(2, 4)), generator.mapping(torch.randn(2, 4))
    synthesis: Any = generator.synthesis
    nothing = transfer_features(synthesis, a, b, torch.zeros(2, 1, 16, 16), [8])
    torch.testing.assert_close(nothing, synthesis(a))
    copied = transfer_features(synthesis, a, b, torch.ones(2, 1, 16, 16), [8])
    mixed = torch.cat([b[:, :4], a[:, 4:]], dim=1)
    torch.testing.assert_close(copied, synthesis(mixed))


@pytest.mark.parametrize(
    ("file", "message"),
    [
        ("blur.pkl", r"blur_filter \[1, 3, 3, 1\]; only StyleGAN's \[1, 2, 1\]"),
        ("pixel.pkl", "use_pixel_norm True"),
        ("young.pkl", "an unfinished network"),
    ],
)
def test_other_variants_are_refused(folder, file, message):
    with pytest.raises(UserError, match=message) as info:
        load_generator(folder / file)
    assert file in str(info.value) and "\n" not in str(info.value)


def test_errors_name_what_does_not_fit(folder, generator, tmp_path):
    with pytest.raises(UserError, match="a discriminator of the original StyleGAN, expected a StyleGAN2 discriminator"):
        load_discriminator(folder / "plain.pkl")
    for layout in LAYOUTS:
        with pytest.raises(UserError, match="cannot store an original StyleGAN"):
            exported(generator, layout)
    state = tensors(stylegan1.to_interfacegan(stylegan1.variables(16, SMALL)))
    for change, message in (
        ({"synthesis.layer2.blur.kernel": torch.ones(3, 1, 3, 3)}, r"not the \[1, 2, 1\] filter"),
        ({"synthesis.lod": torch.tensor(2.0)}, "an unfinished network"),
        ({"synthesis.layer2.surplus": torch.ones(1)}, r"1 key \(synthesis.layer2.surplus\) not part of InterFaceGAN"),
        ({"synthesis.layer0.first_layer": torch.ones(4, 4, 4)}, r"first_layer has shape \(4, 4, 4\)"),
        ({"synthesis.layer3.epilogue.bias": torch.ones(9)}, r"16 px StyleGAN generator: .*layer1.bias is \(9,\)"),
    ):
        torch.save({**state, **change}, tmp_path / "g.pth")
        with pytest.raises(UserError, match=message):
            load_generator(tmp_path / "g.pth")
    with pytest.raises(UserError, match="style=adian: expected one of modulated, adain"):
        Generator(8, style="adian")
    with pytest.raises(UserError, match="no clamp"):
        Generator(8, style="adain", conv_clamp=256)
