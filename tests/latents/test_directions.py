"""Directions: files keep all fields, and unsuitable files and generators raise errors."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import Direction, embedded_directions, load_direction, save_direction


@pytest.fixture(scope="module")
def generator() -> Generator:
    made = Generator(16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    made.source_hash = "a" * 64
    return made


def vector(*shape: int) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def test_file_keeps_all_fields(tmp_path):
    for direction in (
        Direction(vector(8), "smile", layers=(1, 4), unit=2.5, generator_hash="ab", made={"by": "SVM"}),
        Direction(vector(6, 8), "pose", space="w+"),
    ):
        read = load_direction(save_direction(direction, tmp_path / "new" / "d.safetensors"))
        assert torch.equal(read.vector, direction.vector)
        for name in ("name", "space", "layers", "unit", "generator_hash", "made"):
            assert getattr(read, name) == getattr(direction, name)


def test_apply_changes_the_layers_by_strength_times_unit():
    direction, w = Direction(vector(8), "x", layers=(1, 4), unit=2.0), vector(3, 6, 8)
    moved = direction.apply(w, torch.tensor([1.0, 0.0, -3.0])) - w
    for row, strength in enumerate((1, 0, -3)):
        for layer in range(6):
            want = 2.0 * strength * direction.vector if layer in (1, 4) else torch.zeros(8)
            torch.testing.assert_close(moved[row, layer], want, atol=1e-6, rtol=1e-5)
    wide = Direction(vector(6, 8), "y", space="w+")
    torch.testing.assert_close(wide.apply(w, 0.5), w + 0.5 * wide.vector)
    assert wide.on_layers([2]).apply(w, 1.0)[:, [0, 1, 3, 4, 5]].equal(w[:, [0, 1, 3, 4, 5]])


@pytest.mark.parametrize("shape", [(8,), (1, 8), (6, 8), (1, 6, 8)])
@pytest.mark.parametrize("suffix", ["npy", "NPY", "pt", "PT"])
def test_public_boundaries(tmp_path, shape, suffix):
    values, path = vector(*shape), tmp_path / f"age.{suffix}"
    with path.open("wb") as file:  # by its name, numpy would append .npy
        np.save(file, values.numpy()) if suffix.lower() == "npy" else torch.save(values, file)
    read = load_direction(path)
    assert read.name == "age" and read.unit == 1.0
    assert torch.equal(read.vector, values[0] if shape[0] == 1 else values)
    assert read.space == ("w+" if 6 in shape else "w")


class Payload:
    def __reduce__(self):
        return print, ("executed",)


def test_files_are_not_executed(tmp_path, capsys):
    np.save(tmp_path / "bad.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    torch.save(Payload(), tmp_path / "bad.pt")
    for name in ("bad.npy", "bad.pt"):
        with pytest.raises(UserError, match="cannot be read as a direction"):
            load_direction(tmp_path / name)
    assert "executed" not in capsys.readouterr().out


def test_other_files_raise_one_error_line(tmp_path):
    with pytest.raises(UserError, match="no such file or embedded direction .*age"):
        load_direction("nonsense")
    save_file({"w": vector(3)}, tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="expected a direction"):
        load_direction(tmp_path / "x.safetensors")
    torch.save({"mean": vector(1, 8), "comp": vector(2, 1, 8), "std": vector(2)}, tmp_path / "pca.pt")
    with pytest.raises(UserError, match="GANSpace"):
        load_direction(tmp_path / "pca.pt")
    np.save(tmp_path / "z.npy", np.zeros(8, np.float32))
    with pytest.raises(UserError, match="is zero"):
        load_direction(tmp_path / "z.npy")
    (tmp_path / "d.txt").write_text("1 2 3")
    with pytest.raises(UserError, match=r"expected a direction as \.safetensors"):
        load_direction(tmp_path / "d.txt")
    with pytest.raises(UserError, match="direction x: space=z: expected one of w, w"):
        Direction(vector(8), "x", space="z")


@pytest.mark.parametrize(
    ("key", "text"),
    [
        *(("layers", text) for text in ('["a"]', "[null]", '"ab"', "[[0]]", '{"a": 1}', "[true]", "[0.5]", "[-1]")),
        ("made", "[1]"), ("made", '{"a": 1}'), ("domain", "nonsense"), ("unit", "1e300"), ("unit", "nan"),
        ("space", "[]"),
    ],
)  # fmt: skip
def test_every_field_of_a_file_is_checked(key, text, tmp_path):
    save_direction(Direction(vector(8), "x"), tmp_path / "good.safetensors")
    with safe_open(tmp_path / "good.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file({"direction": vector(8)}, tmp_path / "x.safetensors", {**metadata, key: text})
    with pytest.raises(UserError):
        load_direction(tmp_path / "x.safetensors")


def test_other_generators_are_refused(tmp_path, generator):
    file = save_direction(Direction(vector(8), "x", generator_hash="b" * 64), tmp_path / "x.safetensors")
    with pytest.raises(UserError, match="made for another generator .bbbb.*any_generator=true"):
        load_direction(file, generator)
    load_direction(file, generator, any_generator=True)
    save_direction(Direction(vector(8), "x", generator_hash="a" * 64), file)
    load_direction(file, generator)
    for wrong in (
        Direction(vector(7), "x"),
        Direction(vector(5, 8), "x", space="w+"),
        Direction(vector(8), "x", layers=(6,)),
    ):
        save_direction(wrong, file)
        for any_generator in (False, True):
            with pytest.raises(UserError, match="direction x"):
                load_direction(file, generator, any_generator=any_generator)


@pytest.mark.parametrize("strength", [float("nan"), float("inf"), torch.ones(2)])
def test_strength_has_to_be_a_number_for_each_code(strength):
    with pytest.raises(UserError, match="strength"):
        Direction(vector(8), "x").apply(vector(3, 6, 8), strength)


def test_embedded_directions_exist():
    assert embedded_directions() == ["age", "eyeglasses", "gender", "pose", "smile"]


@pytest.mark.parametrize(
    "values",
    [vector(8).double() * 1e200, vector(8) * 1e30, torch.complex(vector(8), vector(8)), torch.zeros(0)],
    ids=["float64", "float32", "complex", "empty"],
)
def test_vectors_that_overflow_or_lose_a_part_are_refused(values, tmp_path):
    """As float32, 1e200 is infinite, and the images are black or NaN."""
    save_direction(Direction(vector(8), "x"), tmp_path / "x.safetensors")
    with safe_open(tmp_path / "x.safetensors", "pt") as file:
        metadata = file.metadata()
    save_file({"direction": values}, tmp_path / "x.safetensors", metadata)
    with pytest.raises(UserError, match="direction x: "):
        load_direction(tmp_path / "x.safetensors")
