"""The command convert: every conversion is bit exact, and bad input gives one line."""

from __future__ import annotations

import pytest
import torch

from stylegan_inv.convert import main
from stylegan_inv.encoders.official.official_checkpoint import read_checkpoint
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, load_discriminator, load_generator, to_nvidia
from stylegan_inv.generators.io.formats import read_metadata, save_generator
from stylegan_inv.generators.io.weight_files import file_hash
from stylegan_inv.loading import load_official
from tests.cli import run_cli
from tests.encoders.official import decoder_state, psp_file, small_encoder, small_generator


def run(*arguments: object) -> None:
    main([str(argument) for argument in arguments])


def error_of(capsys, *arguments: object) -> str:
    with pytest.raises(SystemExit) as info:
        run(*arguments)
    assert info.value.code == 2
    lines = capsys.readouterr().err.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: ")
    return lines[0]


def equal(a: dict, b: dict) -> bool:
    return a.keys() == b.keys() and all(torch.equal(a[key], b[key]) for key in a)


def test_rosinality_to_ours_to_every_layout_and_back(tmp_path, capsys):
    generator = small_generator()
    source = {"g_ema": decoder_state(generator), "latent_avg": generator.w_avg.clone()}
    torch.save(source, tmp_path / "g.pt")
    run(tmp_path / "g.pt", tmp_path / "g.safetensors")
    out = capsys.readouterr().out
    assert "16 px generator, channels [8, 6, 4]" in out and "mapping_layers=2" in out
    assert "tensors of the generator equal, bit by bit; 4 codes rendered from the source and from the new file" in out
    assert "largest difference 0.0e+00 in w and 0.0e+00 in images that span" in out
    metadata = read_metadata(tmp_path / "g.safetensors")
    assert metadata["source"] == "g.pt" and metadata["source_sha256"] == file_hash(tmp_path / "g.pt")
    for layout in ("rosinality", "nvidia", "psp"):
        run(tmp_path / "g.safetensors", tmp_path / f"{layout}.pt", "--to", layout)
        assert equal(load_generator(tmp_path / f"{layout}.pt").state_dict(), generator.state_dict())
        torch.load(tmp_path / f"{layout}.pt", weights_only=True)  # PyTorch's own restricted loader reads it
    again = torch.load(tmp_path / "rosinality.pt", weights_only=True)
    assert equal(again["g_ema"], source["g_ema"]) and torch.equal(again["latent_avg"], source["latent_avg"])
    assert equal(torch.load(tmp_path / "nvidia.pt", weights_only=True), to_nvidia(generator.state_dict()))
    psp = torch.load(tmp_path / "psp.pt", weights_only=True)
    assert psp["latent_avg"].shape == (6, 7) and psp["opts"]["output_size"] == 16


def test_checkpoint_to_ours_and_back(tmp_path, capsys):
    content = psp_file("Encoder4Editing")
    torch.save(content, tmp_path / "e4e.pt")
    run(tmp_path / "e4e.pt", tmp_path / "e4e.safetensors")
    run(tmp_path / "e4e.safetensors", tmp_path / "back.pt", "--to", "psp", "--codes", 1)
    out = capsys.readouterr().out
    assert "psp: encoder (" in out and "the latent average and the options equal, bit by bit; 4 codes" in out
    back = torch.load(tmp_path / "back.pt", weights_only=True)
    assert equal(back["state_dict"], content["state_dict"]) and back["opts"] == content["opts"]
    assert torch.equal(back["latent_avg"], content["latent_avg"])
    run(tmp_path / "e4e.pt", tmp_path / "g.safetensors", "--network", "generator", "--codes", 0)
    assert "rendered" not in capsys.readouterr().out
    assert equal(load_generator(tmp_path / "g.safetensors").state_dict(), small_generator().state_dict())


def test_the_advice_about_an_encoder_type_can_be_followed(tmp_path, capsys):
    """A file whose options do not tell pSp's encoder from e4e's is refused; the command in the line mends it."""
    torch.save({**psp_file("Encoder4Editing"), "opts": {"lr": float("nan")}}, tmp_path / "x.pt")
    with pytest.raises(UserError, match="FILE.safetensors --encoder-type e4e") as info:
        load_official(tmp_path / "x.pt")
    command = str(info.value).split("stylegan_inv.convert ")[1].removesuffix(" (or psp)")
    run(*command.replace("FILE.safetensors", f"{tmp_path}/x.safetensors").replace("FILE", f"{tmp_path}/x.pt").split())
    assert load_official(tmp_path / "x.safetensors").encoder.progressive
    torch.save(psp_file("GradualStyleEncoder"), tmp_path / "psp.pt")
    arguments = (tmp_path / "psp.pt", tmp_path / "y.safetensors", "--encoder-type", "e4e")
    assert "name the encoder GradualStyleEncoder" in error_of(capsys, *arguments)
    torch.save({"g_ema": decoder_state(small_generator())}, tmp_path / "g.pt")
    assert "has no encoder" in error_of(capsys, tmp_path / "g.pt", *arguments[1:])
    assert not (tmp_path / "y.safetensors").exists()


def test_numbers_that_are_not_finite(tmp_path, capsys):
    for key in ("encoder.styles.0.linear.bias", "decoder.conv1.activate.bias", "latent_avg"):
        content = psp_file("Encoder4Editing")
        content["state_dict"].get(key, content["latent_avg"])[0] = float("nan")
        torch.save(content, tmp_path / "x.pt")
        assert "holds NaN or infinite numbers" in error_of(capsys, tmp_path / "x.pt", tmp_path / "x.safetensors")
        assert not (tmp_path / "x.safetensors").exists()


def test_networks_of_a_training_file(tmp_path, capsys):
    ema, raw = small_generator(), small_generator()
    raw.synthesis.b4.const.data.add_(1)
    discriminator = Discriminator(16, channels={4: 8, 8: 6, 16: 4})
    torch.save(
        {
            "g_ema": decoder_state(ema),
            "g": decoder_state(raw),
            "d": to_nvidia(discriminator.state_dict()),
            "d_optim": {},
        },
        tmp_path / "train.pt",
    )
    run(tmp_path / "train.pt", tmp_path / "ema.safetensors", "--codes", 1)
    assert "has no latent average: estimated from 10,000 samples of the generator" in capsys.readouterr().out
    run(tmp_path / "train.pt", tmp_path / "raw.safetensors", "--network", "raw-generator", "--codes", 1)
    difference = load_generator(tmp_path / "raw.safetensors").synthesis.b4.const - ema.synthesis.b4.const
    assert torch.allclose(difference, torch.ones(()))
    run(tmp_path / "train.pt", tmp_path / "d.safetensors", "--network", "discriminator")
    run(tmp_path / "d.safetensors", tmp_path / "d.pt", "--network", "discriminator")
    assert equal(load_discriminator(tmp_path / "d.pt").state_dict(), discriminator.state_dict())


def test_limits_of_a_layout_are_printed(tmp_path, capsys):
    generator = Generator(8, z_dim=4, w_dim=5, channels={4: 3, 8: 2}, conv_clamp=0.2, mapping_lr_multiplier=0.1)
    save_generator(generator, tmp_path / "g.safetensors")
    run(tmp_path / "g.safetensors", tmp_path / "g.pt")
    out = capsys.readouterr().out
    for text in ("does not clamp", "does not support these numbers of channels", "z and w of one size", "lr_mlp=0.1"):
        assert text in out
    assert "0.0e+00 in images" not in out  # the clamp of this generator is low enough to change the images


def test_face_networks(tmp_path, capsys):
    state = {f"module.encoder_q.{key}": torch.randn(2) for key in ("conv1.weight", "bn1.weight")}
    torch.save({"state_dict": state, "epoch": 800, "optimizer": {"state": {}}}, tmp_path / "moco.pth.tar")
    run(tmp_path / "moco.pth.tar", tmp_path / "moco.safetensors")
    assert equal(read_checkpoint(tmp_path / "moco.safetensors").encoder, state)
    assert "2 tensors equal, bit by bit" in capsys.readouterr().out
    assert "cannot store" in error_of(capsys, tmp_path / "moco.pth.tar", tmp_path / "m.pt", "--to", "psp")


def test_bad_input(tmp_path, capsys):
    source, target = tmp_path / "g.pt", tmp_path / "g.safetensors"
    assert "no file" in error_of(capsys, source, target)
    torch.save({"g_ema": decoder_state(small_generator())}, source)
    assert "exists" in error_of(capsys, source, source)
    assert ".pt or .pth" in error_of(capsys, source, target, "--to", "psp")
    assert "--codes=-1" in error_of(capsys, source, target, "--codes", -1)
    assert "invalid choice" in error_of(capsys, source, target, "--to", "onnx")
    assert "the following arguments are required: target" in error_of(capsys, source)
    assert "expected a StyleGAN2 discriminator" in error_of(capsys, source, target, "--network", "discriminator")
    torch.save(
        {"state_dict": {f"encoder.{k}": v for k, v in small_encoder("BackboneEncoder").state_dict().items()}}, source
    )
    assert "no generator" in error_of(capsys, source, tmp_path / "x.pt", "--to", "nvidia")
    source.write_bytes(b"<!DOCTYPE html><title>Quota exceeded</title>")
    assert "is a web page" in error_of(capsys, source, target)
    assert [path.name for path in tmp_path.iterdir()] == ["g.pt"]


def test_command(tmp_path):
    result = run_cli("convert", "synthfaces64", "out/g.pt", "--codes", "1", cwd=tmp_path)
    assert result.returncode == 0, result.stderr
    assert result.stdout.splitlines()[1].startswith("wrote   out/g.pt: rosinality")
