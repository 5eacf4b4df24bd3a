"""The fast path of the frozen generator against the modules, which the other tests hold against the references."""

from __future__ import annotations

import copy
import math
import pickle
import subprocess
import sys
import warnings
import weakref

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator
from stylegan_inv.generators.frozen import fused_plan as fused
from stylegan_inv.generators.frozen import native_layer
from stylegan_inv.generators.frozen.frozen_layer import FrozenLayer
from stylegan_inv.generators.frozen.torch_layer import TorchKernels
from stylegan_inv.generators.ops import build, dispatch
from tests import golden

ODD = {4: 5, 8: 20, 16: 17, 32: 9, 64: 3}


@pytest.fixture(scope="module")
def native():
    kernels = native_layer.load()
    if kernels is None:
        pytest.skip("no compiler")
    return kernels


@pytest.fixture(params=["torch", "native"])
def kernels(request, monkeypatch):
    """Run the test with each of the two implementations."""
    chosen = None if request.param == "torch" else request.getfixturevalue("native")
    monkeypatch.setattr(fused, "native_kernels", lambda: chosen)
    return request.param


@pytest.fixture
def threads():
    before = torch.get_num_threads()
    yield torch.set_num_threads
    torch.set_num_threads(before)


def make(resolution=32, seed=0, margin=0.0, **kwargs):
    """A frozen generator and, for comparison, one of the same weights that runs its modules in double precision.

    ``margin`` moves the values before each activation that far from zero, half of the channels to either side: where
    rounding cannot turn a sign, gradients are comparable to the last digits.
    """
    torch.manual_seed(seed)
    table = {r: c for r, c in ODD.items() if r <= resolution}
    table = {**{r: 4 for r in (128, 256) if r <= resolution}, **table}
    generator = Generator(resolution, **{"z_dim": 6, "w_dim": 6, "mapping_layers": 1, "channels": table, **kwargs})
    for layer in generator.synthesis.layers():
        torch.nn.init.normal_(layer.noise_strength, std=0.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
        with torch.no_grad():
            layer.bias += margin * (1 - 2 * (torch.arange(len(layer.bias)) % 2))
    for block in generator.synthesis.blocks():
        torch.nn.init.normal_(block.torgb.bias, std=0.3)
    generator.freeze()
    modules = copy.deepcopy(generator).double()
    modules.synthesis.fused.enabled = False
    return generator, modules


def used(generator):
    return generator.synthesis.fused._constants is not None


def error(got, want):
    return float((got.detach().double() - want.detach()).norm() / want.detach().norm().clamp_min(1e-30))


def inputs(generator, batch, dtype, maps=False):
    """Codes and, if wanted, maps (of one sample or of all), twice: in ``dtype`` and in double precision."""
    w = torch.randn(batch, generator.num_ws, generator.w_dim)
    tensors = [w]
    if maps:
        for i, layer in enumerate(generator.synthesis.layers()):
            tensors.append(torch.randn(batch if i % 2 else 1, 1, layer.resolution, layer.resolution))
    return [[t.to(d).requires_grad_() for t in tensors] for d in (dtype, torch.float64)]


def compare(generator, modules, dtype, batch=2, noise="const"):
    """Errors of the image and of each gradient."""
    given_maps = noise == "maps"
    here, there = inputs(generator, batch, dtype, given_maps)
    image = generator.synthesis(here[0], here[1:] if given_maps else noise)
    want = modules.synthesis(there[0], there[1:] if given_maps else noise)
    assert used(generator) and not used(modules)
    assert image.is_contiguous() and image.dtype == dtype
    probe = torch.randn_like(want)
    got_gradients = torch.autograd.grad((image * probe.to(dtype)).sum(), here)
    gradients = torch.autograd.grad((want * probe).sum(), there)
    assert [g.shape for g in got_gradients] == [g.shape for g in gradients]
    return error(image, want), max(error(g, w) for g, w in zip(got_gradients, gradients, strict=True))


@pytest.mark.parametrize("noise", ["const", "none", "maps"])
@pytest.mark.parametrize(
    "options",
    [
        {},
        {"conv_clamp": 0.8},
        {"img_channels": 1},
        {"img_channels": 5, "resolution": 8},
        {"resolution": 4},
        {"demod_eps_scaled": False},
    ],
)
def test_formulas_in_double_precision(options, noise):
    generator, modules = make(**options)
    image, gradient = compare(generator.double(), modules, torch.float64, noise=noise)
    assert image < 1e-13 and gradient < 1e-12


@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("noise", ["const", "none", "maps"])
@pytest.mark.parametrize(
    "options",
    [
        {"resolution": 64},
        {"img_channels": 1},
        {"img_channels": 4, "resolution": 8},
        {"img_channels": 5, "resolution": 8},
        {"resolution": 4},
    ],
)
def test_single_precision(kernels, options, noise, recompute):
    generator, modules = make(margin=8.0, **options)
    generator.freeze(recompute=recompute)
    image, gradient = compare(generator, modules, torch.float32, noise=noise)
    assert image < 1e-5 and gradient < 1e-5


@pytest.mark.parametrize("noise", ["const", "maps"])
def test_clamped_and_with_kinks(kernels, noise):
    generator, modules = make(resolution=64, conv_clamp=0.8)
    image, gradient = compare(generator, modules, torch.float32, noise=noise)
    assert image < 1e-5 and gradient < 1e-2  # rounding turns a sign here and there, see the golden numbers


@pytest.mark.parametrize("count", [2, 3])
@pytest.mark.parametrize("recompute", [False, True])
@pytest.mark.parametrize("few", [0, 1 << 20], ids=["winograd", "direct"])
def test_threads_share_one_image(native, threads, monkeypatch, count, recompute, few):
    monkeypatch.setattr(fused, "native_kernels", lambda: native)
    monkeypatch.setattr(native_layer, "_MANY_CHANNELS", few)  # of the layers that upsample
    generator, modules = make(resolution=128, margin=8.0)
    generator.freeze(recompute=recompute)
    threads(count)
    for batch in (1, 3):
        image, gradient = compare(generator, modules, torch.float32, batch=batch, noise="maps")
        assert image < 1e-5 and gradient < 1e-5
    w = torch.randn(1, generator.num_ws, generator.w_dim, requires_grad=True)
    first, second = (torch.autograd.grad(generator.synthesis(w).sum(), w)[0] for _ in range(2))
    assert torch.equal(first, second)  # who computes what is fixed


def layer_errors(native, up, size, channels, batch=2, colours=3, last=False, shared=True, seed=0):
    """Relative errors of all that the two passes of one layer make, against double precision."""
    torch.manual_seed(seed)
    into, out = channels

    def layer(i, o, factor, r, k):
        weight = torch.randn(o, i, 3, 3, dtype=torch.float64)
        colour = torch.randn(k, o, dtype=torch.float64) if k else None
        squares, bias = weight.square().sum((2, 3)), torch.randn(o, dtype=torch.float64)
        return FrozenLayer(factor, r, weight, squares, 1e-8, bias, 0.3, 4.0, colour)

    def single(item):
        values = {k: v.float() if torch.is_tensor(v) else v for k, v in vars(item).items()}
        return FrozenLayer(**{**values, "prepared": {}})

    r = size * up
    here, before = layer(into, out, up, r, colours), layer(into, into, 1, size, 3)
    style = torch.randn(batch, into, dtype=torch.float64)
    colour_style = torch.randn(batch, out, dtype=torch.float64) if colours else None
    noise = torch.randn(1 if shared else batch, 1, r, r, dtype=torch.float64)
    x = torch.randn(batch, size, size, into, dtype=torch.float64)
    own, previous = (
        here.epilogue(style, noise, colour_style),
        before.epilogue(style, None, torch.randn(batch, into, dtype=torch.float64)),
    )
    previous.grad_rgb = torch.randn(batch, 3, size, size, dtype=torch.float64)
    last = last and up == 1 and colours > 0
    if last:
        own.grad_rgb = torch.randn(batch, colours, r, r, dtype=torch.float64)
    grad = None if last else torch.randn(batch, r, r, out, dtype=torch.float64)
    own.wants_noise = last
    previous.wants_noise = True

    def passes(kernels, to):
        def epilogue(of, item):
            values = {k: v.to(to) if torch.is_tensor(v) else v for k, v in vars(item).items()}
            return type(item)(**{**values, "layer": of})

        lay, bef = (here, before) if to == torch.float64 else (single(here), single(before))
        e, b = epilogue(lay, own), epilogue(bef, previous)
        y, rgb = kernels.forward(lay, x.to(to), style.to(to), e, keep=True)
        # the one implementation continues from the activation of the other, so that no sign differs
        y = y if to == torch.float64 else want[0].to(to)
        through, grad_style = kernels.backward(
            lay, x.to(to), style.to(to), e, y, None if last else grad.to(to), b, reuse=False
        )
        return [y, rgb, through, grad_style, e.sums if last else None, e.grad_noise, b.sums, b.grad_noise]

    want = passes(TorchKernels(), torch.float64)
    got = passes(native, torch.float32)
    assert [value is None for value in got] == [wanted is None for wanted in want]
    return [error(value, wanted) for value, wanted in zip(got, want, strict=True) if value is not None]


@settings(max_examples=25, deadline=None)
@given(
    up=st.sampled_from([1, 2]),
    size=st.sampled_from([4, 8, 16, 32]),
    channels=st.tuples(st.integers(1, 40), st.integers(1, 40)),
    batch=st.integers(1, 3),
    colours=st.integers(0, 4),
    last=st.booleans(),
    shared=st.booleans(),
    few=st.sampled_from([0, 1 << 20]),
    seed=st.integers(0, 99),
)
def test_native_layer_equals_plain_one(native, up, size, channels, batch, colours, last, shared, few, seed):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(native_layer, "_MANY_CHANNELS", few)
        errors = layer_errors(native, up, size, channels, batch, colours, last, shared, seed)
    assert max(errors) < 1e-5


def spied_kinds(native, monkeypatch):
    """The passes that run from now on, each with the kind of its layer."""
    seen = []
    for name in ("frozen_forward", "frozen_backward"):
        run = getattr(native.library, name)

        def spy(call, run=run, name=name):
            seen.append((name, call._obj.kind))
            run(call)

        monkeypatch.setattr(native.library, name, spy)
    return seen


@pytest.mark.parametrize(
    ("size", "channels", "batch", "count"),
    [
        (32, (20, 33), 1, 1),
        (64, (7, 5), 3, 1),  # more rows of tiles than a band has
        (64, (9, 18), 1, 2),  # a border between ranges
        (64, (3, 34), 2, 3),  # ranges of unequal size, and inner ones
        (8, (17, 16), 1, 4),  # one image worked on by all threads
        (8, (512, 512), 1, 1),  # a weight that is transposed panel by panel
        (8, (400, 250), 2, 2),
    ],
)
def test_upsampling_by_winograd(native, threads, monkeypatch, size, channels, batch, count):
    threads(count)
    monkeypatch.setattr(native_layer, "_kind", lambda layer: native_layer._UP_WINOGRAD)
    kinds = spied_kinds(native, monkeypatch)
    fast = layer_errors(native, 2, size, channels, batch)
    assert kinds == [("frozen_forward", native_layer._UP_WINOGRAD), ("frozen_backward", native_layer._UP_WINOGRAD)]
    monkeypatch.setattr(native_layer, "_kind", lambda layer: native_layer._UP)
    direct = layer_errors(native, 2, size, channels, batch)
    assert max(direct) < 2e-6
    assert max(fast) < 4e-6


def test_layers_that_run_by_winograd(native, monkeypatch):
    monkeypatch.setattr(fused, "native_kernels", lambda: native)
    generator, _ = make(resolution=64, channels={4: 8, 8: 256, 16: 64, 32: 128, 64: 16})
    kinds = spied_kinds(native, monkeypatch)
    w = torch.randn(1, generator.num_ws, generator.w_dim, requires_grad=True)
    generator.synthesis(w).sum().backward()
    conv, winograd, up, up_winograd = range(4)
    forward = [conv, up, conv, up_winograd, winograd, up_winograd, winograd, up, winograd]
    assert [kind for name, kind in kinds if name == "frozen_forward"] == forward
    assert [kind for name, kind in kinds if name == "frozen_backward"] == forward[::-1]


def test_random_noise_draws_as_the_modules_do(kernels):
    generator, modules = make()
    w = torch.randn(2, generator.num_ws, 6)
    generator.synthesis(w)
    modules.float()
    torch.manual_seed(3)
    got = generator.synthesis(w, noise="random")
    torch.manual_seed(3)
    torch.testing.assert_close(got, modules.synthesis(w, noise="random"), rtol=1e-4, atol=1e-5)


class Counter(TorchDispatchMode):
    """Counts convolutions, and those among them that are gradients."""

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
    # the modules: no gradient of a frozen weight, and one of every trained weight
    generator.synthesis.fused.enabled = False
    with Counter() as frozen:
        generator.synthesis(w).square().sum().backward()
    assert frozen.gradients == 7 and frozen.weight_gradients == 0
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
        assert image.grad_fn.kept is None  # given back at once, though the image is still there
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
print(fast, peak())
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_peak_memory(native):
    done = subprocess.run([sys.executable, "-c", MEMORY], capture_output=True, text=True, check=True)
    fast, modules = map(float, done.stdout.split())
    # activations: 2 images of 32 channels, each size twice, together 43 MiB, and next to nothing beside them
    assert 35 < fast < 60
    assert fast < 0.4 * modules


def test_memory_of_one_pass_serves_the_next(native, monkeypatch):
    """Whatever graphs are alive together, and whatever their batch: bit for bit as with memory of their own."""
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


def test_gradients_for_some_inputs(kernels):
    """Whatever is asked for is the same as when everything is asked for."""
    generator, _ = make(margin=8.0)
    layers = generator.synthesis.layers()
    w = torch.randn(2, generator.num_ws, 6)
    maps = [m.clone() for m in generator.synthesis.noise_maps()]
    everything = [w.requires_grad_(), *(m.requires_grad_() for m in maps)]
    want = torch.autograd.grad(generator.synthesis(w, maps).square().sum(), everything)
    for k in (0, 3, len(layers) - 1):
        own = [m.detach().requires_grad_(i == k) for i, m in enumerate(maps)]
        (got,) = torch.autograd.grad(generator.synthesis(w.detach(), own).square().sum(), own[k])
        torch.testing.assert_close(got, want[1 + k], rtol=1e-4, atol=1e-4)
    for row in range(generator.num_ws):
        rows = [r.detach().requires_grad_(i == row) for i, r in enumerate(w.unbind(1))]
        (got,) = torch.autograd.grad(generator.synthesis(torch.stack(rows, 1), maps).square().sum(), rows[row])
        torch.testing.assert_close(got, want[0][:, row], rtol=1e-4, atol=1e-3)


def test_second_derivatives(kernels):
    generator, modules = make(resolution=8, channels={4: 2, 8: 3})
    double = copy.deepcopy(generator).double()
    w = torch.randn(1, 4, 6, dtype=torch.float64, requires_grad=True)
    assert gradcheck(double.synthesis, w)
    assert gradgradcheck(lambda w: double.synthesis(w).square().sum(), w)
    assert used(double)

    def penalty(network, w):
        (g,) = torch.autograd.grad(network.synthesis(w).square().sum(), w, create_graph=True)
        return torch.autograd.grad(g.square().sum(), w)[0]

    single = w.detach().float().requires_grad_()
    assert error(penalty(generator, single), penalty(modules, w)) < 1e-4
    assert used(generator)
    hessian = torch.autograd.functional.hessian(
        lambda w: double.synthesis(w).square().sum(), w.detach(), vectorize=True
    )
    plain = torch.autograd.functional.hessian(lambda w: modules.synthesis(w).square().sum(), w.detach())
    torch.testing.assert_close(hessian, plain)


def test_batched_and_functional_gradients(kernels):
    generator, _ = make(resolution=8, channels={4: 2, 8: 3}, margin=8.0)
    w = torch.randn(1, 4, 6, requires_grad=True)
    image = generator.synthesis(w).mean(dim=(2, 3))
    (rows,) = torch.autograd.grad(image, w, torch.eye(3)[:, None], is_grads_batched=True)
    jacobian = torch.func.jacrev(lambda w: generator.synthesis(w).mean(dim=(2, 3)))(w.detach())
    torch.testing.assert_close(rows, jacobian[0], rtol=1e-4, atol=1e-5)
    several = torch.randn(3, 1, 4, 6)
    mapped = torch.func.vmap(generator.synthesis)(several)
    torch.testing.assert_close(mapped[:, 0], generator.synthesis(several[:, 0]), rtol=1e-4, atol=1e-4)


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
    with torch.inference_mode():  # the constants made here are good for training afterwards
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
    # tuned as by PTI: through the modules while a single weight trains, fast again afterwards
    weight = generator.synthesis.b16.conv0.weight.requires_grad_()
    generator.synthesis(w).sum().backward()
    assert weight.grad.abs().sum() > 0
    torch.optim.SGD([weight], lr=0.01).step()
    weight.requires_grad_(False)
    check()


def test_copies_carry_the_switch_and_not_the_constants(kernels):
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
    assert [g() for g in gone] == [None, None]  # no cycles: the memory is free at once
    generator.to("meta")
    assert not used(generator)


def test_who_wants_to_see_the_modules_gets_them(kernels, monkeypatch):
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


def test_a_generator_that_trains_keeps_to_its_modules():
    generator = Generator(16, z_dim=4, w_dim=4, mapping_layers=1, channels={4: 4, 8: 4, 16: 4})
    generator(torch.randn(2, 4)).sum().backward()
    assert not used(generator) and all(p.grad is not None for p in generator.synthesis.parameters())


def test_without_a_compiler(monkeypatch):
    generator, modules = make(margin=8.0)
    build.load.cache_clear()
    fused.native_kernels.cache_clear()
    monkeypatch.setattr(build, "find_host_compiler", lambda: None)
    try:
        with pytest.warns(RuntimeWarning, match="no C\\+\\+ compiler was found"):
            image, gradient = compare(generator, modules, torch.float32)
        assert image < 1e-5 and gradient < 1e-5
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # it is said once
            compare(make(seed=1)[0], modules, torch.float32)
    finally:
        build.load.cache_clear()
        fused.native_kernels.cache_clear()


def test_bfloat16_from_64_pixels_on(kernels):
    torch.manual_seed(0)
    generator = Generator(
        128, z_dim=16, w_dim=16, mapping_layers=1, channels=dict.fromkeys((4, 8, 16, 32, 64, 128), 24)
    )
    generator.freeze()
    w = torch.randn(2, generator.num_ws, 16, requires_grad=True)
    want = generator.synthesis(w)
    (gradient,) = torch.autograd.grad(want.square().mean(), w)
    generator.freeze(dtype=torch.bfloat16)
    image = generator.synthesis(w)
    assert image.dtype == torch.float32
    kept = image.grad_fn.kept
    assert [x.dtype for x in kept.xs] == [torch.float32] * 8 + [torch.bfloat16] * 3
    noise, span = (image - want).detach().square().mean(), want.detach().max() - want.detach().min()
    assert 10 * torch.log10(span.square() / noise) > 60
    (got,) = torch.autograd.grad(image.square().mean(), w)
    assert torch.cosine_similarity(got.flatten(), gradient.flatten(), dim=0) > 0.995
    with pytest.raises(UserError, match="float32 or bfloat16"):
        generator.freeze(dtype=torch.float16)


def test_not_a_number_is_not_hidden(kernels):
    generator, _ = make(conv_clamp=2.0)
    w = torch.randn(1, generator.num_ws, 6)
    w[0, 2] = math.nan
    assert generator.synthesis(w).isnan().all()


@golden.needs_golden
@pytest.mark.parametrize(("name", "keys"), [("ros_g64_cm2", "rosinality_g64_cm2"), ("nv_g64_m8", "nvidia_g64_m8")])
def test_golden_numbers_in_single_precision(kernels, name, keys, tmp_path):
    ours = name.startswith("ros")
    state = golden.reference_state(keys)
    average = golden.tensor(name, "latent_avg").float() if ours else None
    torch.save({"g_ema": state, "latent_avg": average} if ours else state, tmp_path / "generator.pt")
    generator = load_generator(tmp_path / "generator.pt")
    w = golden.tensor(name, "w_plus" if ours else "ws").float().requires_grad_()
    maps = [m.clone().requires_grad_() for m in generator.synthesis.noise_maps()]
    image = generator.synthesis(w, maps)
    assert used(generator)
    golden.check(name, "image" if ours else "image_const", image, "f32")
    probe = golden.tensor(name, "probe").float()
    gradient, *map_gradients = torch.autograd.grad((image * probe).sum(), [w, *maps])
    golden.check(name, "grad_w_plus" if ours else "grad_ws", gradient, "f32")
    wanted = golden.entry(name)["outputs"]
    for i, value in enumerate(map_gradients):
        if f"grad_noise_{i}" in wanted:
            golden.check(name, f"grad_noise_{i}", value, "f32")
    if ours and "image_zero_noise" in wanted:
        golden.check(name, "image_zero_noise", generator.synthesis(w, noise="none"), "f32")
