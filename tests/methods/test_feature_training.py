"""The two phases of StyleFeatureEditor in one run, and official files of both feature-space methods."""

from __future__ import annotations

import sys
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file

from stylegan_inv import loading
from stylegan_inv.data.images.image_files import save_image
from stylegan_inv.edit import __main__ as edit
from stylegan_inv.encoders.feature_space.feature_fusion import FeatureFusion
from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.encoders.official import feature_checkpoints
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, to_rosinality
from stylegan_inv.invert import __main__ as invert
from stylegan_inv.latents.directions import Direction, save_direction
from stylegan_inv.loading import load_inverter
from stylegan_inv.methods.feature_space.fse import FSE
from stylegan_inv.methods.feature_space.sfe import SFE
from tests.faults.small import assert_same_training, run, state, stop_after, warm_up

SIZES: dict[str, Any] = {"channels": (4, 8, 12, 16), "units": (2, 1, 2, 1)}


def test_stopped_between_and_in_the_phases(tmp_path: Path) -> None:
    warm_up()
    file = tmp_path / "direction.safetensors"
    save_direction(Direction(torch.randn(8, generator=torch.Generator().manual_seed(0)), "mine"), file)
    phases = ("method.editor_first_step=3", f"method.directions=['{file}']", "method.strength=2.0")
    whole = tmp_path / "whole"
    run("sfe", whole, *phases)
    editor = {name: value for name, value in state(whole)["state_dict"].items() if name.startswith("editor")}
    for stop in (2, 3, 4):
        parts = tmp_path / str(stop)
        with pytest.raises(SystemExit):
            run("sfe", parts, *phases, stop_after(stop))
        torch.manual_seed(99)
        halfway = state(parts)["state_dict"]
        moved = any(not halfway[name].equal(value) for name, value in editor.items())
        assert moved, "the editor learns in the second phase"
        run("sfe", parts, *phases)
        assert_same_training(whole, parts)
    first = state(tmp_path / "2")["state_dict"]
    assert first.keys() == state(whole)["state_dict"].keys()
    method = load_inverter(whole)
    assert isinstance(method, SFE) and method.edits_with_networks and method.directions == []


# -- official files ----------------------------------------------------------------------------------------------------


def small_generator(resolution: int) -> Generator:
    torch.manual_seed(0)
    generator = Generator(resolution, z_dim=7, w_dim=7, mapping_layers=2, channel_base=256, channel_max=8)
    generator.w_avg.normal_()
    return generator


def prefixed(name: str, module: torch.nn.Module | dict[str, Any]) -> dict[str, Any]:
    tensors = module if isinstance(module, dict) else module.state_dict()
    return {f"{name}.{key}": value for key, value in tensors.items()}


@pytest.fixture
def small_files(monkeypatch: pytest.MonkeyPatch) -> None:
    """Maps of 8 and 16 px at the places of the official 16 and 64 px."""
    monkeypatch.setattr(feature_checkpoints, "_INPUT_SIZE", 64)
    monkeypatch.setattr(feature_checkpoints, "_SIZES", {"fse": 16, "sfe": 16})


def write_fse(path: Path, generator: Generator | None) -> FeatureStyleEncoder:
    torch.manual_seed(1)
    encoder = FeatureStyleEncoder(8, 7, feature_channels=8, feature_size=16, input_size=64, **SIZES).eval()
    state = encoder.state_dict()
    if generator is not None:
        decoder = prefixed("decoder", to_rosinality(generator.state_dict()))
        state = {"state_dict": {**prefixed("encoder", state), **decoder}, "latent_avg": generator.w_avg.clone()}
    torch.save(state, path)
    return encoder


@torch.no_grad()
def test_file_of_the_feature_style_encoder(small_files: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """143_enc.pth holds the encoder alone; its generator is pSp's, which is downloaded once."""
    generator, x = small_generator(32), torch.rand(2, 3, 64, 64) * 2 - 1
    torch.save({"g_ema": to_rosinality(generator.state_dict()), "latent_avg": generator.w_avg}, tmp_path / "g.pt")
    encoder = write_fse(tmp_path / "143_enc.pth", None)
    monkeypatch.setattr(loading, "fetch", lambda name, offline=None: tmp_path / "g.pt")
    alone = load_inverter(tmp_path / "143_enc.pth")
    write_fse(tmp_path / "both.pt", generator)
    both = load_inverter(tmp_path / "both.pt")
    for method in (alone, both):
        assert isinstance(method, FSE) and method.layer.index == 5
        codes, features = encoder(x)
        result = method.invert(x)
        torch.testing.assert_close(result.w, codes + generator.w_avg)
        image = generator.freeze().synthesis(result.w, features={"b16": features})
        torch.testing.assert_close(result.image, image, rtol=1e-4, atol=1e-4)
    torch.save({"n_epoch": 3, "enc_state_dict": encoder.state_dict()}, tmp_path / "training.pth")
    assert isinstance(load_inverter(tmp_path / "training.pth"), FSE)


def write_sfe(path: Path, phase: int) -> dict[str, Any]:
    torch.manual_seed(2)
    generator = small_generator(32)
    made = {
        "encoder": FeatureStyleEncoder(8, 7, feature_channels=8, feature_size=16, input_size=64, **SIZES),
        "fuser": FeatureFusion(8, 2),
        "editor": FeatureFusion(8, 1),
        "e4e": FPNEncoder(8, 7, backbone=partial(ir_se, **SIZES), resolution=64, progressive=True),
    }
    made = {name: network.eval() for name, network in made.items()}
    inverter = {**prefixed("fs_backbone", made["encoder"]), **prefixed("fuser", made["fuser"])}
    state = {**prefixed("decoder", to_rosinality(generator.state_dict())), **prefixed("e4e_encoder", made["e4e"])}
    state |= prefixed("encoder", inverter) if phase == 1 else prefixed("encoder", made["editor"])
    state |= {} if phase == 1 else prefixed("inverter", inverter)
    torch.save({"state_dict": state, "latent_avg": generator.w_avg.clone()}, path)
    return {**made, "generator": generator}


@torch.no_grad()
def test_files_of_both_phases_of_style_feature_editor(small_files: None, tmp_path: Path) -> None:
    x = torch.rand(2, 3, 64, 64) * 2 - 1
    for phase in (1, 2):
        file = tmp_path / f"phase{phase}.pt"
        made = write_sfe(file, phase)
        method = load_inverter(file)
        assert isinstance(method, SFE) and method.edits_with_networks is (phase == 2)
        synthesis, w_avg = made["generator"].freeze().synthesis, made["generator"].w_avg
        codes, predicted = made["encoder"](x)
        w = codes + w_avg
        fused = made["fuser"](predicted, synthesis(w, upto="b16"))
        shown = fused if phase == 1 else made["editor"](fused, torch.zeros_like(fused))
        result = method.invert(x)
        torch.testing.assert_close(result.w, w)
        torch.testing.assert_close(result.image, synthesis(w, features={"b16": shown}), rtol=1e-4, atol=1e-4)
        if phase == 2:
            assert result.kept is not None
            torch.testing.assert_close(result.kept["start_codes"], made["e4e"](x) + w_avg)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda s: s.pop("content_layer.5.weight"), "missing key"),
        (lambda s: s.update({"styles.0.weight": torch.zeros(7, 5)}), "wrong shape"),
        (lambda s: s.pop("block_3.1.bn1.weight"), "missing key"),
        (lambda s: s.update({"styles.70.weight": torch.zeros(7, 5)}), "more than 64"),
    ],
)
def test_a_file_of_another_network_is_one_line(small_files: None, tmp_path: Path, change: Any, message: str) -> None:
    write_fse(tmp_path / "x.pth", None)
    state = torch.load(tmp_path / "x.pth")
    change(state)
    torch.save(state, tmp_path / "x.pth")
    with pytest.raises(UserError, match=message) as error:
        load_inverter(tmp_path / "x.pth")
    assert "\n" not in str(error.value)


def test_saved_inversions_of_an_official_file_are_edited_by_its_rule(
    small_files: None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The commands `invert` and `edit`: codes, features and the networks of the file."""
    file, photos = tmp_path / "sfe.pt", tmp_path / "photos"
    write_sfe(file, 2)
    for number in range(2):
        save_image(torch.rand(3, 64, 64) * 2 - 1, photos / f"{number}.png")
    direction = tmp_path / "d.safetensors"
    save_direction(Direction(torch.randn(7, generator=torch.Generator().manual_seed(0)), "d"), direction)
    command(monkeypatch, invert.main, f"run={file}", f"input={photos}", f"output={tmp_path / 'out'}", "any_domain=true")
    kept = load_file(tmp_path / "out" / "kept" / "0.safetensors")
    assert kept["fused"].shape == (1, 8, 16, 16) and kept["start_codes"].shape == (1, 8, 7)
    arguments = ("edit=direction", f"edit.direction={direction}", "edit.strength=[0,2]", "any_domain=true")
    command(monkeypatch, edit.main, f"input={tmp_path / 'out'}", *arguments, f"output={tmp_path / 'saved'}")
    command(monkeypatch, edit.main, f"run={file}", f"input={photos}", *arguments, f"output={tmp_path / 'direct'}")
    for name in ("0", "1"):
        both = [next((tmp_path / kind / "images").glob(f"{name}_*2.png")) for kind in ("saved", "direct")]
        assert both[0].read_bytes() == both[1].read_bytes()


def command(monkeypatch: pytest.MonkeyPatch, main: Any, *arguments: str) -> None:
    monkeypatch.setattr(sys, "argv", ["command", *arguments])
    main()
