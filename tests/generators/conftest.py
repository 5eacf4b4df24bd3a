"""Fixtures of the tests of the generators."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest
import torch

from stylegan_inv.generators.frozen import native_layer
from stylegan_inv.generators.frozen import network_plan as fused


@pytest.fixture(scope="module")
def native():
    kernels = native_layer.load()
    if kernels is None:
        pytest.skip("no compiler")
    return kernels


@pytest.fixture(params=["torch", "native"])
def kernels(request, monkeypatch):
    """Runs the test with each of the two implementations."""
    chosen = None if request.param == "torch" else request.getfixturevalue("native")
    monkeypatch.setattr(fused, "native_kernels", lambda: chosen)
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


@pytest.fixture(params=["modules", "fused", "native"])
def path(request, monkeypatch):
    """Prepares a generator for one of the three ways in which a frozen network runs on the CPU."""
    kernels = native_layer.load() if request.param == "native" else None
    if request.param == "native" and kernels is None:
        pytest.skip("no compiler")
    monkeypatch.setattr(fused, "native_kernels", lambda: kernels)

    def prepared(generator):
        generator.synthesis.fused.enabled = request.param != "modules"
        return generator if request.param == "native" else generator.double()

    prepared.name = request.param
    return prepared


@pytest.fixture
def at_once() -> Iterator[None]:
    """The test ends within seconds."""
    started = time.perf_counter()
    yield
    assert time.perf_counter() - started < 15
