"""Official checkpoints are recognised by names and shapes and give the same encoder and generator."""

from __future__ import annotations

import argparse
import os
from pathlib import PosixPath

import pytest
import torch

from stylegan_inv import load_generator
from stylegan_inv.encoders.irse import UNITS_101, FaceRecognition
from stylegan_inv.encoders.official.architecture import infer_encoder
from stylegan_inv.encoders.official.checkpoint_writer import save_checkpoint, to_psp
from stylegan_inv.encoders.official.official_checkpoint import (
    build_encoder,
    checkpoint_generator,
    read_checkpoint,
    recognise,
)
from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.weight_files import misfits
from tests.encoders.official import (
    ENCODERS,
    NUM_WS,
    SIZES,
    W_DIM,
    decoder_state,
    psp_file,
    small_encoder,
    small_generator,
)
from tests.golden import key_shapes, needs_golden


@pytest.mark.parametrize("name", ENCODERS)
def test_every_encoder_round_trips(name, tmp_path):
    torch.save(psp_file(name), tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert checkpoint.kind == "psp" and checkpoint.opts["encoder_type"] == name
    built, original = build_encoder(checkpoint), small_encoder(name)
    assert type(built) is type(original)
    x = torch.randn(2, original.in_channels, 64, 64)
    if getattr(original, "resolution", 64) == 128:
        x = torch.randn(1, original.in_channels, 128, 128)
    with torch.no_grad():
        assert torch.equal(built(x), original(x))
    generator, estimated = checkpoint_generator(checkpoint)
    z = torch.randn(2, W_DIM)
    assert not estimated
    assert torch.equal(generator(z, psi=0.5), small_generator().freeze()(z, psi=0.5))
    assert torch.equal(load_generator(tmp_path / "x.pt").w_avg, small_generator().w_avg)


@needs_golden
@pytest.mark.parametrize(
    ("keys", "head", "backbone", "num_ws", "in_channels", "resolution"),
    [
        ("psp_gradual_n18", "fpn", "ir_se", 18, 3, 256),
        ("e4e_n10", "fpn", "ir_se", 10, 3, 256),
        ("psp_into_w", "single_w", "ir_se", None, 3, None),
        ("psp_into_wplus_n10", "last_layer", "ir_se", 10, 3, None),
        ("restyle_backbone_n18", "single_level", "ir_se", 18, 6, 256),
        ("restyle_gradual_n18", "fpn", "ir_se", 18, 6, 256),
        ("restyle_resnet_n16", "single_level", "resnet34", 16, 6, 256),
        ("restyle_resnet_gradual_n10", "fpn", "resnet34", 10, 6, 256),
        ("ir_se50_arcface", "none", "ir_se", None, 3, None),
    ],
)
def test_official_key_lists(keys, head, backbone, num_ws, in_channels, resolution):
    """The key lists of the official classes, in full size."""
    state = {key: torch.empty(shape, device="meta") for key, shape in key_shapes(keys).items()}
    geometry = infer_encoder(state)
    got = (geometry.head, geometry.backbone, geometry.num_ws, geometry.in_channels, geometry.resolution)
    assert got == (head, backbone, num_ws, in_channels, resolution)
    if head != "none":
        with torch.device("meta"):
            encoder = geometry.build(num_ws or 18)
        assert misfits(encoder.state_dict(), state) == ""


@pytest.mark.parametrize(
    "opts",
    [
        argparse.Namespace(encoder_type="Encoder4Editing", exp_dir=PosixPath("/exp"), lr=0.1),
        {"encoder_type": "Encoder4Editing", "exp_dir": PosixPath("/exp"), "lr": 0.1},
    ],
)
def test_options_are_plain_data(opts, tmp_path):
    torch.save({**psp_file("Encoder4Editing"), "opts": opts}, tmp_path / "x.pt")
    checkpoint = read_checkpoint(tmp_path / "x.pt")
    assert checkpoint.opts == {"encoder_type": "Encoder4Editing", "exp_dir": "/exp", "lr": 0.1}
    assert build_encoder(checkpoint).progressive


@pytest.mark.parametrize("shape", ["(D,)", "(1, D)", "(L, D)", "(1, L, D)", "numpy (D,)", "numpy (1, L, D)", "absent"])
def test_latent_average_of_every_shape(shape, tmp_path, caplog):
    content = psp_file("GradualStyleEncoder")
    average = small_generator().w_avg
    repeated = average.repeat(NUM_WS, 1)
    shapes = {"(D,)": average, "(1, D)": average[None], "(L, D)": repeated, "(1, L, D)": repeated[None]}
    content["latent_avg"] = shapes.get(shape.removeprefix("numpy "))
    if shape.startswith("numpy"):
        content["latent_avg"] = content["latent_avg"].numpy()
    if shape == "absent":
        del content["latent_avg"]
    torch.save(content, tmp_path / "x.pt")
    generator, estimated = checkpoint_generator(read_checkpoint(tmp_path / "x.pt"))
    loaded = load_generator(tmp_path / "x.pt")
    assert torch.equal(generator.w_avg, loaded.w_avg)
    assert estimated == (shape == "absent") == ("estimated from 10,000 samples" in caplog.text)
    if not estimated:
        assert torch.equal(generator.w_avg, average)


def test_missing_options_must_be_given():
    content = psp_file("GradualStyleEncoder", opts={})
    with pytest.raises(UserError, match="may contain pSp's or e4e's encoder.*--encoder-type e4e"):
        build_encoder(recognise(content))
    assert build_encoder(recognise(content), progressive=True).progressive
    only = {
        key: value for key, value in psp_file("SingleStyleCodeEncoder")["state_dict"].items() if "decoder" not in key
    }
    with pytest.raises(UserError, match="set num_ws"):
        build_encoder(recognise({"state_dict": only}))
    assert build_encoder(recognise({"state_dict": only}), num_ws=4).num_ws == 4
    assert build_encoder(recognise({"state_dict": only, "opts": {"stylegan_size": 64}})).num_ws == 10


def test_further_formats():
    restyle = psp_file("Encoder4Editing", discriminator_state_dict={"mlp.0.weight": torch.zeros(7, 7)}, optimizer={})
    assert set(recognise(restyle).networks()) == {"encoder", "decoder", "discriminator"}

    shared = torch.randn(5, 5)
    hyper = psp_file("GradualStyleEncoder")
    hyper["state_dict"] = {k: v for k, v in hyper["state_dict"].items() if k.startswith("decoder")} | {
        "hypernet.shared.w1": shared,
        "hypernet.refinement_blocks.0.hypernet.w1": shared,
    }
    found = recognise(hyper)
    assert found.kind == "hyperstyle" and set(found.networks()) == {"decoder", "hypernet"}
    with pytest.raises(UserError, match="contains no encoder, but decoder, hypernet"):
        build_encoder(found)

    gan = {
        "encoder": {f"module.{k}": v for k, v in small_encoder("Encoder4Editing").state_dict().items()},
        "decoder": decoder_state(small_generator()),
        "opts": {"encoder_type": "Encoder4Editing"},
        "optimizer": {"state": {}},
        "latent_avg": small_generator().w_avg,
    }
    found = recognise(gan)
    assert found.kind == "ganinverter" and build_encoder(found).num_ws == NUM_WS
    assert torch.equal(checkpoint_generator(found)[0].w_avg, small_generator().w_avg)

    assert recognise({"g_ema": decoder_state(small_generator())}).kind == "generator"
    assert recognise(decoder_state(small_generator())).kind == "generator"
    assert recognise({"state_dict": {"module.encoder_q.conv1.weight": torch.zeros(1)}}).kind == "moco"


def test_face_networks(tmp_path):
    small = {"channels": (4, 4, 8, 8)}
    # Groups are told apart by their widths, so a network with two groups of one width is none of the papers'.
    with pytest.raises(UserError, match="expected four"):
        recognise(FaceRecognition(**small).state_dict())
    arcface = FaceRecognition(**{"channels": SIZES["channels"]}).state_dict()
    curricular = FaceRecognition(UNITS_101, se=False, affine=False, channels=SIZES["channels"]).state_dict()
    assert recognise(arcface).kind == "ir-se50"
    assert recognise(curricular).kind == "curricularface"
    with pytest.raises(UserError, match="face recognition network"):
        build_encoder(recognise(arcface))
    save_checkpoint(recognise(arcface), tmp_path / "x.safetensors", {})
    again = read_checkpoint(tmp_path / "x.safetensors")
    assert again.kind == "ir-se50" and again.encoder.keys() == arcface.keys()


@pytest.mark.parametrize("name", ["Encoder4Editing", "SingleStyleCodeEncoder"])
def test_conversion_and_back_is_bit_exact(name, tmp_path):
    twin = torch.randn(3, 3)
    content = psp_file(name, discriminator_state_dict={"mlp.0.weight": torch.randn(7, 7)})
    content["state_dict"] |= {"hypernet.a": twin, "hypernet.b": twin}
    save_checkpoint(recognise(content), tmp_path / "x.safetensors", {"note": "made in a test"})
    again = read_checkpoint(tmp_path / "x.safetensors")
    assert again.kind == "hyperstyle" and again.metadata["note"] == "made in a test"
    back = to_psp(again)
    assert back["opts"] == content["opts"] and torch.equal(back["latent_avg"], content["latent_avg"])
    assert back["state_dict"].keys() == content["state_dict"].keys()
    for key, value in content["state_dict"].items():
        assert torch.equal(back["state_dict"][key], value), key
    assert torch.equal(
        back["discriminator_state_dict"]["mlp.0.weight"], content["discriminator_state_dict"]["mlp.0.weight"]
    )
    z = torch.randn(1, W_DIM)
    assert torch.equal(load_generator(tmp_path / "x.safetensors")(z), small_generator().freeze()(z))


def change(content, key, value):
    if value is None:
        del content["state_dict"][key]
    else:
        content["state_dict"][key] = value


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("encoder.styles.2.linear.bias", None, r"1 missing key \(styles.2.linear.bias\)"),
        ("encoder.styles.2.linear.extra", torch.zeros(1), r"1 unexpected key \(styles.2.linear.extra\)"),
        ("encoder.styles.2.linear.bias", torch.zeros(8), r"styles.2.linear.bias is \(8,\), expected \(7,\)"),
        ("encoder.input_layer.0.weight", None, "none of the papers' encoders"),
        ("encoder.body.2.res_layer.1.weight", None, "body.2.res_layer.1.weight: no such key"),
        ("encoder.body.1.res_layer.5.fc1.weight", None, "missing key"),
    ],
)
def test_errors_name_the_keys(key, value, message):
    content = psp_file("GradualStyleEncoder")
    change(content, key, value)
    with pytest.raises(UserError, match=message) as info:
        build_encoder(recognise(content))
    assert "\n" not in str(info.value)


def test_old_files_without_batch_counters():
    content = psp_file("BackboneEncoder")
    for key in [key for key in content["state_dict"] if key.endswith("num_batches_tracked")]:
        del content["state_dict"][key]
    x = torch.randn(1, 6, 64, 64)
    with torch.no_grad():
        assert torch.equal(build_encoder(recognise(content))(x), small_encoder("BackboneEncoder")(x))


class Evil:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


def test_bad_files(tmp_path):
    path, canary = tmp_path / "x.pt", tmp_path / "canary"
    with pytest.raises(UserError, match="no such file"):
        read_checkpoint(path)
    torch.save({**psp_file("Encoder4Editing"), "opts": Evil(canary)}, path)
    with pytest.raises(UserError, match=r"x.pt names posix.system, which unpickling could execute: refused"):
        read_checkpoint(path)
    assert not canary.exists()
    torch.save({"layer4.weight": torch.zeros(1)}, path)
    with pytest.raises(UserError, match=r"contains 1 unknown key \(layer4.weight\), expected a checkpoint of pSp"):
        read_checkpoint(path)
    sg3 = {"decoder.synthesis.input.freqs": torch.zeros(1), "encoder.x": torch.zeros(1)}
    torch.save({"state_dict": sg3, "opts": {}}, path)
    with pytest.raises(UserError, match="contains a StyleGAN3 generator"):
        checkpoint_generator(read_checkpoint(path))
