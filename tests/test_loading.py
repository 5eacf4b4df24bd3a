"""Official checkpoints become methods that compute what the papers' code computes."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional as F

from stylegan_inv.encoders.official.checkpoint_writer import save_checkpoint
from stylegan_inv.encoders.official.official_checkpoint import read_checkpoint
from stylegan_inv.encoders.refinement.residual_encoders import ConsultationEncoder, ResidualAligner
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, to_rosinality
from stylegan_inv.loading import load_inverter, load_official
from stylegan_inv.methods.feature_space.hfgi import HFGI
from tests.encoders.official import ENCODERS, W_DIM, psp_file, small_encoder, small_generator


def pool(image: torch.Tensor, size: int) -> torch.Tensor:
    return F.adaptive_avg_pool2d(image, (size, size))


@pytest.mark.parametrize("name", ["GradualStyleEncoder", "Encoder4Editing", "SingleStyleCodeEncoder"])
@pytest.mark.parametrize("converted", [False, True])
@torch.no_grad()
def test_one_pass(name, converted, tmp_path):
    torch.save(psp_file(name), tmp_path / "x.pt")
    path = tmp_path / "x.pt"
    if converted:
        path = tmp_path / "x.safetensors"
        save_checkpoint(read_checkpoint(tmp_path / "x.pt"), path, {})
    method = load_official(path)
    images = torch.randn(2, 3, 64, 64)
    generator = small_generator().freeze()
    w = small_encoder(name)(images) + generator.w_avg
    result = method.invert(images)
    assert torch.equal(result.w, w) and torch.equal(result.image, generator.synthesis(w))
    assert not method.training and not any(p.requires_grad for p in method.parameters())
    assert method.generator.source_hash is not None


@torch.no_grad()
def test_refinement(tmp_path):
    torch.save(
        psp_file("BackboneEncoder", opts={"encoder_type": "BackboneEncoder", "n_iters_per_batch": 3}), tmp_path / "x"
    )
    method = load_official(tmp_path / "x")
    images = torch.randn(1, 3, 64, 64)
    generator, encoder = small_generator().freeze(), small_encoder("BackboneEncoder")
    w = generator.w_avg.expand(1, 6, W_DIM)
    shown = generator.synthesis(w)
    for _ in range(3):
        w = w + encoder(torch.cat([images, pool(shown, 64)], dim=1))
        shown = generator.synthesis(w)
    result = method.invert(images)
    assert len(result.steps) == 3
    torch.testing.assert_close(result.w, w)
    torch.testing.assert_close(result.image, shown)


def hfgi_file(**more):
    """Returns a checkpoint in HFGI's layout, with a generator of 64 px."""
    torch.manual_seed(0)
    channels = {4: 8, 8: 8, 16: 6, 32: 6, 64: 5}
    generator = Generator(64, z_dim=W_DIM, w_dim=W_DIM, mapping_layers=2, channels=channels)
    generator.w_avg.normal_()
    networks = {
        "encoder": ENCODERS["Encoder4Editing"](generator.num_ws, W_DIM),
        "residue": ConsultationEncoder(5),
        "grid_align": ResidualAligner(),
    }
    state = {f"decoder.{key}": value for key, value in to_rosinality(generator.state_dict()).items()}
    for name, network in networks.items():
        state |= {f"{name}.{key}": value for key, value in network.state_dict().items()}
    return {"state_dict": state, "latent_avg": generator.w_avg, "opts": {"stylegan_size": 64}, **more}, networks


@torch.no_grad()
def test_hfgi(tmp_path):
    content, networks = hfgi_file()
    torch.save(content, tmp_path / "hfgi.pt")
    method, images = load_inverter(tmp_path / "hfgi.pt"), torch.randn(2, 3, 64, 64).clamp(-1, 1)
    assert isinstance(method, HFGI) and method.aliased_residual and not method.training
    assert method.start.network.encoder.progressive, "e4e's encoder"
    encoder, residue, grid_align = (network.eval() for network in networks.values())
    w = encoder(images) + content["latent_avg"]
    plain = method.generator.synthesis(w)
    residual = images - plain.clamp(-1, 1)
    scale, shift = residue(grid_align(torch.cat([residual, plain.clamp(-1, 1)], dim=1)), 64)
    found = method.invert(images)
    torch.testing.assert_close(found.w, w)
    want = method.generator.synthesis(w, features={"b64.conv0": (1 + scale, shift)})
    torch.testing.assert_close(found.image, want)
    assert torch.equal(method.edit(found, lambda w: w), found.image)


def test_hfgi_refusals(tmp_path):
    content, _ = hfgi_file()
    for change, message in (
        ({"residue.condition_scale3.2.bias": torch.zeros(7)}, "has a residue that is not HFGI's for this generator"),
        ({"grid_align.conv_layer1.0.weight": torch.zeros(16, 3, 3, 3)}, "has a grid_align that is not HFGI's"),
    ):
        torch.save({**content, "state_dict": {**content["state_dict"], **change}}, tmp_path / "x.pt")
        with pytest.raises(UserError, match=message):
            load_inverter(tmp_path / "x.pt")
    state = {key: value for key, value in content["state_dict"].items() if not key.startswith("grid_align")}
    torch.save({**content, "state_dict": state}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="has no grid_align"):
        load_inverter(tmp_path / "x.pt")


def test_refusals(tmp_path):
    content = psp_file("GradualStyleEncoder")
    path = tmp_path / "x.pt"

    def refused(change: dict, message: str) -> None:
        torch.save({**content, **change}, path)
        with pytest.raises(UserError, match=message) as info:
            load_official(path)
        assert str(path) in str(info.value) and "\n" not in str(info.value)

    refused({"opts": {}}, "--encoder-type e4e")
    uneven = content["latent_avg"] * torch.arange(6)[:, None]
    refused({"latent_avg": uneven}, "latent_avg that differs between layers")
    refused({"opts": {**content["opts"], "start_from_latent_avg": False}}, "its codes are absolute")
    refused({"latent_avg": None}, "has no latent_avg")
    other = {**content["state_dict"], "hypernet.x": torch.zeros(1)}
    refused({"state_dict": other}, "has a hypernetwork that is not HyperStyle's")
    refused(
        {"state_dict": {**content["state_dict"], "residue.x": torch.zeros(1)}},
        "generator of 16 px, expected at least 64",
    )
    encoder = {key: value for key, value in content["state_dict"].items() if key.startswith("encoder.")}
    refused({"state_dict": encoder}, "expected a StyleGAN2 generator")
    fewer = {key: value for key, value in content["state_dict"].items() if not key.startswith("encoder.styles.5")}
    refused({"state_dict": fewer}, r"an encoder for codes \(5, 7\) and a generator for \(6, 7\)")
