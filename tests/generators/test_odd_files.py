"""Weights as people have them: wrapped, in other precisions, without buffers; and numbers that are no weights."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stylegan_inv.encoders.official.official_checkpoint import build_encoder, recognise
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator, to_nvidia, to_rosinality
from stylegan_inv.generators.io.weight_files import plain_names, read_weights, unusable_values, with_counters
from stylegan_inv.loading import load_official
from stylegan_inv.losses.network_files import load_exactly, read_state
from tests.encoders.official import psp_file, small_encoder, small_generator

LAYOUTS: dict[str, Callable[[dict[str, Tensor]], dict[str, Tensor]]] = {
    "project": dict,
    "nvidia": to_nvidia,
    "rosinality": to_rosinality,
}
WRAPPED: dict[str, Callable[[str], str]] = {
    "DataParallel": lambda key: f"module.{key}",
    "torch.compile": lambda key: f"_orig_mod.{key}",
    "both": lambda key: f"module._orig_mod.{key}",
    "a part": lambda key: key.replace(".", "._orig_mod.", 1),
    "deep inside": lambda key: key.replace(".0.", ".0._checkpoint_wrapped_module."),
    "FSDP": lambda key: f"_fsdp_wrapped_module.{key}",
    "Lightning": lambda key: f"model.net.{key}",
}


def refused(read: Callable[[Path], Any], path: Path) -> str:
    with pytest.raises(UserError) as info:
        read(path)
    message = str(info.value)
    assert "\n" not in message and str(path) in message and len(message) < 600
    return message


def same(generator: Generator, other: Generator) -> bool:
    return all(torch.equal(value, other.state_dict()[key]) for key, value in generator.state_dict().items())


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_generators(name: str, layout: str, tmp_path: Path) -> None:
    generator = small_generator()
    state = {WRAPPED[name](key): value for key, value in LAYOUTS[layout](generator.state_dict()).items()}
    for content in (state, {"g_ema": state, "iteration": 7}, {"state_dict": state}):
        torch.save({**content, "latent_avg": generator.w_avg}, tmp_path / "x.pt")
        assert same(load_generator(tmp_path / "x.pt"), generator)


@pytest.mark.parametrize("name", WRAPPED)
def test_wrapped_checkpoints(name: str, tmp_path: Path) -> None:
    content = psp_file("Encoder4Editing")
    content["state_dict"] = {WRAPPED[name](key): value for key, value in content["state_dict"].items()}
    torch.save(content, tmp_path / "x.pt")
    method = load_official(tmp_path / "x.pt")
    assert same(method.generator, small_generator())
    original = small_encoder("Encoder4Editing").state_dict()
    loaded = method.get_submodule("encoder").state_dict()
    assert loaded.keys() == original.keys() and all(torch.equal(loaded[key], original[key]) for key in loaded)


def test_latent_average_among_the_weights() -> None:
    content = psp_file("Encoder4Editing")
    content["state_dict"]["latent_avg"] = content.pop("latent_avg")
    found = recognise(content)
    assert found.latent_avg is not None and not found.others


def test_plain_names() -> None:
    value = torch.zeros(1)
    averaged = {"n_averaged": value, "module.a.weight": value, "module.module.b": value}
    assert set(plain_names(averaged)) == {"a.weight", "b"}
    with pytest.raises(UserError, match="contains a.weight twice, once as module.a.weight"):
        plain_names({"a.weight": value, "module.a.weight": value})


@pytest.mark.parametrize("wrap", [*WRAPPED][:3])
def test_wrapped_networks_of_losses(wrap: str, tmp_path: Path) -> None:
    network = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    state = {WRAPPED[wrap](key): value for key, value in network.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "x.pt")
    other = nn.Sequential(nn.Conv2d(1, 2, 1), nn.BatchNorm2d(2))
    load_exactly(other, read_state(tmp_path / "x.pt", "a network"), tmp_path / "x.pt", "a network")
    assert torch.equal(other[0].weight, network[0].weight)
    state["module.0.weight"] = state.pop(WRAPPED[wrap]("0.weight")).int()
    with pytest.raises(UserError, match="0.weight has type torch.int32, expected floating point numbers"):
        load_exactly(other, plain_names(state), "x.pt", "a network")
    torch.save({"state_dict": "text", "module.encoder_q.conv1.weight": torch.ones(1)}, tmp_path / "x.pt")
    assert list(read_state(tmp_path / "x.pt", "a network")) == ["encoder_q.conv1.weight"]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_noise_maps_may_be_absent(layout: str, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    generator = small_generator()
    state = LAYOUTS[layout](generator.state_dict())
    noise = [key for key in state if key.startswith("noises.") or key.endswith("noise_const")]
    content = {**{key: value for key, value in state.items() if key not in noise}, "latent_avg": generator.w_avg}
    torch.save(content, tmp_path / "x.pt")
    random = torch.get_rng_state()
    with caplog.at_level(logging.WARNING):
        first, second = load_generator(tmp_path / "x.pt"), load_generator(tmp_path / "x.pt")
    assert torch.equal(random, torch.get_rng_state()) and "has no noise maps" in caplog.text
    assert same(first, second) and first.synthesis.layers()[1].noise_const.std() > 0.3
    z = torch.randn(2, generator.z_dim)
    torch.testing.assert_close(first(z, noise="none"), generator(z, noise="none"), rtol=1e-4, atol=1e-4)
    # One that is missing is damage.
    torch.save({**content, noise[0]: state[noise[0]]}, tmp_path / "x.pt")
    assert "missing key" in refused(load_generator, tmp_path / "x.pt")


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_precisions(dtype: torch.dtype, tmp_path: Path) -> None:
    state = {key: value.to(dtype) for key, value in small_generator().state_dict().items()}
    save_file(state, tmp_path / "x.safetensors")
    loaded = load_generator(tmp_path / "x.safetensors").state_dict()
    assert all(torch.equal(loaded[key], value.float()) for key, value in state.items())
    content = psp_file("BackboneEncoder")
    content["state_dict"] = {k: v.to(dtype) if v.is_floating_point() else v for k, v in content["state_dict"].items()}
    torch.save(content, tmp_path / "x.pt")
    if dtype == torch.float8_e4m3fn:
        assert "save the tensors as float32" in refused(read_weights, tmp_path / "x.pt")
        return
    encoder = load_official(tmp_path / "x.pt").get_submodule("encoder")
    assert {value.dtype for value in encoder.parameters()} == {torch.float32}
    weight = content["state_dict"]["encoder.body.0.res_layer.1.weight"]
    assert torch.equal(encoder.get_parameter("body.0.res_layer.1.weight"), weight.float())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda value: value * float("nan"), "holds NaN or infinite numbers"),
        (lambda value: value.double() * 1e300, "holds NaN or infinite numbers"),
        (lambda value: value.to(torch.int8), "has type torch.int8, expected floating point numbers"),
        (lambda value: value > 0, "has type torch.bool, expected floating point numbers"),
        (lambda value: value[:0], "expected"),
        (lambda value: value.to("meta"), "on the meta device, which have no values"),
        (lambda value: value.to(torch.complex64), "save the tensors as float32"),
    ],
)
def test_numbers_that_are_no_weights(change: Callable[[Tensor], Tensor], message: str, tmp_path: Path) -> None:
    path = tmp_path / "x.pt"
    for key in ("encoder.body.1.res_layer.1.weight", "decoder.convs.0.conv.weight", "latent_avg"):
        content = psp_file("Encoder4Editing")
        if key == "latent_avg":
            content[key] = change(content[key])
        else:
            content["state_dict"][key] = change(content["state_dict"][key])
        torch.save(content, path)
        assert message in refused(load_official, path)
        if not key.startswith("encoder"):
            assert message in refused(load_generator, path)


def test_memory_layouts(tmp_path: Path) -> None:
    generator, path = small_generator(), tmp_path / "x.pt"
    state = to_rosinality(generator.state_dict())
    storage = torch.randn(10)
    odd = {key: value.clone() for key, value in state.items()}
    odd["convs.0.conv.weight"] = odd["convs.0.conv.weight"].transpose(3, 4).contiguous().transpose(3, 4)
    odd["convs.0.activate.bias"] = torch.stack([odd["convs.0.activate.bias"]] * 3, 1)[:, 1].requires_grad_()
    odd["style.1.weight"] = nn.Parameter(odd["style.1.weight"])
    odd["style.1.weight"].learning_rate = 0.1  # type: ignore[attr-defined]
    odd["convs.1.activate.bias"], odd["conv1.activate.bias"] = storage[:6], storage[1:9]  # shared
    for legacy in (True, False):
        torch.save({**odd, "latent_avg": generator.w_avg}, path, _use_new_zipfile_serialization=not legacy)
        loaded = load_generator(path).synthesis
        assert torch.equal(loaded.get_parameter("b8.conv1.bias"), storage[:6])
        assert torch.equal(loaded.get_parameter("b4.conv1.bias"), storage[1:9])
        assert torch.equal(
            loaded.get_parameter("b8.conv0.weight"), generator.synthesis.get_parameter("b8.conv0.weight")
        )
        assert all(value.is_contiguous() for value in loaded.parameters())


def test_counters_of_batch_norm() -> None:
    norm = nn.BatchNorm2d(2)
    state = {key: value for key, value in norm.state_dict().items() if key != "num_batches_tracked"}
    complete = with_counters(norm.state_dict(), {key: value.half() for key, value in state.items()})
    norm.load_state_dict(complete)
    assert complete["num_batches_tracked"].dtype == torch.int64 and complete["weight"].dtype == torch.float32
    own, counter = norm.state_dict(), "num_batches_tracked"
    for changed in ({counter: torch.tensor(7.0)}, {counter: torch.tensor(True)}, {"running_mean": -torch.ones(2)}):
        assert unusable_values(own, {**own, **changed}) == []
    for changed in (
        {"weight": torch.full((2,), torch.inf)},
        {"running_var": torch.tensor([1.0, -1e-3])},
        *({counter: torch.tensor(count)} for count in (-1, 1 << 60, 0.5, torch.nan, torch.inf)),
    ):
        assert [text.split()[0] for text in unusable_values(own, {**own, **changed})] == [*changed]


def test_an_encoder_that_claims_more_than_it_holds() -> None:
    """One matrix of a few kilobytes would build networks of many gigabytes."""
    content = psp_file("GradualStyleEncoder")
    content["state_dict"]["encoder.styles.63.linear.bias"] = torch.zeros(7)
    content["state_dict"]["encoder.styles.0.linear.weight"] = torch.zeros(1).expand(1 << 14, 1 << 14)
    with pytest.raises(UserError, match="does not fit FPNEncoder"):
        build_encoder(recognise(content))
    content = psp_file("GradualStyleEncoder")
    content["state_dict"] |= {f"encoder.styles.0.convs.{i}.weight": torch.zeros(1) for i in range(2000)}
    with pytest.raises(UserError, match="convolutions for a style, expected at most 12"):
        build_encoder(recognise(content))


ODD_OPTIONS: list[Any] = [5, "x", [1], torch.zeros(2), torch.zeros(0), {"encoder_type": ["Encoder4Editing"]}, {1: 2}]


@pytest.mark.parametrize("options", ODD_OPTIONS, ids=[f"{type(one).__name__}-{n}" for n, one in enumerate(ODD_OPTIONS)])
def test_options_of_any_kind(options: Any, tmp_path: Path) -> None:
    torch.save({**psp_file("Encoder4Editing"), "opts": options}, tmp_path / "x.pt")
    assert "--encoder-type e4e" in refused(load_official, tmp_path / "x.pt")


@pytest.mark.parametrize("name", ["encoder.a\nb", "encoder." + "x" * 5000, "encoder.\x1b[31m", "decoder.a\rb"])
def test_names_are_shown_in_one_short_line(name: str, tmp_path: Path) -> None:
    content = psp_file("Encoder4Editing")
    content["state_dict"][name] = torch.zeros(1)
    torch.save(content, tmp_path / "x.pt")
    message = refused(load_official, tmp_path / "x.pt")
    assert message.isprintable()


def test_empty_matrices(tmp_path: Path) -> None:
    for key in ("encoder.styles.0.linear.weight", "decoder.style.1.weight", "decoder.conv1.conv.modulation.weight"):
        content = psp_file("Encoder4Editing")
        content["state_dict"][key] = torch.zeros(0, 7)
        torch.save(content, tmp_path / "x.pt")
        refused(load_official, tmp_path / "x.pt")
