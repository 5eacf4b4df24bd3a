"""Files of codes of strangers, and those of NVIDIA's projector."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file

from stylegan_inv.edit import __main__ as edit
from stylegan_inv.errors import UserError
from stylegan_inv.generators import load_generator
from stylegan_inv.latents.directions import load_direction
from stylegan_inv.latents.edits import Neighbours
from stylegan_inv.latents.saved_codes import holds_latents, latents_files, read_latents, shard_name
from tests.cli import call, error_of
from tests.fake_run import make_run

GOOD = ["reconstructions/a.png", "reconstructions/sub/b.png"]


@pytest.fixture(scope="module")
def generator(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_run(tmp_path_factory.mktemp("run") / "two_steps") / "generator.safetensors"


def codes(folder: Path, names: Any = ("a.png", "b.png"), images: Any = GOOD, w: Any = None, **more: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    texts = {key: value if isinstance(value, str) else json.dumps(value) for key, value in
             {"names": names, "reconstructions": images}.items()}  # fmt: skip
    save_file({"w": torch.zeros(2, 6, 8) if w is None else w}, folder / "latents.safetensors", {**texts, **more})
    return folder / "latents.safetensors"


ODD: dict[str, dict[str, Any]] = {
    "numbers": {"names": [1, 2]},
    "null": {"names": None},
    "nulls": {"images": [None, None]},
    "a text of two letters": {"names": '"ab"', "images": '"ab"'},
    "a mapping": {"images": {"a": 1, "b": 2}},
    "lists": {"names": [["a"], ["b"]]},
    "no JSON": {"names": "["},
    "deep JSON": {"names": "[" * 100_000},
    "absolute": {"images": ["/etc/passwd", GOOD[1]]},
    "a drive": {"images": ["C:\\x.png", GOOD[1]]},
    "out of the folder": {"images": ["../x.png", GOOD[1]]},
    "out of it behind its name": {"images": ["reconstructions/../../x.png", GOOD[1]]},
    "the folder itself": {"images": ["reconstructions", GOOD[1]]},
    "another folder": {"images": ["noise/x.png", GOOD[1]]},
    "NUL": {"images": ["reconstructions/a\0.png", GOOD[1]]},
    "too few": {"names": ["a"]},
    "too many": {"images": [*GOOD, "reconstructions/c.png"]},
    "whole numbers": {"w": torch.zeros(2, 6, 8, dtype=torch.int64)},
    "two axes": {"w": torch.zeros(2, 8)},
    "no axes": {"w": torch.zeros(())},
    "too large for float32": {"w": torch.full((2, 6, 8), 1e300, dtype=torch.float64)},
    "too large for a generator": {"w": torch.full((2, 6, 8), 1e30)},
    "no codes": {"w": torch.zeros(0, 6, 8), "names": [], "images": []},
}


@pytest.mark.parametrize("kind", ODD)
def test_odd_files_are_one_line_everywhere(
    generator: Path, tmp_path: Path, kind: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    file = codes(tmp_path / "out", **ODD[kind])
    for path in (file, file.parent):
        with pytest.raises(UserError) as error:
            read_latents(path)
        assert str(file) in str(error.value) and "\n" not in str(error.value) and len(str(error.value)) < 400
    with pytest.raises(UserError):
        Neighbours(str(tmp_path))
    line = error_of(
        monkeypatch, capsys, edit, "input=out", "edit=truncate", "generator=file", f"generator.source={generator}"
    )
    assert str(Path("out", "latents.safetensors")) in line
    assert sorted(path.name for path in tmp_path.iterdir()) == ["out"], "nothing was written"


BELONGS = {
    "noise/a.safetensors": {"00": torch.zeros(1, 4, 4)},
    "noise/sub/b.safetensors": {"00": torch.zeros(7)},
    "generators/a.safetensors": {"b4.const": torch.zeros(3)},
    "generators/sub/b.safetensors": {
        "b4.conv1.weight.left": torch.zeros(8, 2), "b4.conv1.weight.right": torch.zeros(3, 72),
    },
}  # fmt: skip


@pytest.mark.parametrize("name", BELONGS)
def test_noise_and_weights_that_do_not_fit(
    generator: Path, tmp_path: Path, name: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    codes(tmp_path / "out")
    for image in ("a", "sub/b"):
        file = tmp_path / "out" / name.split("/")[0] / f"{image}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(BELONGS[name], file)
    line = error_of(
        monkeypatch, capsys, edit, "input=out", "edit=truncate", "generator=file", f"generator.source={generator}"
    )
    assert "does not fit" in line and "reconstructions/" in line


FULL = {f"{k:02d}": (1, side, side) for k, side in enumerate((4, 8, 8, 16, 16))}


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), 1e30])
@pytest.mark.parametrize("kind", ["noise", "generators"])
def test_noise_and_weights_are_numbers_of_a_network(
    generator: Path,
    tmp_path: Path,
    kind: str,
    value: float,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    codes(tmp_path / "out")
    tensors = {name: torch.zeros(shape) for name, shape in FULL.items()}
    if kind == "generators":
        shape = load_generator(generator).synthesis.get_parameter("b8.conv1.bias").shape
        tensors = {"b8.conv1.bias": torch.zeros(shape)}
    for image in ("a", "sub/b"):
        file = tmp_path / "out" / kind / f"{image}.safetensors"
        file.parent.mkdir(parents=True, exist_ok=True)
        save_file(tensors, file)
    command = ("input=out", "edit=truncate", "edit.psi=[1]", "generator=file", f"generator.source={generator}")
    call(monkeypatch, edit, *command, "output=good")
    capsys.readouterr()
    name = sorted(tensors)[-1]
    tensors[name].view(-1)[-1] = value
    save_file(tensors, file)
    line = error_of(monkeypatch, capsys, edit, *command, "output=bad")
    assert f"out/{kind}/sub/b.safetensors: '{name}' holds NaN, infinite or other numbers than {kind} have" in line
    assert not (tmp_path / "bad").exists()


def npy(shape: tuple[int, ...], dtype: str, content: bytes, version: bytes = b"\1\0") -> bytes:
    head = f"{{'descr': {dtype}, 'fortran_order': False, 'shape': {shape!r}, }}\n".encode("latin-1")
    return (
        b"\x93NUMPY" + version + (len(head) % 65536).to_bytes(2 if version == b"\1\0" else 4, "little") + head + content
    )


HOSTILE = {
    "more than it holds": (npy((1 << 40,), "'<f4'", bytes(32)), "claims an array .* but has 32"),
    "more than any machine has": (npy((1 << 62, 1 << 62), "'<f8'", bytes(32)), "claims an array"),
    "less than it holds": (npy((4,), "'<f4'", bytes(32)), "claims an array .* of 16 bytes, but has 32"),
    "a negative size": (npy((-2, -4), "'<f4'", bytes(32)), ""),
    "objects": (npy((1,), "'|O'", b"\x80\4K\1."), "holds objects"),
    "objects in a structure": (npy((1,), "[('a', '|O')]", b"\x80\4K\1."), "holds objects"),
    "texts": (npy((8,), "'<U1'", bytes(32)), "holds <U1, expected numbers"),
    "complex numbers": (npy((4,), "'<c8'", bytes(32)), "holds complex64"),
    "times": (npy((4,), "'<M8[s]'", bytes(32)), "holds datetime64"),
    "no type": (npy((4,), "'x'", bytes(32)), ""),
    "a long header": (npy((1,) * 9000, "'<f4'", bytes(4)), ""),
    "code as header": (npy((1,), "__import__('os').abort()", bytes(4)), ""),
    "version 3": (npy((8,), "'<f4'", bytes(32), version=b"\3\0"), "version 3.0"),
    "version 9": (npy((8,), "'<f4'", bytes(32), version=b"\x09\0"), ""),
    "a cut header": (npy((8,), "'<f4'", bytes(32))[:40], ""),
    "nothing": (b"", ""),
    "a pickle": (b"\x80\4K\1.", ""),
    "NaN": (npy((8,), "'<f4'", np.full(8, np.nan, "<f4").tobytes()), "not finite"),
    "whole numbers": (npy((8,), "'<i4'", bytes(32)), "expected an array of numbers"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_headers_of_arrays_are_checked(tmp_path: Path, kind: str) -> None:
    content, message = HOSTILE[kind]
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(UserError, match=message or None) as error:
        load_direction(tmp_path / "a.npy")
    assert "a.npy" in str(error.value) or kind == "NaN", "the name of a direction is that of its file"
    assert "\n" not in str(error.value) and len(str(error.value)) < 500
    with zipfile.ZipFile(tmp_path / "a.npz", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("w.npy", content)
    with pytest.raises(UserError, match=r"a\.npz: ") as error:
        read_latents(tmp_path / "a.npz")
    assert "\n" not in str(error.value) and len(str(error.value)) < 500


@pytest.mark.parametrize("dtype", ["<f4", ">f4", "<f8", ">f8", "<f2"])
@pytest.mark.parametrize("order", ["C", "F"])
def test_arrays_are_those_of_numpy(tmp_path: Path, dtype: str, order: Any) -> None:
    values = np.asarray(np.random.default_rng(0).normal(size=(6, 8)), dtype, order=order)
    np.save(tmp_path / "a.npy", values)
    assert np.array_equal(load_direction(tmp_path / "a.npy").vector.numpy(), values.astype(np.float32))
    for save in (np.savez, np.savez_compressed):
        save(tmp_path / "a.npz", w=values)
        assert np.array_equal(read_latents(tmp_path / "a.npz").w[0].numpy(), values.astype(np.float32))


def test_odd_names_of_images_are_edited(generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Names are captions and files; long ones, empty ones and surrogates are no reason to fail."""
    monkeypatch.chdir(tmp_path)
    names = ["/etc/passwd", "../../x", "", "\ud800", "é" * 5000, "a\0b", "CON", "."]
    images = [f"reconstructions/{number}.png" for number in range(len(names))]
    codes(tmp_path / "out", names, images, torch.zeros(len(names), 6, 8), **{"class": "9" * 5000})
    call(
        monkeypatch,
        edit,
        "input=out",
        "edit=truncate",
        "edit.psi=[1]",
        "generator=file",
        f"generator.source={generator}",
    )
    written = [path for path in tmp_path.rglob("*.png") if path.parent.name == "images"]
    assert len(written) == len(names) and all(path.is_relative_to(tmp_path / "out") for path in written)


def test_shards_of_strangers(tmp_path: Path) -> None:
    for name in ("latents-1x-of-2y.safetensors", "latents-00001-of-00002.safetensors"):
        codes(tmp_path).rename(tmp_path / name)
    with pytest.raises(UserError, match="holds 1 of 2 files of codes"):
        latents_files(tmp_path)
    codes(tmp_path, w=torch.zeros(2, 4, 8)).rename(tmp_path / shard_name(2, 2))
    with pytest.raises(UserError, match="codes of 2 generators"):
        read_latents(tmp_path)


# -- NVIDIA's projector ------------------------------------------------------------------------------------------------


def test_codes_of_the_projector_are_edited(
    generator: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """``projector.py`` of stylegan2-ada-pytorch: ``np.savez('projected_w.npz', w=projected_w.unsqueeze(0))``."""
    monkeypatch.chdir(tmp_path)
    w = np.random.default_rng(0).normal(size=(1, 6, 8)).astype(np.float32)
    np.savez(tmp_path / "projected_w.npz", w=w)
    assert holds_latents(tmp_path / "projected_w.npz")
    np.testing.assert_array_equal(read_latents(tmp_path / "projected_w.npz").w.numpy(), w)
    source = f"generator.source={generator}"
    call(
        monkeypatch,
        edit,
        "input=projected_w.npz",
        "edit=truncate",
        "edit.psi=[1]",
        "generator=file",
        source,
        "output=o",
    )
    assert Image.open(tmp_path / "o" / "images" / "projected_w_psi_1.png").size == (16, 16)
    np.savez(tmp_path / "two.NPZ", w=np.zeros((2, 6, 8)))
    (tmp_path / "two.NPZ.npz").rename(tmp_path / "two.NPZ")
    assert read_latents(tmp_path / "two.NPZ").names == ["two_0", "two_1"]
    np.savez(tmp_path / "other.npz", w=np.zeros((1, 4, 8)))
    assert "another generator" in error_of(
        monkeypatch, capsys, edit, "input=other.npz", "edit=truncate", "generator=file", source
    )


def test_codes_are_finite_and_of_a_size_that_codes_have(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    w = np.zeros((2, 4, 8), np.float32)
    w[1, 2, 3] = np.nan
    np.savez(tmp_path / "nan.npz", w=w)
    with pytest.raises(UserError, match="code 1 .*NaN"):
        read_latents(tmp_path / "nan.npz")
    monkeypatch.setattr(np, "load", lambda *_, **__: pytest.fail("was unpacked"))
    np.savez_compressed(tmp_path / "bomb.npz", w=np.zeros((1, 1, 1 << 27), np.float32))
    assert (tmp_path / "bomb.npz").stat().st_size < 1 << 20
    with pytest.raises(UserError, match="at most 268,435,456"):
        read_latents(tmp_path / "bomb.npz")


@pytest.mark.parametrize("arrays", [{"v": np.zeros((1, 6, 8))}, {"w": np.array([{}])}, {"w": np.zeros(8)}, {}])
def test_other_npz_files(tmp_path: Path, arrays: dict[str, Any]) -> None:
    np.savez(tmp_path / "a.npz", **arrays)
    if not arrays:
        (tmp_path / "a.npz").write_bytes(b"no zip")
    with pytest.raises(UserError, match="a.npz: .*codes") as error:
        read_latents(tmp_path / "a.npz")
    assert "\n" not in str(error.value)
