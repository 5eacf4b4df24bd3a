"""The work and the memory of the fast path: convolutions, activations that are kept, memory that is reused."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_inv.generators.frozen import native_layer
from tests.generators.frozen_generators import inputs, make


class Counter(TorchDispatchMode):
    """Counts convolutions and convolution gradients."""

    def __init__(self):
        super().__init__()
        self.convolutions = self.gradients = self.weight_gradients = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution.default:
            self.convolutions += 1
        if func is torch.ops.aten.convolution_backward.default:
            self.gradients += 1
            self.weight_gradients += args[-1][1]
        return func(*args, **(kwargs or {}))


def test_counts_of_convolutions(kernels):
    generator, _ = make()
    w = torch.randn(1, generator.num_ws, 6, requires_grad=True)
    generator.synthesis(w)  # the constants
    with Counter() as forward:
        image = generator.synthesis(w)
    with Counter() as backward:
        image.square().sum().backward()
    # b4.conv1 and three blocks; an upsampling layer is four phases and the filter, and backward the filter and one
    # strided convolution; three upsampled images.
    assert forward.convolutions == (0 if kernels == "native" else 4 + 3 * 5 + 3)
    assert backward.convolutions == (0 if kernels == "native" else 4 + 3 * 2 + 3)
    assert backward.gradients == 0
    assert all(p.grad is None for p in generator.parameters())
    # the modules: gradients of activations are convolutions; none of a frozen weight, and one of every trained weight
    generator.synthesis.fused.enabled = False
    with Counter() as frozen:
        generator.synthesis(w).square().sum().backward()
    assert frozen.gradients == frozen.weight_gradients == 0 and frozen.convolutions >= 2 * 7
    generator.requires_grad_(True)
    with Counter() as trained:
        generator.synthesis(w).square().sum().backward()
    assert trained.weight_gradients == 7


def test_one_tensor_is_kept_for_each_layer(kernels):
    generator, _ = make(resolution=64)
    w = torch.randn(2, generator.num_ws, 6, requires_grad=True)
    for recompute in (False, True):
        generator.freeze(recompute=recompute)
        image = generator.synthesis(w)
        kept = image.grad_fn.kept
        sizes = [tuple(x.shape) for x in kept.xs] + ([] if kept.y is None else [tuple(kept.y.shape)])
        outputs = [(2, layer.resolution, layer.resolution, len(layer.bias)) for layer in generator.synthesis.layers()]
        assert sizes == [(1, 4, 4, 5), *outputs[: None if not recompute else -1]]
        image.sum().backward()
        assert image.grad_fn.kept is None  # freed at once, although the image still exists
    plan = image.grad_fn.plan
    assert not plan.keeps(plan.layers[-1], 2) and plan.keeps(plan.layers[-2], 2)
    generator.freeze()
    generator.synthesis(w)
    plan = generator.synthesis.fused._constants[1]
    assert plan.keeps(plan.layers[-1], 1) and not plan.keeps(plan.layers[-1], 2**20)  # by size


MEMORY = """
import ctypes, sys, torch
from stylegan_inv.generators import Generator
generator = Generator(256, mapping_layers=1, w_dim=8, z_dim=8, channel_base=8192, channel_max=32).freeze()
w = torch.randn(2, generator.num_ws, 8, requires_grad=True)
def status(key):
    return next(int(line.split()[1]) for line in open("/proc/self/status") if line.startswith(key))
def peak():
    step()
    generator.synthesis.fused.clear_activations()
    ctypes.CDLL(None).malloc_trim(0)
    open("/proc/self/clear_refs", "w").write("5")
    before = status("VmRSS")
    step()
    return (status("VmHWM") - before) / 1024
def step():
    torch.autograd.grad(generator.synthesis(w).square().sum(), w)
fast = peak()
generator.synthesis.fused.enabled = False
for module in generator.synthesis.modules():
    if "ops" in vars(module):
        module.ops = "ref"  # in plain PyTorch
print(fast, peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory(native):
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    fast, modules = map(float, done.stdout.split())
    # activations: 2 images of 32 channels, each size twice, together 43 MiB; the rest is small
    assert 35 < fast < 60
    assert fast < 0.4 * modules


def test_memory_is_reused_by_the_next_pass(native, monkeypatch):
    """Graphs of several batch sizes that are alive together give the same bits as graphs with memory of their own."""
    monkeypatch.setattr(native_layer, "_LARGE_BYTES", 0)
    generator, _ = make(64)
    fast = generator.synthesis.fused
    codes = [inputs(generator, batch, torch.float32)[0][0] for batch in (2, 2, 3)]

    def taken():
        return [len(layer.spare) for layer in fast._constants[1].layers]

    alone = []
    for w in codes:
        image = generator.synthesis(w)
        alone.append((image.detach().clone(), torch.autograd.grad(image.square().sum(), w)[0]))
        assert set(taken()) == {1}
        fast.clear_activations()
        assert set(taken()) == {0}
    for order in ((0, 1, 2), (2, 1, 0), (1, 2, 0)):
        images = {k: generator.synthesis(codes[k]) for k in order}
        kept = torch.autograd.grad(images[0].square().sum(), codes[0], retain_graph=True)[0]
        found = {k: torch.autograd.grad(images[k].square().sum(), codes[k])[0] for k in order}
        torch.testing.assert_close(kept, alone[0][1], rtol=0, atol=0)
        for k in order:
            torch.testing.assert_close((images[k].detach(), found[k]), alone[k], rtol=0, atol=0)
        assert max(taken()) <= 3


def test_backward_twice(kernels):
    generator, _ = make(resolution=64)
    w = torch.randn(1, generator.num_ws, 6, requires_grad=True)
    image = generator.synthesis(w)
    loss = image.square().sum()
    first = torch.autograd.grad(loss, w, retain_graph=True)[0]
    second = torch.autograd.grad(loss, w)[0]
    assert torch.equal(first, second)
    with pytest.raises(RuntimeError, match="second time"):
        torch.autograd.grad(loss, w)
