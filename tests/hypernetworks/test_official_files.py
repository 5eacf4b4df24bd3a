"""Files of HyperStyle's and HyperInverter's code become methods, and HyperStyle's are written again."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch

from stylegan_inv import convert
from stylegan_inv.encoders.official.hypernetwork_files import hyperstyle_checkpoint
from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, to_rosinality
from stylegan_inv.generators.io.formats import save_generator
from stylegan_inv.hypernetworks.layerwise_encoder import LayerwiseEncoder
from stylegan_inv.hypernetworks.shared_weights import SharedWeightsHypernetwork
from stylegan_inv.hypernetworks.weight_regressors import WeightRegressors
from stylegan_inv.loading import load_official
from stylegan_inv.methods.hyperinverter import HyperInverter
from stylegan_inv.methods.hyperstyle import HyperStyle
from stylegan_inv.methods.psp import PSP
from tests.encoders.official import IR, small_generator

RESNET = partial(resnet34, channels=(4, 8, 12, 16), units=(1, 1, 1, 1))


def hypernetwork(generator: Generator, **options: Any) -> SharedWeightsHypernetwork:
    torch.manual_seed(3)
    return SharedWeightsHypernetwork(generator.synthesis, backbone=RESNET, **options).eval()


def hyperstyle_file(generator: Generator, network: SharedWeightsHypernetwork, **opts: Any) -> dict[str, Any]:
    state = {f"hypernet.{key}": value for key, value in network.state_dict().items()}
    for layer in network.layers:
        if layer.shape == network.shared_shape:
            for name in ("w1", "b1", "w2", "b2"):  # as torch writes the same module under several names
                alias = f"hypernet.refinement_blocks.{layer.number}.hypernet.{name}"
                state[alias] = state[f"hypernet.shared_weight_hypernet.{name}"]
    state |= {f"decoder.{key}": value for key, value in to_rosinality(generator.state_dict()).items()}
    given = {"n_iters_per_batch": 2, "w_encoder_checkpoint_path": "/elsewhere/w.pt", "device": "cuda:0", **opts}
    return {"state_dict": state, "latent_avg": generator.w_avg.repeat(6, 1), "opts": given, "global_step": 3}


def w_file(generator: Generator, encoder: SingleWEncoder) -> dict[str, Any]:
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"decoder.{key}": value for key, value in to_rosinality(generator.state_dict()).items()}
    opts = {"encoder_type": "SingleStyleCodeEncoder", "output_size": 16}
    return {"state_dict": state, "latent_avg": generator.w_avg.repeat(6, 1), "opts": opts}


def w_encoder() -> SingleWEncoder:
    torch.manual_seed(1)
    return SingleWEncoder(6, 7, backbone=IR).eval()


@pytest.mark.parametrize("options", [{}, {"separable": True}, {"layers": [0, 1, 3, 4]}])
def test_hyperstyle(options: dict[str, Any], tmp_path) -> None:
    generator = small_generator().freeze()
    network = hypernetwork(generator, **options)
    torch.save(hyperstyle_file(generator, network), tmp_path / "hyperstyle.pt")
    torch.save(w_file(generator, w_encoder()), tmp_path / "w.pt")
    method = load_official(tmp_path / "hyperstyle.pt")
    assert isinstance(method, HyperStyle) and method.iterations == 2 and not method.training
    start = PSP(generator=generator, encoder=lambda **_: w_encoder()).eval()
    want = HyperStyle(generator=generator, start=start, hypernetwork=lambda *_, **__: network, iterations=2).eval()
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        got, expected = method.invert(images), want.invert(images)
    torch.testing.assert_close(got.image, expected.image)  # weights of another memory layout round in another way
    assert got.weights.keys() == expected.weights.keys()
    # To our format and back to the official one, with one storage for what is shared.
    for first, second, layout in (("hyperstyle.pt", "x.safetensors", "ours"), ("x.safetensors", "y.pt", "psp")):
        convert.main([str(tmp_path / first), str(tmp_path / second), "--to", layout])
    back = torch.load(tmp_path / "y.pt", weights_only=True)["state_dict"]
    original = hyperstyle_file(generator, network)["state_dict"]
    assert back.keys() == original.keys() and all(torch.equal(back[key], original[key]) for key in back)
    assert (tmp_path / "y.pt").stat().st_size < 1.2 * (tmp_path / "hyperstyle.pt").stat().st_size
    # Ours in the official layout: the same keys, aliases included.
    made = hyperstyle_checkpoint(network, generator, 2)
    keys = {key.removeprefix("hypernet.") for key in original if key.startswith("hypernet.")}
    assert made.others["hypernet"].keys() == keys and made.opts["n_hypernet_outputs"] == 8


def test_hyperstyle_without_its_encoder_and_other_files(tmp_path) -> None:
    generator = small_generator().freeze()
    content = hyperstyle_file(generator, hypernetwork(generator))
    path = tmp_path / "hyperstyle.pt"
    torch.save(content, path)
    with pytest.raises(UserError, match="HyperStyle has no start; give start="):
        load_official(path).invert(torch.zeros(1, 3, 64, 64))

    def refused(state: dict[str, Any], message: str) -> None:
        torch.save({**content, "state_dict": state}, path)
        with pytest.raises(UserError, match=message) as info:
            load_official(path)
        assert str(path) in str(info.value) and "\n" not in str(info.value)

    state = content["state_dict"]
    larger = Generator(32, z_dim=7, w_dim=7, mapping_layers=2, channels={4: 8, 8: 6, 16: 4, 32: 4}).freeze()
    other = hyperstyle_file(larger, hypernetwork(larger))["state_dict"]
    mixed = {key: value for key, value in other.items() if key.startswith("hypernet")}
    mixed |= {key: value for key, value in state.items() if key.startswith("decoder")}
    refused(mixed, "the generator has no others")
    alias = next(key for key in state if key.endswith("hypernet.w1") and "refinement" in key)
    refused({**state, alias: state[alias] + 1}, "has another w1 in block 0")
    fewer = {key: value for key, value in state.items() if "refinement_blocks.2.convs.0.weight" not in key}
    refused(fewer, "expected a hypernetwork of HyperStyle for this generator of 16 px: 1 missing key|missing key")


def test_hyperinverter(tmp_path) -> None:
    generator = small_generator()
    save_generator(generator, tmp_path / "gan.safetensors")
    torch.manual_seed(2)
    encoder = LayerwiseEncoder(6).eval()
    network = WeightRegressors(generator.synthesis, hidden=3, features=512, inner=2).eval()
    parts = {"w_encoder": w_encoder(), "w_bar_encoder": encoder, "hypernet": network}
    state = {f"{name}.{key}": value for name, part in parts.items() for key, value in part.state_dict().items()}
    state["discriminator.b4.out.weight"] = torch.zeros(1, 2)
    content = {"state_dict": state, "opts": {"stylegan_weights": "pretrained/gan.safetensors", "hidden_dim": 3}}
    torch.save(content, tmp_path / "hyper.pt")
    method = load_official(tmp_path / "hyper.pt")
    frozen = method.generator
    assert isinstance(method, HyperInverter) and torch.equal(frozen.w_avg, generator.w_avg)
    start = PSP(generator=frozen, encoder=lambda **_: w_encoder()).eval()
    start.input_size = 256
    want = HyperInverter(
        generator=frozen, start=start, encoder=lambda **_: encoder, hypernetwork=lambda *_, **__: network
    ).eval()
    images = torch.randn(1, 3, 64, 64)
    with torch.no_grad():
        got, expected = method.invert(images), want.invert(images)
    torch.testing.assert_close(got.image, expected.image)
    assert not torch.equal(got.image, got.steps[0].image)
    larger = Generator(32, z_dim=7, w_dim=7, mapping_layers=2, channels={4: 8, 8: 6, 16: 4, 32: 4})
    save_generator(larger, tmp_path / "gan.safetensors")
    with pytest.raises(UserError, match="expected an encoder of HyperInverter for this generator of 32 px"):
        load_official(tmp_path / "hyper.pt")
    (tmp_path / "gan.safetensors").unlink()
    with pytest.raises(UserError, match="has no generator; put the .pkl"):
        load_official(tmp_path / "hyper.pt")
