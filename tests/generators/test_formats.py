"""Files are read back as they were written, and errors are one line."""

from __future__ import annotations

import argparse
import hashlib
import io
import json
import pickle

import pytest
import torch
from safetensors.torch import save_file

from stylegan_inv.errors import UserError
from stylegan_inv.generators import (
    Discriminator,
    Generator,
    embedded_generators,
    file_hash,
    from_rosinality,
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
    to_nvidia,
    to_rosinality,
)
from stylegan_inv.generators.io import formats

SMALL = {4: 8, 8: 6, 16: 4}


@pytest.fixture
def generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(16, z_dim=5, w_dim=7, mapping_layers=3, channels=SMALL, img_channels=2)
    with torch.no_grad():
        for p in generator.parameters():
            p.add_(torch.randn_like(p) * 0.3)
        generator.w_avg.normal_()
    return generator


def same_image(a: Generator, b: Generator) -> bool:
    own, other = a.state_dict(), b.state_dict()
    equal = own.keys() == other.keys() and all(torch.equal(own[key], other[key]) for key in own)
    # Frozen generators take other paths, which round differently.
    z = torch.randn(2, a.z_dim)
    return equal and torch.allclose(a(z, psi=0.6), b(z, psi=0.6), rtol=1e-4, atol=1e-4)


def test_safetensors_round_trip(generator, tmp_path):
    path = tmp_path / "new" / "g.safetensors"
    save_generator(generator, path, {"note": "made in a test"})
    state = torch.random.get_rng_state()
    loaded = load_generator(path)
    assert torch.equal(state, torch.random.get_rng_state())  # loading draws no random numbers
    assert loaded.config == generator.config
    assert same_image(generator, loaded)
    assert not loaded.training and not any(p.requires_grad for p in loaded.parameters())
    assert loaded.source_hash == file_hash(path) == hashlib.sha256(path.read_bytes()).hexdigest()
    metadata = formats.read_metadata(path)
    assert metadata["note"] == "made in a test"
    assert json.loads(metadata["config"])["resolution"] == 16
    assert [p.name for p in path.parent.iterdir()] == ["g.safetensors"]  # no temporary file stays
    save_generator(loaded, path)  # over the file it came from
    assert same_image(generator, load_generator(path))
    assert set(loaded.state_dict()) == set(generator.state_dict())


def test_the_config_stores_what_shapes_do_not_tell(tmp_path):
    generator = Generator(
        8, channels={4: 4, 8: 4}, conv_clamp=0.1, mapping_lr_multiplier=0.5, mapping_layers=1, z_dim=4
    )
    save_generator(generator, tmp_path / "g.safetensors")
    assert load_generator(tmp_path / "g.safetensors").config == generator.config


@pytest.mark.parametrize("layout", ["project", "nvidia", "rosinality"])
@pytest.mark.parametrize("container", ["bare", "training", "psp", "lightning", "safetensors", "legacy"])
def test_layouts_and_containers(generator, layout, container, tmp_path):
    sd = generator.state_dict()
    average = sd["mapping.w_avg"]
    sd = {"project": dict, "nvidia": to_nvidia, "rosinality": to_rosinality}[layout](sd)
    outside = {"latent_avg": average} if layout == "rosinality" else {}
    path = tmp_path / "weights.bin"  # the suffix does not matter
    if container == "bare":
        torch.save({**sd, **outside}, path)
    elif container == "training":
        args = argparse.Namespace(lr=0.002)
        other = {key: torch.zeros_like(value) for key, value in sd.items()}
        torch.save({"g": other, "g_ema": sd, "d": {}, "args": args, "ada_aug_p": 0.1, **outside}, path)
    elif container == "psp":
        inner = {f"decoder.{key}": value for key, value in sd.items()} | {
            "encoder.input_layer.0.weight": torch.zeros(3)
        }
        repeated = {"latent_avg": average.repeat(6, 1)} if outside else {}
        torch.save({"state_dict": inner, "opts": {"n": 1}, **repeated}, path)
    elif container == "lightning":
        inner = {f"generator_ema.{key}": value for key, value in sd.items()}
        inner |= {f"generator.{key}": torch.zeros_like(value) for key, value in sd.items()}
        torch.save({"state_dict": inner, "epoch": 3, "hyper_parameters": {"lr": 0.1}, **outside}, path)
    elif container == "safetensors":
        save_file({key: value.contiguous().clone() for key, value in {**sd, **outside}.items()}, str(path))
    else:
        torch.save({**sd, **outside}, path, _use_new_zipfile_serialization=False)
    loaded = load_generator(str(path))
    assert (loaded.resolution, loaded.z_dim, loaded.w_dim, loaded.img_channels) == (16, 5, 7, 2)
    assert loaded.channels == SMALL and loaded.mapping.num_layers == 3
    torch.testing.assert_close(loaded.w_avg, average)
    z = torch.randn(2, 5)
    torch.testing.assert_close(loaded(z, psi=0.6), generator(z, psi=0.6), rtol=1e-5, atol=1e-5)


def test_conditional_generator(tmp_path):
    generator = Generator(8, z_dim=5, w_dim=7, channels={4: 4, 8: 4}, c_dim=3, mapping_layers=2)
    torch.save(to_nvidia(generator.state_dict()), tmp_path / "g.pt")
    loaded = load_generator(tmp_path / "g.pt")
    assert (loaded.z_dim, loaded.c_dim) == (5, 3)
    z, c = torch.randn(2, 5), torch.randn(2, 3)
    torch.testing.assert_close(loaded(z, c=c), generator(z, c=c))
    with pytest.raises(UserError, match="cannot store .*mapping.embed"):
        to_rosinality(generator.state_dict())


def test_missing_latent_average_is_estimated(generator, tmp_path):
    torch.save(to_rosinality(generator.state_dict()), tmp_path / "g.pt")
    first, second = load_generator(tmp_path / "g.pt"), load_generator(tmp_path / "g.pt")
    assert torch.equal(first.w_avg, second.w_avg)
    w = generator.mapping.w(torch.randn(20_000, 5)).detach()
    assert ((first.w_avg - w.mean(dim=0)).abs() < 5 * w.std(dim=0) / 10_000**0.5).all()


def test_half_precision_weights_become_float32(generator, tmp_path):
    save_generator(generator.half(), tmp_path / "g.safetensors")
    assert {p.dtype for p in load_generator(tmp_path / "g.safetensors").parameters()} == {torch.float32}


@pytest.mark.parametrize("layout", ["project", "nvidia", "rosinality"])
def test_discriminator_layouts(layout, tmp_path):
    discriminator = Discriminator(16, channels=SMALL, img_channels=2, mbstd_features=2)
    sd = discriminator.state_dict()
    sd = {"project": dict, "nvidia": to_nvidia, "rosinality": to_rosinality}[layout](sd)
    torch.save({"g_ema": {}, "d": sd}, tmp_path / "d.pt")
    loaded = load_discriminator(tmp_path / "d.pt")
    image = torch.randn(4, 2, 16, 16)
    assert torch.equal(loaded(image), discriminator(image))
    assert all(p.requires_grad for p in loaded.parameters())


def test_discriminator_round_trip(tmp_path):
    discriminator = Discriminator(8, channels={4: 4, 8: 6}, mbstd_group_size=2, c_dim=3, mapping_layers=2)
    save_discriminator(discriminator, tmp_path / "d.safetensors")
    loaded = load_discriminator(tmp_path / "d.safetensors")
    assert loaded.config == discriminator.config
    with pytest.raises(UserError, match="contains a stylegan2-discriminator, expected a stylegan2-generator"):
        load_generator(tmp_path / "d.safetensors")


def test_embedded_names(generator, tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "ASSETS", tmp_path)
    save_generator(generator, tmp_path / "tiny.safetensors")
    save_file({"x": torch.zeros(1)}, str(tmp_path / "face.safetensors"), metadata={"kind": "face-network"})
    (tmp_path / "broken.safetensors").write_bytes(b"")
    assert embedded_generators() == ["tiny"]
    assert same_image(load_generator("tiny"), generator)
    with pytest.raises(UserError, match=r"no file nothing; .* an embedded generator \(there are: tiny\)"):
        load_generator("nothing")
    with pytest.raises(UserError, match="face-network"):
        load_generator("face")


class Evil:
    def __reduce__(self):
        return (print, ("executed",))


def safetensors_bytes(tensors, metadata=None):
    from safetensors.torch import save

    return save(tensors, metadata=metadata)


def torch_bytes(content, **kwargs):
    buffer = io.BytesIO()
    torch.save(content, buffer, **kwargs)
    return buffer.getvalue()


BAD_FILES = {
    "empty": (b"", r"is empty \(0 bytes\)"),
    "html": (
        b"\n<!DOCTYPE html><html><title>Google Drive - Quota exceeded</title></html>",
        "is a web page, not weights",
    ),
    "lfs": (b"version https://git-lfs.github.com/spec/v1\noid sha256:1234\nsize 1\n", "Git LFS pointer"),
    "text": (b"hello, these are not weights", "is not a weights file"),
    "short": (b"\x01", "is not a weights file"),
    "image": (b"\x89PNG\r\n\x1a\n" + bytes(100), "is not a weights file"),
    "truncated zip": (torch_bytes({"a": torch.zeros(1000)})[:-500], "damaged or incomplete"),
    "truncated legacy": (
        torch_bytes({"a": torch.zeros(1000)}, _use_new_zipfile_serialization=False)[:-500],
        "damaged or incomplete",
    ),
    "truncated safetensors": (safetensors_bytes({"a": torch.zeros(1000)})[:-500], "damaged or incomplete"),
    "safetensors with a wild header": (b"\xff\xff\x00\x00\x00\x00\x00\x00{" + bytes(100), "damaged or incomplete"),
    "a pickle of something else": (pickle.dumps({"G_ema": 1}, protocol=4), "expected a StyleGAN2 generator"),
    "code in a zip": (torch_bytes({"g_ema": Evil()}), "could execute: refused"),
    "code in the old format": (torch_bytes({"g_ema": Evil()}, _use_new_zipfile_serialization=False), "refused"),
    "a list": (torch_bytes([torch.zeros(1)]), "contains a list, expected a state dict"),
    "a tensor": (torch_bytes(torch.zeros(1)), "expected a state dict"),
    "another network": (torch_bytes({"layer1.0.conv1.weight": torch.zeros(1)}), "expected a StyleGAN2 generator"),
    "nothing in it": (torch_bytes({}), "expected a StyleGAN2 generator"),
    "config no json": (safetensors_bytes({"a": torch.zeros(1)}, {"config": "{"}), "not JSON"),
}


@pytest.mark.parametrize(("content", "message"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_bad_files(content, message, tmp_path, capsys):
    path = tmp_path / "g.pt"
    path.write_bytes(content)
    with pytest.raises(UserError, match=message) as info:
        load_generator(path)
    assert "\n" not in str(info.value) and str(path) in str(info.value)
    assert "executed" not in capsys.readouterr().out


def test_bad_sources(tmp_path):
    with pytest.raises(UserError, match="is a folder"):
        load_generator(tmp_path)
    with pytest.raises(UserError, match="got no generator"):
        load_generator("")


def without(key):
    return lambda sd: sd.pop(key)


def replace(key, value):
    return lambda sd: sd.update({key: value})


@pytest.mark.parametrize("layout", ["nvidia", "rosinality"])
@pytest.mark.parametrize("case", ["missing", "no-geometry", "surplus", "shape", "axes", "filter", "type"])
def test_wrong_keys_and_shapes(generator, layout, case, tmp_path):
    nvidia = layout == "nvidia"
    sd = to_nvidia(generator.state_dict()) if nvidia else to_rosinality(generator.state_dict())
    bias = "synthesis.b8.conv1.bias" if nvidia else "convs.1.activate.bias"
    weight = "synthesis.b8.conv1.weight" if nvidia else "convs.1.conv.weight"
    filt = "synthesis.b8.conv0.resample_filter" if nvidia else "convs.0.conv.blur.kernel"
    change, message = {
        "missing": (without(bias), r"16 px StyleGAN2 generator: 1 missing key \(synthesis.b8.conv1.bias\)"),
        "no-geometry": (without(weight), "missing key synthesis.b8.conv1.weight"),
        "surplus": (
            replace("synthesis.b8.skip.weight", torch.zeros(1)),
            "1 (unexpected )?key .*synthesis.b8.skip.weight",
        ),
        "shape": (replace(bias, torch.zeros(9)), r"synthesis.b8.conv1.bias is \(9,\), expected \(6,\)"),
        "axes": (replace(weight, torch.zeros(3)), r"weight has shape \(3,\)"),
        "filter": (lambda sd: sd[filt].mul_(2), "is not the .1, 3, 3, 1. filter"),
        "type": (replace(bias, torch.zeros(6, dtype=torch.int64)), "has type torch.int64"),
    }[case]
    change(sd)
    torch.save(sd, tmp_path / "g.pt")
    with pytest.raises(UserError, match=message) as info:
        load_generator(tmp_path / "g.pt")
    assert "\n" not in str(info.value) and "g.pt: " in str(info.value)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"resolution": 32}, "each of the resolutions"),
        ({"resolution": "16"}, "expected a power of two"),
        ({"novelty": 1}, "is not valid in this version"),
        ({"channels": [8, 6, 4]}, "expected a mapping of resolutions"),
        ({"w_dim": 8}, "wrong shapes"),
    ],
)
def test_config_that_does_not_fit(generator, config, message, tmp_path):
    sd = {key: value.contiguous().clone() for key, value in generator.state_dict().items()}
    text = json.dumps({**generator.config, **config})
    save_file(sd, str(tmp_path / "g.safetensors"), metadata={"config": text})
    with pytest.raises(UserError, match=message):
        load_generator(tmp_path / "g.safetensors")


def test_discriminator_given_as_generator(tmp_path):
    torch.save(to_rosinality(Discriminator(8, channels={4: 4, 8: 4}).state_dict()), tmp_path / "d.pt")
    with pytest.raises(UserError, match="a discriminator in rosinality's layout, expected a StyleGAN2 generator"):
        load_generator(tmp_path / "d.pt")


def test_metadata_must_be_text(generator, tmp_path):
    with pytest.raises(UserError, match="must be text, got int for 'steps'"):
        save_generator(generator, tmp_path / "g.safetensors", {"steps": 5})
    with pytest.raises(UserError, match="choose others"):
        save_generator(generator, tmp_path / "g.safetensors", {"config": "{}"})
    assert not list(tmp_path.iterdir())


def test_conversion_errors_name_the_layout(generator):
    with pytest.raises(UserError, match="expected a rosinality state dict, got a generator in NVIDIA's layout"):
        from_rosinality(generator.state_dict())
    with pytest.raises(UserError, match="expected a state dict in NVIDIA's layout"):
        to_rosinality(to_rosinality(generator.state_dict()))
