"""Reference numbers made with the public implementations, when they lie beside the checkout.

``STYLEGAN_INV_GOLDEN`` names another folder. Tests that need them carry ``@needs_golden`` and are skipped without.
"""

from __future__ import annotations

import functools
import importlib.util
import json
import os
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest
import torch


def golden_dir() -> Path:
    """The folder with the reference numbers; it need not exist."""
    override = os.environ.get("STYLEGAN_INV_GOLDEN")
    return Path(override) if override else Path(__file__).resolve().parents[2] / "shared" / "golden"


needs_golden = pytest.mark.skipif(
    not (golden_dir() / "index.json").is_file(),
    reason=f"no reference numbers in {golden_dir()} (STYLEGAN_INV_GOLDEN names another folder)",
)


@functools.cache
def fill() -> ModuleType:
    """The folder's own ``fill.py``: rebuilds the weights that the numbers were made with."""
    spec = importlib.util.spec_from_file_location("golden_fill", golden_dir() / "fill.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    module.check()
    return module


@functools.cache
def fill_refiners_a() -> ModuleType:
    """``fill_refiners_a.py``: the weights and inputs of HyperStyle, HyperInverter and HFGI."""
    spec = importlib.util.spec_from_file_location("golden_fill_refiners_a", golden_dir() / "fill_refiners_a.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@functools.cache
def entry(name: str) -> dict[str, Any]:
    """The index entry of one golden."""
    for index in ("index.json", "index_refiners_a.json"):
        for found in json.loads((golden_dir() / index).read_text())["goldens"]:
            if found["id"] == name:
                return dict(found)
    raise KeyError(name)


@functools.cache
def arrays(name: str) -> dict[str, np.ndarray]:
    """Inputs and outputs of one golden."""
    with np.load(golden_dir() / entry(name)["file"]) as f:
        return dict(f)


def tensor(name: str, key: str) -> torch.Tensor:
    """One array of a golden in double precision (uint8 images become float64 in [-1, 1])."""
    value = arrays(name)[key]
    return (fill().image(value) if value.dtype == np.uint8 else torch.from_numpy(value)).double()


@functools.lru_cache(maxsize=2)  # a network is 100 MB and takes a second to draw
def _reference_state(keys: str) -> dict[str, torch.Tensor]:
    return fill().reference_state(golden_dir() / "keys" / f"{keys}.json")


def reference_state(keys: str) -> dict[str, torch.Tensor]:
    """Filled state dict in the reference's own key names, e.g. ``reference_state("nvidia_g64_m8")``; do not modify."""
    return dict(_reference_state(keys))


def key_shapes(keys: str) -> dict[str, tuple[int, ...]]:
    """Key names and shapes of a reference network."""
    spec = json.loads((golden_dir() / "keys" / f"{keys}.json").read_text())
    return {key: tuple(value["shape"]) for key, value in spec.items()}


def relative_error(got: torch.Tensor, want: torch.Tensor) -> float:
    """``||got - want|| / ||want||``."""
    assert got.shape == want.shape, f"{tuple(got.shape)} instead of {tuple(want.shape)}"
    return float((got.detach().double() - want.double()).norm() / want.double().norm().clamp_min(1e-30))


def check(name: str, key: str, got: torch.Tensor, precision: str = "f64") -> None:
    """Compare with an output of a golden within its own tolerance."""
    tolerance = entry(name)["outputs"][key]["tol"][precision]
    error = relative_error(got, tensor(name, key))
    assert error <= tolerance, f"{name}/{key}: relative L2 error {error:.2e}, allowed {tolerance:.0e}"
