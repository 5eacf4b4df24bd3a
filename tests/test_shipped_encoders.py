"""The encoders that are part of the package: their files, their use in the commands, and files that are refused."""

from __future__ import annotations

import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from stylegan_inv.config import instantiate_method
from stylegan_inv.data.synthfaces.dataset import SynthFaces
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.encoders.shipped_files import (
    ASSETS,
    FORMAT,
    ShippedEncoder,
    read_shipped,
    save_shipped,
    shipped_encoders,
)
from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.evaluate import __main__ as evaluate
from stylegan_inv.generators import load_generator
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.saved_codes import read_latents
from stylegan_inv.loading import dataset_of, load_inverter, load_shipped
from stylegan_inv.methods.psp import PSP
from tests.cli import call, error_of
from tests.fake_run import make_run

NAMES = ["e4e_synthfaces", "psp_synthfaces", "restyle_synthfaces"]
MEGABYTES = 3_000_000


@pytest.fixture(autouse=True)
def somewhere(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def about(generator_hash: str) -> ShippedEncoder:
    arguments = {"width": 8, "rank": 2}
    reached = {"quantiles": [0.1] * 9, "images": 4, "size": 64}
    return ShippedEncoder(
        "PSP", {"in_channels": 3}, "SmallEncoder", arguments, "synthfaces64", generator_hash, "synthfaces", 64,
        "python -m stylegan_inv.train", {"mse": 0.1}, reached,
    )  # fmt: skip


# -- the files ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", NAMES)
@torch.no_grad()
def test_they_reach_what_their_card_says(name: str) -> None:
    file = ASSETS / f"{name}.safetensors"
    assert file.stat().st_size <= MEGABYTES
    said, state = read_shipped(file)
    assert all(value.dtype == torch.float16 for value in state.values()), "the generator is not stored again"
    method = load_inverter(name)
    assert not method.training and not any(parameter.requires_grad for parameter in method.parameters())
    assert type(method).__name__.lower() == name.partition("_")[0] and method.input_size == 64
    validation = SynthFaces(64, seed=1, size=8)
    images = torch.stack([validation[index]["image"] for index in range(8)])
    errors = (method.invert(images).image - images).square().flatten(1).mean(1)
    assert method.reached is not None and method.reached.images == 1000
    assert errors.min() >= method.reached.quantile(0.0) - 1e-6 and errors.max() <= method.reached.quantile(1.0) + 1e-6
    assert 0.7 < float(errors.mean()) / said.metrics["mse"] < 1.4
    card = (ASSETS.parent / "encoders.md").read_text()
    assert f"`{said.command}`" in card and f"{said.metrics['mse']:.5f}" in card


def test_names() -> None:
    assert shipped_encoders() == NAMES


def test_a_file_computes_what_the_rounded_encoder_computes(tmp_path: Path) -> None:
    generator = load_generator("synthfaces64")
    encoder = SmallEncoder(10, 192, 3, width=8, rank=2)
    for parameter in encoder.parameters():
        torch.nn.init.normal_(parameter, 0, 0.02)
    save_shipped(encoder, about(str(generator.source_hash)), tmp_path / "mine.safetensors")
    images = torch.rand(2, 3, 64, 64) * 2 - 1
    loaded = load_inverter(tmp_path / "mine.safetensors")
    with torch.no_grad():
        got = loaded.invert(images)
        for parameter in encoder.parameters():
            parameter.copy_(parameter.half().float())
        want = PSP(generator=generator, encoder=lambda **shape: encoder).eval().invert(images)
    assert torch.equal(got.w, want.w) and torch.equal(got.image, want.image)
    assert dataset_of(tmp_path / "mine.safetensors")["_target_"] == "stylegan_inv.data.SynthFacesDataModule"


def test_nothing_in_a_file_is_executed_and_what_does_not_fit_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    encoder, right = SmallEncoder(10, 192, 3, width=8, rank=2), about(str(load_generator("synthfaces64").source_hash))

    def refused(message: str, **change: object) -> None:
        save_shipped(encoder, replace(right, **change), path)
        with pytest.raises(UserError, match=message) as info:
            load_shipped(path)
        assert str(path) in str(info.value) and "\n" not in str(info.value)

    refused("method=os.system: expected one of PSP, E4E, ReStyle", method="os.system")
    refused("generator=other.pkl: expected one of synthfaces64", generator="other.pkl")
    refused("domain=faces: expected one of synthfaces", domain="faces")
    refused("names the encoder builtins.exec, expected one of SmallEncoder", encoder="builtins.exec")
    refused("was trained for the generator synthfaces64 000000000000", generator_hash="0" * 64)
    refused("does not fit SmallEncoder", encoder_arguments={"width": 8, "rank": 3})
    refused("does not fit SmallEncoder", encoder_arguments={"width": 1_000_000_000, "rank": 2})
    refused("does not fit SmallEncoder", encoder_arguments={"width": "wide"})
    refused("encoder_arguments=pretrained: expected one of width", encoder_arguments={"pretrained": "x"})
    refused("encoder_arguments.gain=x", encoder_arguments={"width": 8, "rank": 2, "gain": "x"})
    refused("gain=nan: expected a finite number", encoder_arguments={"width": 8, "rank": 2, "gain": float("nan")})
    refused("progressive=1: expected true or false", encoder_arguments={"width": 8, "rank": 2, "progressive": 1})
    for name in ("generator_file", "start", "metrics", "loss", "encoder"):
        refused(f"method_arguments={name}: expected one of iterations", method_arguments={name: "x"})
    for iterations in (10**9, 0, -1, 2.5, "x", None, [5], True):
        refused("method_arguments.iterations=", method="ReStyle", method_arguments={"iterations": iterations})
    refused("method_arguments.in_channels=1000000", method_arguments={"in_channels": 1_000_000})
    refused("no valid method_arguments", method_arguments=[1])
    refused("resolution=1000000000: expected a whole number from 4 to 4096", resolution=10**9)
    refused("resolution=0: expected", resolution=0)
    refused("expected quantiles, images, size", distances={"quantiles": []})
    save_file(load_file(path), path, {"format": FORMAT, "method": "PSP"})
    with pytest.raises(UserError, match="no valid method_arguments"):
        load_shipped(path)
    path.write_bytes(b"<html>")
    with pytest.raises(UserError, match="not a readable safetensors file"):
        load_shipped(path)


# -- the commands ------------------------------------------------------------------------------------------------------


def test_invert_needs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    make_run(tmp_path / "restyle_synthfaces")  # a folder of this name does not replace it
    call(monkeypatch, invert, "input=synthfaces:0-1")
    folder = Path("outputs/restyle_synthfaces/inversions/synthfaces_0-1")
    latents = read_latents(folder)
    assert latents.metadata["run"] == "restyle_synthfaces" and latents.metadata["method"] == "ReStyle"
    images = torch.stack([item["image"] for item in SynthFaces(64, seed=2, size=2)])
    torch.testing.assert_close(latents.w, load_inverter("restyle_synthfaces").invert(images).w, rtol=1e-4, atol=1e-4)
    capsys.readouterr()
    call(monkeypatch, invert, "input=synthfaces:0-1", "run=restyle_synthfaces")
    assert "finished before" in capsys.readouterr().out, "it is the same command"


def test_edit_needs_no_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    call(monkeypatch, edit, "input=synthfaces:3", "edit=smile", "edit.strength=[-3,3]")
    folder = tmp_path / "outputs" / "restyle_synthfaces" / "edits" / "smile_synthfaces_3"
    assert (folder / "strip.png").is_file() and (folder / "images" / "synthfaces_3_smile_+3.png").is_file()


def test_evaluate_knows_the_data_set(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("max_images=2", "metrics=image", "speed.seconds=0", "+dataset.obstacles=1.0")
    call(monkeypatch, evaluate, "run=psp_synthfaces", *options)
    report = json.loads((tmp_path / "outputs/psp_synthfaces/evaluation/synthfaces/metrics.json").read_text())
    assert report["protocol"]["method"].startswith("PSP of psp_synthfaces, checkpoint sha256")
    assert "obstacles=1.0" in report["protocol"]["data"]


@torch.no_grad()
def test_they_are_starting_points(monkeypatch: pytest.MonkeyPatch) -> None:
    options = ("input=synthfaces:0", "start=e4e_synthfaces")
    call(monkeypatch, invert, "run=restyle_synthfaces", *options, "output=restyle")
    call(monkeypatch, invert, "method=image2stylegan", "method.steps=1", "method.lr=1e-9", *options, "output=optimised")
    images = SynthFaces(64, seed=2, size=1)[0]["image"][None]
    start, refining = load_inverter("e4e_synthfaces").invert(images), load_inverter("restyle_synthfaces")
    torch.testing.assert_close(read_latents("optimised").w, start.w, rtol=1e-4, atol=1e-4)
    w, image = start.w, start.image
    for _ in range(5):
        w = w + refining.get_submodule("encoder")(torch.cat([images, image], dim=1))
        image = refining.generator.synthesis(w, noise="const")
    torch.testing.assert_close(read_latents("restyle").w, w, rtol=1e-3, atol=1e-3)


def test_a_training_starts_from_one() -> None:
    node = {"_target_": "stylegan_inv.methods.ReStyle", "start": "psp_synthfaces"}
    encoder = partial(SmallEncoder, width=8)
    method = instantiate_method(node, generator=load_generator("synthfaces64"), encoder=encoder)
    assert isinstance(method.start.network, PSP)


def test_wrong_names_are_one_line_with_the_nearest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    shipped = "(shipped: e4e_synthfaces, psp_synthfaces, restyle_synthfaces; the nearest name is "
    for module, arguments, nearest in (
        (invert, ("run=restyle_synthface", "input=synthfaces:0"), "restyle_synthfaces"),
        (invert, ("run=psp", "input=synthfaces:0"), "psp_synthfaces"),
        (invert, ("default_run=e4e", "input=synthfaces:0"), "e4e_synthfaces"),
        (invert, ("start=e4e_faces", "input=synthfaces:0"), "e4e_synthfaces"),
        (invert, ("method=projector", "start=e4e_faces", "input=synthfaces:0"), "e4e_synthfaces"),
        (edit, ("run=pspsynthfaces", "input=synthfaces:0"), "psp_synthfaces"),
        (evaluate, ("run=restyle-synthfaces",), "restyle_synthfaces"),
    ):
        line = error_of(monkeypatch, capsys, module, *arguments)
        assert "no such run folder" in line and f"{shipped}{nearest})" in line
    with pytest.raises(UserError, match="the nearest name is restyle_synthfaces"):
        load_inverter("restyle_synthface")
    with pytest.raises(UserError, match="method.start=psp_synth: .*psp_synthfaces.*, or one of average, random"):
        instantiate_method({"_target_": "stylegan_inv.methods.ReStyle", "start": "psp_synth"})
    assert not list(tmp_path.iterdir())


def test_another_generator_is_not_ignored(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys) -> None:
    make_run(tmp_path / "run")
    other = ("input=synthfaces:0", "generator=file", f"generator.source={tmp_path}/run/generator.safetensors")
    for module in (invert, edit):
        line = error_of(monkeypatch, capsys, module, *other)
        assert "default_run=restyle_synthfaces inverts into the generator synthfaces64; give run=" in line
