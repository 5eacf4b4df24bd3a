"""The operations as operators of torch.library, on the CPU: registration, derivatives, compilation, selection.

The operators' kernels are the business of test_cuda_kernels.py; here they run their plain implementations.
"""

from __future__ import annotations

import collections
import itertools
import subprocess
import sys

import pytest
import torch
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, ops
from stylegan_inv.generators.ops import dispatch, fused_layer, setup_filter

OPERATORS = torch.ops.stylegan_inv


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def leaf(*shape, dtype=torch.float32):
    return torch.randn(*shape, dtype=dtype, requires_grad=True)


def small(**kwargs) -> Generator:
    generator = Generator(16, z_dim=5, w_dim=7, mapping_layers=2, channels={4: 8, 8: 6, 16: 4}, **kwargs)
    for layer in generator.synthesis.layers():
        torch.nn.init.normal_(layer.noise_strength, std=0.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
    return generator


F4, F2D = torch.tensor([1.0, -2.0, 3.0, 0.5]), torch.tensor([[1.0, 2.0, -1.0], [0.5, 3.0, 2.5]])
CALLS = {
    "upfirdn2d": lambda: (leaf(2, 4, 5, 7), F4, (2, 2), (1, 1), (2, 1, 2, 1), False, 4.0, leaf(2, 4, 10, 14)),
    "upfirdn2d-2d": lambda: (leaf(2, 4, 5, 7), F2D, (1, 2), (3, 1), (3, -1, 0, 2), True, 1.0, None),
    "upfirdn2d-long": lambda: (leaf(1, 3, 9, 9), torch.ones(6), (1, 1), (2, 2), (2, 2, 2, 2), False, 1.0, None),
    "bias_act": lambda: (leaf(2, 4, 6, 6), leaf(4), leaf(2, 4).abs() + 0.3, leaf(1, 1, 5, 5), F4, 4.0, 0.2, 1.4, 1.0),
    "bias_act-bare": lambda: (leaf(2, 4, 6, 6), None, None, None, None, 1.0, 0.2, 1.4, None),
    "bias_act_backward": lambda: (
        *(torch.randn(*shape) for shape in ((2, 4, 5, 5), (2, 4, 5, 5), (4,), (2, 4), (2, 1, 5, 5))),
        *(F4, 4.0, 0.2, 1.4, 1.0),
    ),
    "modulate": lambda: (leaf(2, 4, 5, 6), leaf(2, 4)),
    "modulate_backward": lambda: (torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6), torch.randn(2, 4)),
}


LAYOUTS = [torch.contiguous_format, torch.channels_last]


@pytest.mark.parametrize(("call", "layout"), [*zip(CALLS, itertools.cycle(LAYOUTS), strict=False)], ids=str)
def test_opcheck(call, layout):
    arguments = tuple(
        a.detach().contiguous(memory_format=layout).requires_grad_(a.requires_grad)
        if isinstance(a, torch.Tensor) and a.ndim == 4
        else a
        for a in CALLS[call]()
    )
    torch.library.opcheck(getattr(OPERATORS, call.split("-")[0]).default, arguments)


@pytest.mark.parametrize("call", ["upfirdn2d", "upfirdn2d-2d", "bias_act", "modulate"])
def test_first_and_second_derivatives(call):
    arguments = [a.detach().double() if isinstance(a, torch.Tensor) else a for a in CALLS[call]()]
    wanted = {"bias_act": (0, 1, 2, 3), "modulate": (0, 1)}.get(call, (0, 7) if call == "upfirdn2d" else (0,))
    inputs = [arguments[i].clone().requires_grad_() for i in wanted]

    def function(*values):
        given = list(arguments)
        for i, value in zip(wanted, values, strict=True):
            given[i] = value
        return getattr(OPERATORS, call.split("-")[0])(*given)

    assert gradcheck(function, inputs, fast_mode=True)
    assert gradgradcheck(lambda *v: function(*v).square(), inputs, fast_mode=True)


@pytest.mark.parametrize("noise", [None, "shared", "each"])
@pytest.mark.parametrize("clamp", [None, 0.9])
@pytest.mark.parametrize("up", [1, 2])
def test_fused_layer_equals_the_plain_one(up, clamp, noise):
    """Compares values, gradients of all inputs, and gradients of their squares."""
    x, weight = leaf(2, 4, 5, 6, dtype=torch.float64), leaf(3, 4, 3, 3, dtype=torch.float64)
    styles, bias = leaf(2, 4, dtype=torch.float64), leaf(3, dtype=torch.float64)
    inputs = [x, weight, styles, bias]
    if noise is not None:
        inputs.append(leaf(1 if noise == "shared" else 2, 1, 5 * up, 6 * up, dtype=torch.float64))

    def results(impl):
        maps = inputs[4] if noise is not None else None
        kwargs = {"noise": maps, "up": up, "resample_filter": setup_filter(), "clamp": clamp, "impl": impl}
        y = ops.styled_conv2d(x, weight, styles, bias, **kwargs)
        once = torch.autograd.grad(y.square().sum(), inputs, retain_graph=True)  # fused
        first = torch.autograd.grad(y.square().sum(), inputs, create_graph=True)  # differentiable
        second = torch.autograd.grad(sum(g.square().sum() for g in first), inputs)
        return [y, *once, *first, *second]

    assert fused_layer.covers(x, weight, inputs[4] if noise else None, up, setup_filter())
    for got, want in zip(results("fast"), results("ref"), strict=True):
        torch.testing.assert_close(got, want)


def test_layers_that_the_fused_one_does_not_support():
    x, weight, styles, bias = torch.randn(2, 4, 5, 6), torch.randn(3, 4, 3, 3), torch.randn(2, 4), torch.randn(3)
    long = setup_filter([1, 2, 3, 4, 5, 6])
    for kwargs in (
        {"noise": torch.randn(2, 3, 5, 6)},
        {"noise": torch.randn(())},
        {"slope": -0.1},
        {"up": 2, "resample_filter": long},
        {"up": 2, "resample_filter": torch.outer(*[setup_filter()] * 2)},
    ):
        got, want = (ops.styled_conv2d(x, weight, styles, bias, impl=impl, **kwargs) for impl in ("fast", "ref"))
        torch.testing.assert_close(got, want)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_sixteen_bits_and_large_styles(dtype):
    """The products exceed the range of float16, but the layer normalises them."""
    x, weight = torch.randn(2, 64, 8, 8) * 50, torch.randn(8, 64, 3, 3)
    styles, bias = (torch.randn(2, 64) * 100).requires_grad_(), torch.randn(8)
    want = ops.styled_conv2d(x, weight, styles, bias, impl="ref")
    got = ops.styled_conv2d(x.to(dtype), weight, styles, bias, impl="fast")
    assert got.dtype == dtype and got.isfinite().all()
    assert (got.float() - want).norm() < 1e-2 * want.norm()
    a, b = (torch.autograd.grad(y.float().mean(), styles)[0] for y in (got, want))
    assert (a - b).norm() < 0.2 * b.norm()


def test_resampling_with_an_image_added():
    x, add, f = torch.randn(2, 3, 4, 5), torch.randn(2, 3, 8, 10), setup_filter()
    want = ops.upsample2d(x, f) + add
    torch.testing.assert_close(ops.upsample2d(x, f, add=add), want)
    torch.testing.assert_close(ops.upsample2d(x, f, add=add, impl="fast"), want)
    other = add[:, :1].double()  # broadcast, and of another type
    torch.testing.assert_close(ops.upsample2d(x, f, add=other, impl="fast"), want - add + other)
    torch.testing.assert_close(ops.upsample2d(x, f, impl="fast"), want - add)


def test_identity_returns_its_input():
    x = torch.randn(2, 3)
    assert ops.bias_act(x, impl="fast") is x and ops.bias_act(x, impl="ref") is x


@pytest.mark.parametrize("act", ["linear", "relu", "lrelu", "swish"])
@pytest.mark.parametrize("shape", [(3, 4), (3, 4, 2, 5), (3, 4, 6)], ids=str)
def test_bias_act_selects_a_supported_implementation(act, shape):
    x, b = leaf(*shape), leaf(4)
    for bias in (b, None):
        got, want = (ops.bias_act(x, bias, act=act, clamp=1.1, impl=impl) for impl in ("fast", "ref"))
        torch.testing.assert_close(got, want)
        (a,), (b_,) = (torch.autograd.grad(y.square().sum(), x) for y in (got, want))
        torch.testing.assert_close(a, b_)


def test_the_whole_network_compiles_in_one_graph():
    generator = small(ops="fast", conv_clamp=3.0).requires_grad_(False)
    w = leaf(2, 6, 7)
    compiled = torch.compile(lambda w: generator.synthesis(w), fullgraph=True, backend="aot_eager")
    got, want = compiled(w), generator.synthesis(w)
    torch.testing.assert_close(got, want)
    (a,), (b,) = (torch.autograd.grad(y.square().sum(), w) for y in (got, want))
    torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-3)


@pytest.mark.filterwarnings("ignore:There is a performance drop")
def test_vmap():
    x, s = torch.randn(3, 2, 4, 5, 6), torch.randn(3, 2, 4)
    got = torch.vmap(lambda x, s: OPERATORS.modulate(x, s))(x, s)
    torch.testing.assert_close(got, x * s[..., None, None])
    got = torch.vmap(lambda x: ops.upsample2d(x, setup_filter(), impl="fast"))(x)
    torch.testing.assert_close(got, torch.stack([ops.upsample2d(v, setup_filter()) for v in x]))


def test_functional_transforms_differentiate():
    generator = small(ops="fast").requires_grad_(False)
    w = torch.randn(2, 6, 7)
    got = torch.func.grad(lambda w: generator.synthesis(w).square().sum())(w)
    w.requires_grad_()
    (want,) = torch.autograd.grad(generator.synthesis(w).square().sum(), w)
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


def test_autocast_keeps_activations_small_and_the_image_exact():
    generator = small(ops="fast")
    seen = []
    for layer in generator.synthesis.layers():
        layer.register_forward_hook(lambda _, __, y: seen.append(y.dtype))
    w = leaf(2, 6, 7)
    want = generator.synthesis(w)
    seen.clear()
    with torch.autocast("cpu", torch.bfloat16):
        got = generator.synthesis(w)
    assert set(seen) == {torch.bfloat16} and got.dtype == torch.float32
    assert (got - want).norm() < 0.02 * want.norm()
    got.square().sum().backward()
    assert all(p.grad is not None and p.grad.dtype == torch.float32 for p in generator.synthesis.parameters())


class WeightGradients(TorchDispatchMode):
    """Counts the convolutions that compute the gradient of a weight."""

    count = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.count += bool(args[-1][1])
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize("impl", ["fast", "ref"])
def test_frozen_weights_cost_no_gradients(impl):
    for frozen, expected in ((True, 0), (False, 5)):
        generator = small(ops=impl)
        generator.requires_grad_(not frozen)
        image = generator.synthesis(leaf(2, 6, 7))
        with WeightGradients() as counter:
            image.sum().backward()
        assert counter.count == expected


def test_memory_of_a_layer_is_its_output():
    """Autograd saves the input of a frozen layer, which is the previous output, and its output."""
    x, weight = leaf(2, 4, 8, 8), torch.randn(4, 4, 3, 3)
    kept = {}

    def pack(t):
        kept[t.untyped_storage().data_ptr()] = t.numel()
        return t

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda t: t):
        y = ops.styled_conv2d(x, weight, leaf(2, 4), torch.zeros(4), impl="fast")
    images = [pointer for pointer, size in kept.items() if size >= x.numel()]
    assert sorted(images) == sorted({x.untyped_storage().data_ptr(), y.untyped_storage().data_ptr()})


def test_a_gpu_runs_the_operators():
    """Traces a synthesis with fake tensors on a GPU and lists its operators."""
    with FakeTensorMode(), torch.device("cuda"):
        generator = small()  # ops="auto"
        with Launches() as launches:
            image = generator.synthesis(torch.randn(2, 6, 7))
    assert image.device.type == "cuda" and image.shape == (2, 3, 16, 16)
    ours = {name.split(".")[1]: n for name, n in launches.counts.items() if name.startswith("stylegan_inv")}
    # 5 layers; 3 colour images, of which 2 are added to one that was enlarged
    assert ours == {"modulate": 5, "bias_act": 5 + 3, "upfirdn2d": 2}
    assert launches.counts["aten.convolution.default"] == 5
    assert not any("leaky_relu" in name or "clamp" in name for name in launches.counts)


class Launches(TorchDispatchMode):
    """Counts calls by name."""

    def __init__(self):
        super().__init__()
        self.counts = collections.Counter()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        self.counts[str(func)] += 1
        return func(*args, **(kwargs or {}))


def test_selection():
    x = torch.zeros(1)
    assert [dispatch.resolve(impl, x) for impl in dispatch.IMPLEMENTATIONS] == ["ref", "fast", "ref"]

    class OnGPU:
        is_cuda = True

        def __init__(self, dtype):
            self.dtype = dtype

    assert dispatch.resolve("auto", OnGPU(torch.bfloat16)) == "fast"
    assert dispatch.resolve("auto", OnGPU(torch.float64)) == "ref"
    assert dispatch.resolve("ref", OnGPU(torch.float32)) == "ref"


def test_environment_variable(monkeypatch):
    code = "import torch; from stylegan_inv.generators.ops import dispatch\n"
    code += "print(dispatch.resolve('auto', torch.zeros(1)))"
    monkeypatch.setenv("STYLEGAN_INV_OPS", "fast")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "fast"
    monkeypatch.setattr(dispatch, "_AUTO", "gpu")  # what the import had read
    with pytest.raises(UserError, match="'gpu' of the generator's operations in STYLEGAN_INV_OPS"):
        dispatch.resolve("auto", torch.zeros(1))
