"""When the fast path runs, and when the modules run instead; weights that change; copies."""

from __future__ import annotations

import copy
import pickle
import warnings
import weakref

import pytest
import torch

from stylegan_inv.generators import Generator
from stylegan_inv.generators.frozen import network_plan as fused
from stylegan_inv.generators.ops import build, compilers, dispatch
from tests.generators.frozen_generators import compare, error, make, used


def test_without_gradients(kernels):
    generator, modules = make()
    w = torch.randn(2, generator.num_ws, 6, requires_grad=True)
    want = generator.synthesis(w).detach()
    with torch.no_grad():
        assert torch.equal(generator.synthesis(w), want)
    with torch.inference_mode():
        image = generator.synthesis(w)
        assert torch.equal(image, want) and image.is_inference()
    fresh, _ = make()
    with torch.inference_mode():  # constants computed here serve a later call with gradients
        fresh.synthesis(w)
    torch.autograd.grad(fresh.synthesis(w).sum(), w)


def test_weights_that_change(kernels):
    generator, _ = make()
    w = torch.randn(1, generator.num_ws, 6)

    def current():
        modules = copy.deepcopy(generator)
        modules.synthesis.fused.enabled = False
        return modules.synthesis(w)

    def check():
        assert error(generator.synthesis(w), current().double()) < 1e-5
        assert used(generator)

    check()
    names = [n for n, _ in generator.synthesis.named_parameters() if ".affine." not in n]
    assert len(names) == 1 + 7 * 3 + 4 * 2
    for name in names:
        before = generator.synthesis(w)
        with torch.no_grad():
            generator.synthesis.get_parameter(name).add_(0.5)
        assert not torch.allclose(generator.synthesis(w), before), name
        check()
    generator.synthesis.b8.conv1.weight = torch.nn.Parameter(torch.randn(20, 20, 3, 3), requires_grad=False)
    check()
    generator.load_state_dict(make(seed=1)[0].state_dict())
    check()
    # as in PTI: the modules run while a weight trains, the fast path afterwards
    weight = generator.synthesis.b16.conv0.weight.requires_grad_()
    generator.synthesis(w).sum().backward()
    assert weight.grad.abs().sum() > 0
    torch.optim.SGD([weight], lr=0.01).step()
    weight.requires_grad_(False)
    check()


def test_copies_contain_the_switches_and_not_the_constants(kernels):
    generator, _ = make()
    generator.freeze(recompute=True)
    unused = pickle.dumps(generator)
    w = torch.randn(1, generator.num_ws, 6)
    image = generator.synthesis(w)
    keys = set(generator.state_dict())
    assert len(pickle.dumps(generator)) == len(unused)
    for twin in (copy.deepcopy(generator), pickle.loads(pickle.dumps(generator))):
        assert twin.synthesis.fused.enabled and twin.synthesis.fused.switches.recompute and not used(twin)
        assert torch.equal(twin.synthesis(w), image)
        assert set(twin.state_dict()) == keys == set(make()[0].state_dict())
    generator.to(torch.float64)
    assert not used(generator)
    gone = [weakref.ref(twin.synthesis), weakref.ref(twin.synthesis.fused._constants[1])]
    del twin
    assert [g() for g in gone] == [None, None]  # no cycles: the memory is freed at once
    generator.to("meta")
    assert not used(generator)


def test_hooks_and_other_modes_run_the_modules(kernels, monkeypatch):
    generator, _ = make()
    w = torch.randn(1, generator.num_ws, 6)
    seen = []
    handle = generator.synthesis.b16.conv1.register_forward_hook(lambda *_: seen.append("conv1"))
    generator.synthesis(w)
    assert seen == ["conv1"] and not used(generator)
    handle.remove()
    generator.synthesis.b16.conv1.affine.register_forward_hook(lambda *_: seen.append("affine"))
    generator.synthesis(w)
    assert seen == ["conv1", "affine"] and used(generator)
    slow, _ = make(ops="ref")
    slow.synthesis(w)
    assert not used(slow)
    other, _ = make()
    with torch.autocast("cpu", torch.bfloat16):
        other.synthesis(w)
    assert not used(other)
    monkeypatch.setattr(dispatch, "_AUTO", "ref")  # the environment variable
    other.synthesis(w)
    assert not used(other)


def test_a_generator_that_trains_runs_its_modules():
    generator = Generator(16, z_dim=4, w_dim=4, mapping_layers=1, channels={4: 4, 8: 4, 16: 4})
    generator(torch.randn(2, 4)).sum().backward()
    assert not used(generator) and all(p.grad is not None for p in generator.synthesis.parameters())


def test_without_a_compiler(monkeypatch):
    generator, modules = make(margin=8.0)
    build.load.cache_clear()
    fused.native_kernels.cache_clear()
    monkeypatch.setattr(compilers, "find_host_compiler", lambda: None)
    try:
        with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler was found"):
            image, gradient = compare(generator, modules, torch.float32)
        assert image < 1e-5 and gradient < 1e-5
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it warns once
            compare(make(seed=1)[0], modules, torch.float32)
    finally:
        build.load.cache_clear()
        fused.native_kernels.cache_clear()
