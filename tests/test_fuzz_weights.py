"""Arbitrary bytes as files of weights are read or refused with one line. Failures are kept as examples."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save

from stylegan_inv.errors import UserError
from stylegan_inv.generators.io.formats import load_generator, locate
from stylegan_inv.generators.io.weight_files import read_weights, safetensors_metadata

_STARTS = [
    b"",
    b"PK\x03\x04",
    b"\x80\x02",
    b"\x80\x04",
    b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.",
    b"\x08\0\0\0\0\0\0\0{",
]
_QUICK = settings(deadline=None, max_examples=120, suppress_health_check=[HealthCheck.function_scoped_fixture])


def read(path: Path, data: bytes) -> None:
    path.write_bytes(data)
    try:
        read_weights(path)
    except UserError as error:
        assert "\n" not in str(error)


@given(st.sampled_from(_STARTS), st.binary(max_size=300))
@_QUICK
def test_bytes(tmp_path: Path, start: bytes, rest: bytes) -> None:
    read(tmp_path / "a.pkl", start + rest)


@given(st.binary(max_size=60), st.integers(0, 2**64 - 1))
@_QUICK
def test_safetensors_headers_of_any_length(tmp_path: Path, header: bytes, length: int) -> None:
    read(tmp_path / "a.safetensors", length.to_bytes(8, "little") + b"{" + header)
    read(tmp_path / "a.safetensors", (len(header) + 1).to_bytes(8, "little") + b"{" + header)


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.sampled_from(["__metadata__", "x", "y"]), PLAIN, max_size=3))
@_QUICK
def test_safetensors_headers_of_any_json(tmp_path: Path, header: dict[str, Any]) -> None:
    text = json.dumps(header).encode()
    read(tmp_path / "a.safetensors", len(text).to_bytes(8, "little") + text + bytes(16))


@given(
    st.dictionaries(
        st.sampled_from(["format", "config", "kind", "hints", "layout", "x"]), st.text(max_size=30), max_size=4
    )
)
@_QUICK
def test_safetensors_metadata_of_a_generator(tmp_path: Path, metadata: dict[str, str]) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"mapping.fc0.weight": torch.zeros(4, 4)}, metadata))
    with pytest.raises(UserError) as error:
        load_generator(path)
    assert "\n" not in str(error.value)


EXTREME = st.sampled_from([-1, 0, 10**9, 2**40, 1.5, float("nan"), True, [10**9], {"4": 10**9}]) | PLAIN


@given(st.data())
@_QUICK
def test_config_of_a_generator(tmp_path: Path, data: st.DataObject) -> None:
    """A header cannot make the reader allocate more memory than the tensors of the file need."""
    metadata = safetensors_metadata(locate("synthfaces64", None))
    config = json.loads(metadata["config"])
    config[data.draw(st.sampled_from([*config, "unknown"]))] = data.draw(EXTREME)
    path = tmp_path / "a.safetensors"
    path.write_bytes(save({"mapping.fc0.weight": torch.zeros(4, 4)}, {**metadata, "config": json.dumps(config)}))
    with pytest.raises(UserError) as error:
        load_generator(path)
    assert "\n" not in str(error.value)


@given(PLAIN, st.integers(0, 5), st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), max_size=6))
@_QUICK
def test_pickles_with_changed_bytes(
    tmp_path: Path, content: Any, protocol: int, changes: list[tuple[int, int]]
) -> None:
    data = bytearray(pickle.dumps({"x": content, "w": np.zeros(3, np.float32)}, protocol))
    for place, value in changes:
        data[place % len(data)] = value
    read(tmp_path / "a.pkl", bytes(data))


@given(st.lists(st.tuples(st.integers(0, 10**6), st.integers(0, 255)), min_size=1, max_size=6), st.booleans())
@_QUICK
def test_torch_files_with_changed_bytes(tmp_path: Path, changes: list[tuple[int, int]], new: bool) -> None:
    path = tmp_path / "good.pt"
    torch.save({"state_dict": {"a": torch.zeros(3)}, "step": 4}, path, _use_new_zipfile_serialization=new)
    data = bytearray(path.read_bytes())
    for place, value in changes:
        data[place % len(data)] = value
    read(tmp_path / "a.pt", bytes(data))
