"""Files of strangers that claim too much: shared lists, endless nesting, sizes; each ends in one line, at once."""

from __future__ import annotations

import io
import json
import pickle
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

from stylegan_inv.encoders import load_face_network
from stylegan_inv.encoders.official.official_checkpoint import read_checkpoint
from stylegan_inv.generators import Generator, load_generator, save_generator
from stylegan_inv.generators.io.building import GENERATOR_KIND
from stylegan_inv.generators.io.config_schema import check_config
from stylegan_inv.generators.io.pickle_machine import RefusedPickle, check_key
from stylegan_inv.generators.io.pickle_objects import plain
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.latents.discovery.ganspace import load_components
from stylegan_inv.runtime import checkpoint_io
from tests.generators.refusals import refused

pytestmark = pytest.mark.usefixtures("at_once")


def doubled(levels: int, kind: Callable[[list[Any]], Any] = list) -> Any:
    """A few hundred bytes that describe ``2 ** levels`` values."""
    value: Any = "x"
    for _ in range(levels):
        value = kind([value, value])
    return value


def endless() -> list[Any]:
    value: list[Any] = []
    value.append([value, value])
    return value


def deep_tuple(levels: int) -> bytes:
    return b"\x80\x02N" + b"\x85" * levels + b"."


OPTIONS: dict[str, Any] = {
    "shared lists": doubled(14),
    "more shared lists": {"a": [doubled(13), doubled(13), doubled(13)] * 100},
    "shared tuples": doubled(14, tuple),
    "contains itself": endless(),
}


@pytest.mark.parametrize("name", OPTIONS)
def test_options_that_expand(name: str, tmp_path: Path) -> None:
    value = OPTIONS[name]
    if name.startswith("shared"):
        value = [[value] * 20]
    torch.save({"state_dict": {}, "opts": value}, tmp_path / "x.pt")
    assert "options" in refused(read_checkpoint, tmp_path / "x.pt")
    torch.save({"state_dict": {"x": torch.zeros(1)}, "hyper_parameters": doubled(40)}, tmp_path / "x.ckpt")
    assert "values" in refused(checkpoint_io.read_checkpoint, tmp_path / "x.ckpt")
    torch.save({"state_dict": {"x": torch.zeros(1)}, "hyper_parameters": endless()}, tmp_path / "x.ckpt")
    refused(checkpoint_io.read_checkpoint, tmp_path / "x.ckpt")


def archive(path: Path, data: bytes, compression: int = zipfile.ZIP_STORED, **more: bytes) -> Path:
    with zipfile.ZipFile(path, "w", compression) as file:
        file.writestr("x/data.pkl", data)
        for name, content in {"version": b"3\n", **more}.items():
            file.writestr(f"x/{name}", content)
    return path


def test_numbers_and_nesting(tmp_path: Path) -> None:
    long_number = 10**5000
    collisions = {k * ((1 << 61) - 1): k for k in range(1, 300)}
    pairs = {(1, 2.0): 3}
    for content in ({"opts": {"a": long_number}}, {"opts": {long_number: 1}}, collisions, pairs, {(1 << 40, 1): 0}):
        (tmp_path / "x.pkl").write_bytes(pickle.dumps(content, 2))
        refused(read_checkpoint, tmp_path / "x.pkl")
        refused(checkpoint_io.read_checkpoint, archive(tmp_path / "x.ckpt", pickle.dumps(content, 2)))
    for levels in (1000, 100_000):
        (tmp_path / "x.pkl").write_bytes(deep_tuple(levels))
        refused(read_checkpoint, tmp_path / "x.pkl")
        refused(checkpoint_io.read_checkpoint, archive(tmp_path / "x.ckpt", deep_tuple(levels)))
    opts = b"\x80\x02}X\x04\x00\x00\x00optsN" + b"\x85" * 100_000 + b"s."
    (tmp_path / "x.pkl").write_bytes(opts)
    assert "nested" in refused(read_checkpoint, tmp_path / "x.pkl")


def test_keys() -> None:
    for key in ("a", b"a", 1, -5, 1.5, None, True, ("a", 1), (1 << 30, None)):
        assert check_key(key) == key
    for key in ((), 1 << 70, (1 << 40,), (1.5,), ((1,),), [1]):
        if key != ():
            with pytest.raises(RefusedPickle):
                check_key(key)
    assert plain([1, {"a": (2, b"x")}]) == [1, {"a": [2, "b'x'"]}]


def test_deflated_checkpoint(tmp_path: Path) -> None:
    """400 MB of zeros shrink to 390 kB; PyTorch would inflate them."""
    stream = io.BytesIO()
    torch.save({"state_dict": {"x": torch.zeros(5_000_000)}}, stream)
    path = tmp_path / "x.ckpt"
    with zipfile.ZipFile(stream) as source, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as target:
        for info in source.infolist():
            target.writestr(info.filename, source.read(info))
    assert torch.load(path, weights_only=True)["state_dict"]["x"].numel() == 5_000_000
    assert "compressed archive" in refused(checkpoint_io.read_checkpoint, path)
    assert "compressed archive" in refused(read_checkpoint, path)


def test_two_entries_of_one_name(tmp_path: Path) -> None:
    data = pickle.dumps({"state_dict": {}}, 2)
    with zipfile.ZipFile(tmp_path / "x.ckpt", "w") as file:
        for name in ("x/data.pkl", "x/DATA.pkl"):
            file.writestr(name, data)
    assert "two entries" in refused(checkpoint_io.read_checkpoint, tmp_path / "x.ckpt")


def test_tensors_larger_than_the_file(tmp_path: Path) -> None:
    torch.save({"state_dict": {"x": torch.zeros(1).expand(1 << 40)}}, tmp_path / "x.ckpt")
    assert "times as large" in refused(checkpoint_io.read_checkpoint, tmp_path / "x.ckpt")


@pytest.fixture(scope="module")
def generator_file(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Any], dict[str, torch.Tensor]]:
    generator = Generator(8, z_dim=4, w_dim=4, mapping_layers=1, channel_base=32, channel_max=4)
    path = tmp_path_factory.mktemp("file") / "x.safetensors"
    save_generator(generator, path)
    load_generator(path)
    return generator.config, generator.state_dict()


CLAIMS: list[tuple[str, Any]] = [
    ("w_dim", 10**12),
    ("w_dim", -1),
    ("w_dim", "a"),
    ("w_dim", None),
    ("w_dim", True),
    ("w_dim", 4.0),
    ("z_dim", 10**12),
    ("c_dim", 10**12),
    ("img_channels", 10**9),
    ("resolution", 1 << 40),
    ("resolution", 12),
    ("resolution", [8]),
    ("mapping_layers", 3_000_000),
    ("mapping_layers", 0),
    ("mapping_lr_multiplier", 0),
    ("mapping_lr_multiplier", -1),
    ("mapping_lr_multiplier", float("nan")),
    ("mapping_lr_multiplier", float("inf")),
    ("mapping_lr_multiplier", "x"),
    ("conv_clamp", "x"),
    ("conv_clamp", [1]),
    ("conv_clamp", float("nan")),
    ("conv_clamp", -1),
    ("conv_clamp", 0),
    ("channels", {"4": 10**9, "8": 4}),
    ("channels", {"4": "x", "8": 4}),
    ("channels", {"4": 4, "8": -4}),
    ("channels", {"x": 4}),
    ("channels", {}),
    ("channels", 7),
    ("channels", {"4": {}, "8": 4}),
    ("demod_eps_scaled", "yes"),
    ("progressive", 1),
    ("style", 5),
    ("style", "x" * 1000),
    ("unknown", 1),
]


@pytest.mark.parametrize(("name", "value"), CLAIMS, ids=[f"{name}-{str(value)[:12]}" for name, value in CLAIMS])
def test_sizes_in_metadata(name: str, value: Any, generator_file, tmp_path: Path) -> None:
    config, state = generator_file
    metadata = {"kind": GENERATOR_KIND, "config": json.dumps({**config, name: value})}
    save_file(state, tmp_path / "x.safetensors", metadata)
    refused(load_generator, tmp_path / "x.safetensors")


@pytest.mark.parametrize("text", ["[" * 100_000, "{" * 5, "[]", "7", "9" * 5000, '{"w_dim": ' + "9" * 6000 + "}", ""])
def test_damaged_metadata(text: str, generator_file, tmp_path: Path) -> None:
    save_file(generator_file[1], tmp_path / "x.safetensors", {"kind": GENERATOR_KIND, "config": text})
    assert "config metadata" in refused(load_generator, tmp_path / "x.safetensors")


def test_real_configurations_pass() -> None:
    for resolution in (4, 32, 1024):
        with torch.device("meta"):
            check_config(Generator(resolution, c_dim=10, conv_clamp=256).config)
    check_config({"mbstd_group_size": 1 << 30, "channels": {4: 512, 8: 512}})


@pytest.mark.parametrize(
    "config",
    [
        '{"width": 1000000000}',
        '{"width": "x"}',
        '{"embedding_dim": -1}',
        '{"factor_names": 7}',
        "[",
        "",
        '{"x": 1}',
        "{}",
    ],
)
def test_face_networks(config: str, tmp_path: Path) -> None:
    metadata = {"format": "stylegan_inv.face_network", "config": config}
    save_file({"x": torch.zeros(1)}, tmp_path / "x.safetensors", metadata)
    assert "not a face network" in refused(load_face_network, tmp_path / "x.safetensors")


def test_directions_and_components(tmp_path: Path) -> None:
    for number, content in enumerate((doubled(40), endless(), {"mean": doubled(40), "comp": 1, "std": 2})):
        path = tmp_path / f"{number}.pt"
        torch.save(content, path)
        refused(load_direction, path)
        refused(load_components, path)
    torch.save(torch.ones(1, 4), tmp_path / "x.pt", _use_new_zipfile_serialization=False)
    assert load_direction(tmp_path / "x.pt").vector.shape == (4,)
