"""The CUDA kernels against plain PyTorch in double precision: on a GPU, and thread by thread on the CPU.

Without a GPU the same sources run through ``cuda_on_cpu.h``, called by the same Python code. That covers what threads
read, compute and write; not what only the hardware has (races between blocks, which write apart; speed).
"""

from __future__ import annotations

import ctypes
import itertools
import platform
from pathlib import Path

import pytest
import torch

from stylegan_inv.generators import Generator
from stylegan_inv.generators.ops import build, compilers, cuda, layer_operators, resampling_operator, setup_filter

HERE = Path(__file__).parent
OPERATORS = ("upfirdn2d", "bias_act", "bias_act_backward", "modulate", "modulate_backward")
FUNCTIONS = {**vars(resampling_operator), **vars(layer_operators)}
TOLERANCE = {torch.float32: 3e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
LAYOUTS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}


@pytest.fixture(scope="module")
def emulator(tmp_path_factory):
    if platform.machine() != "x86_64" or compilers.find_host_compiler() is None or compilers.find_ninja() is None:
        pytest.skip("the emulation needs an x86 processor, a C++ compiler and ninja")
    folder = tmp_path_factory.mktemp("emulator")
    for source in (build.SOURCES / "cuda").glob("*.cu"):
        text = f'// flags: -O1 -Wno-unknown-pragmas -I{HERE}\n#include "{source}"\n'
        (folder / f"{source.stem}.cpp").write_text(text)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("STYLEGAN_INV_CACHE", str(folder))
        return cuda.declare(ctypes.CDLL(str(build.build("cpu", sources=folder))))


@pytest.fixture(params=["emulated", "gpu"])
def device(request, monkeypatch):
    """The device on which the kernels run, for all operators."""
    if request.param == "gpu":
        if not torch.cuda.is_available():
            pytest.skip("no GPU: the kernels ran on the CPU only")
        monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)  # the convolutions between the kernels
        yield torch.device("cuda")
        return
    kernels = request.getfixturevalue("emulator")
    monkeypatch.setattr(cuda, "_library", lambda device: kernels)
    monkeypatch.setattr(cuda, "_launch", lambda function, arguments, device: function(*arguments, None))
    override = torch.library.Library("stylegan_inv", "IMPL")
    for name in OPERATORS:
        override.impl(name, FUNCTIONS[f"_{name}_kernels"], "CPU")
    yield torch.device("cpu")
    override._destroy()


def plain(name, *arguments):
    """Runs the operator's plain implementation in double precision."""
    wide = [a.double().cpu() if isinstance(a, torch.Tensor) else a for a in arguments]
    return FUNCTIONS[f"_{name}"](*wide)


def kernels(name, *arguments):
    assert cuda.available(arguments[0]), "the test would compare PyTorch with itself"
    return FUNCTIONS[f"_{name}_kernels"](*arguments)


def compare(got, want, dtype, layout=None):
    assert got.dtype == dtype and got.shape == want.shape
    error = (got.cpu().double() - want).abs().max() / want.abs().max().clamp_min(1e-30)
    assert error <= TOLERANCE[dtype], f"{error:.1e}"
    if layout is not None:
        assert got.is_contiguous(memory_format=layout)


def image(*shape, dtype=torch.float32, layout=torch.contiguous_format, device="cpu"):
    return torch.randn(shape).to(device, dtype).contiguous(memory_format=layout)


@pytest.fixture(autouse=True)
def seed():
    torch.manual_seed(0)


def strips(monkeypatch, rows):
    """Sets the largest number of rows of a strip: small images get 2, large ones 16."""
    monkeypatch.setattr(cuda, "_ROWS", rows)
    monkeypatch.setattr(cuda, "_BLOCKS", 1)


FACTORS = [((1, 1), (1, 1)), ((2, 2), (1, 1)), ((1, 1), (2, 2)), ((2, 1), (1, 3)), ((3, 2), (2, 3))]
PADDINGS = [(1, 1, 1, 1), (2, 1, 2, 1), (0, 3, 5, 2), (4, -1, -2, 6)]
FILTERS = {
    "4-taps": torch.tensor([1.0, -2.0, 3.0, 0.5]),
    "5-taps": torch.tensor([1.0, -2.0, 3.0, 0.5, 4.0]),
    "dense": torch.tensor([[1.0, 2.0, -1.0], [0.5, 3.0, 2.5]]),
}


@pytest.mark.parametrize("f", FILTERS.values(), ids=FILTERS.keys())
@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_upfirdn2d(device, monkeypatch, factors, f):
    up, down = factors
    f = f.to(device)
    rows = itertools.cycle([2, 16, 3])
    sizes = itertools.cycle([(2, 8, 5, 7), (1, 3, 9, 4), (3, 4, 4, 19), (1, 260, 6, 5), (1, 4, 6, 6)])
    dtypes = itertools.cycle(TOLERANCE)
    for padding, layout, flip in itertools.product(PADDINGS, LAYOUTS.values(), (False, True)):
        dtype, size = next(dtypes), next(sizes)
        strips(monkeypatch, next(rows))
        x = image(*size, dtype=dtype, layout=layout, device=device)
        y = kernels("upfirdn2d", x, f, up, down, padding, flip, 1.5, None)
        compare(y, plain("upfirdn2d", x, f, up, down, padding, flip, 1.5, None), dtype, cuda.layout(x))
        add = image(*y.shape, dtype=dtype, layout=layout, device=device)
        y = kernels("upfirdn2d", x, f, up, down, padding, flip, 1.5, add)
        compare(y, plain("upfirdn2d", x, f, up, down, padding, flip, 1.5, add), dtype)


@pytest.mark.parametrize("factors", FACTORS, ids=str)
def test_upfirdn2d_backward_is_its_adjoint(device, factors):
    up, down = factors
    for padding, f in itertools.product(PADDINGS, FILTERS.values()):
        x = image(1, 4, 7, 6, device=device, layout=torch.channels_last).requires_grad_()
        y = torch.ops.stylegan_inv.upfirdn2d(x, f.to(device), up, down, padding, False, 1.5, None)
        g = image(*y.shape, device=device)
        (dx,) = torch.autograd.grad(y, x, g)
        torch.testing.assert_close((dx * x).sum(), (y * g).sum(), rtol=1e-5, atol=1e-4)


def test_other_strides(device):
    f = setup_filter().to(device)
    big = image(3, 9, 12, 14, device=device)
    last = image(3, 12, 12, 14, layout=torch.channels_last, device=device)
    for x in (
        big[:, 1::2, ::3, 2:-1],
        big.transpose(2, 3),
        last[:, 1:9],  # four channels are not aligned
        last[:, 4:12, ::2],
        big[:1].expand(2, -1, -1, -1),
        image(2, 4, 1, 1, device=device).expand(-1, -1, 5, 6),
        last.flatten()[2 : 2 + 2 * 4 * 5 * 5].view(2, 5, 5, 4).permute(0, 3, 1, 2),  # nor is the first pixel
    ):
        for up in (1, 2):
            arguments = (f, (up, up), (1, 1), (2, 1, 2, 1), False, 1.0, None)
            compare(kernels("upfirdn2d", x, *arguments), plain("upfirdn2d", x, *arguments), torch.float32)
        s = image(*x.shape[:2], device=device)
        compare(kernels("modulate", x, s), plain("modulate", x, s), torch.float32)


def layer(device, dtype, layout, *, channels, size, batch=2, blur=False, shared_noise=False):
    """Returns the input and the other tensors of a layer."""
    grow = 1 if blur else 0
    x = image(batch, channels, size + grow, size + 2 + grow, dtype=dtype, layout=layout, device=device)
    bias, scale = image(channels, device=device), image(batch, channels, device=device).abs() + 0.3
    noise = image(1 if shared_noise else batch, 1, size, size + 2, device=device)
    return x, bias, scale, noise, (FILTERS["4-taps"] / 6.5).to(device) if blur else None


@pytest.mark.parametrize("blur", [False, True], ids=["plain", "blur"])
@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_bias_act(device, monkeypatch, dtype, layout, blur):
    for rows, channels, size, shared in ((2, 8, 4, True), (2, 5, 9, False), (16, 160, 3, False), (16, 4, 35, True)):
        strips(monkeypatch, rows)
        x, bias, scale, noise, fir = layer(
            device, dtype, layout, channels=channels, size=size, blur=blur, shared_noise=shared
        )
        options = [(0.7, (1, 1, 1)), (None, (0, 1, 0)), (None, (1, 0, 0)), (0.5, (0, 0, 1))]
        for clamp, use in options if size < 9 else options[:1]:
            optional = [t if keep else None for t, keep in zip((bias, scale, noise), use, strict=True)]
            arguments = (*optional, fir, 4.0, 0.2, 1.4, clamp)
            y = kernels("bias_act", x, *arguments)
            compare(y, plain("bias_act", x, *arguments), dtype, cuda.layout(x))
            dy = image(*y.shape, dtype=dtype, layout=layout, device=device)
            got = kernels("bias_act_backward", dy, y, *arguments)
            # the derivative at the same output, the limit as it was stored
            limit = None if clamp is None else torch.tensor(clamp, dtype=dtype).item()
            want = plain("bias_act_backward", dy, y, *arguments[:-1], limit)
            compare(got[0], want[0], dtype, cuda.layout(y))
            for value, expected in zip(got[1:], want[1:], strict=True):
                assert value.shape == expected.shape
                if expected.numel():
                    compare(value, expected, torch.float32)


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS.keys())
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_modulate(device, monkeypatch, dtype, layout):
    for rows, shape in ((2, (2, 8, 4, 5)), (16, (1, 3, 9, 17)), (2, (3, 260, 2, 2)), (16, (1, 4, 33, 2))):
        strips(monkeypatch, rows)
        x, s = image(*shape, dtype=dtype, layout=layout, device=device), image(*shape[:2], device=device)
        compare(kernels("modulate", x, s), plain("modulate", x, s), dtype, cuda.layout(x))
        for dy in (image(*shape, dtype=dtype, device=device), image(*shape[:2], 1, 1, dtype=dtype).expand(shape)):
            got, want = kernels("modulate_backward", dy.to(device), x, s), plain("modulate_backward", dy, x, s)
            compare(got[0], want[0], dtype)
            compare(got[1], want[1], torch.float32)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=str)
def test_rounding_to_sixteen_bits(device, dtype):
    x, s = image(2, 4, 64, 64, dtype=dtype, device=device) * 1e-4, image(2, 4, device=device)
    x[0, 0, 0, :3] = torch.tensor([float("inf"), -float("inf"), 0.0])  # beside halves without an exponent
    exact = (x.float() * s[:, :, None, None]).to(dtype)
    assert torch.equal(kernels("modulate", x, s), exact)


def test_nan_propagates(device):
    x = torch.full((1, 4, 2, 2), float("nan"), device=device)
    for dtype in TOLERANCE:
        y = kernels("bias_act", x.to(dtype), None, None, None, None, 1.0, 0.2, 1.0, 0.5)
        assert y.isnan().all() and y.dtype == dtype


def test_errors_of_the_kernels_are_raised(device):
    division = cuda._divide(*[torch.zeros(1, 1, 1, 1)] * 2, False)
    division.dtype = 7
    with pytest.raises(RuntimeError, match="CUDA kernel modulate: invalid argument"):
        cuda._call("modulate", torch.zeros(1, device=device), division, cuda._View(), cuda._View(), None)


@pytest.mark.parametrize("frozen", [True, False], ids=["frozen", "trained"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
def test_a_whole_generator(device, dtype, frozen):
    """Compares image and gradients with the reference in double precision."""
    generator = Generator(16, z_dim=5, w_dim=7, mapping_layers=1, channels={4: 8, 8: 8, 16: 4}, conv_clamp=4.0)
    for module in generator.synthesis.layers():
        torch.nn.init.normal_(module.noise_strength, std=0.3)
        torch.nn.init.normal_(module.bias, std=0.3)
    fast = Generator(**{**generator.config, "ops": "fast"})
    fast.load_state_dict(generator.state_dict())
    fast.to(device)
    generator.double()
    if frozen:
        generator.requires_grad_(False)
        fast.requires_grad_(False)  # and not freeze(), which on a CPU has another fast path
    w = torch.randn(2, 6, 7)
    a, b = w.double().requires_grad_(), w.to(device).requires_grad_()
    want, probe = generator.synthesis(a), torch.randn(2, 3, 16, 16)
    with torch.autocast(device.type, dtype, enabled=dtype != torch.float32):
        got = fast.synthesis(b)
    assert got.dtype == torch.float32
    small, large = (1e-5, 1e-4) if dtype == torch.float32 else (2e-2, 2e-1)
    assert (got.cpu() - want).norm() < small * want.norm()
    (want * probe).sum().backward()
    (got * probe.to(device)).sum().backward()
    gradients = {"w": ([b.grad], [a.grad])}
    if not frozen:  # those of one kind together: single numbers are sums that cancel
        for (name, p), q in zip(fast.synthesis.named_parameters(), generator.synthesis.parameters(), strict=True):
            mine, theirs = gradients.setdefault(name.split(".")[-1], ([], []))
            mine.append(p.grad)
            theirs.append(q.grad)
    for name, (mine, theirs) in gradients.items():
        x, y = (torch.cat([t.cpu().double().flatten() for t in tensors]) for tensors in (mine, theirs))
        assert (x - y).norm() <= large * y.norm(), name


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU to capture a graph of")
def test_a_cuda_graph_replays_the_synthesis():
    generator = Generator(16, z_dim=5, w_dim=8, mapping_layers=1, channels={4: 8, 8: 8, 16: 8}).freeze().cuda()
    w, other = torch.randn(2, 2, 6, 8, device="cuda")
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream), torch.no_grad():
        for _ in range(3):
            generator.synthesis(w)
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph), torch.no_grad():
        image = generator.synthesis(w)
    w.copy_(other)
    graph.replay()
    with torch.no_grad():
        torch.testing.assert_close(image, generator.synthesis(other))


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
@pytest.mark.parametrize("dtype", TOLERANCE, ids=str)
def test_opcheck_on_a_gpu(dtype):
    x, bias, scale, noise, fir = layer("cuda", dtype, torch.channels_last, channels=8, size=6, blur=True)
    x, scale = x.requires_grad_(), scale.requires_grad_()
    operators = torch.ops.stylegan_inv
    torch.library.opcheck(operators.bias_act.default, (x, bias, scale, noise, fir, 4.0, 0.2, 1.4, 1.0))
    torch.library.opcheck(operators.modulate.default, (x, scale))
    torch.library.opcheck(operators.upfirdn2d.default, (x, fir, (2, 2), (1, 1), (2, 1, 2, 1), False, 4.0, None))
