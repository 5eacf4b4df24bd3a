"""The kernels for networks in training on a CPU, against plain PyTorch in double precision."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor
from torch.nn.grad import conv2d_weight

from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.generators.ops import (
    conv2d_resample,
    cpu,
    layer_operators,
    setup_filter,
    styled_conv2d,
    upfirdn2d,
)
from stylegan_inv.generators.ops.cpu_functions import Conv3x3, LayerEpilogue
from stylegan_inv.losses.gan_regularization import path_lengths, r1_penalty

TAPS = torch.tensor([1.0, -2.0, 3.0, 0.5])
PADDINGS = [(1, 1, 1, 1), (2, 1, 2, 1), (0, 3, 5, 2), (4, -1, -2, 6)]
FACTORS = [(1, 1), (2, 1), (1, 2), (3, 2)]


@pytest.fixture(params=[1, 3], ids=["one thread", "three threads"], autouse=True)
def threads(request: pytest.FixtureRequest) -> Iterator[None]:
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    torch.manual_seed(0)
    yield
    torch.set_num_threads(before)


def image(*shape: int) -> Tensor:
    return torch.randn(shape).contiguous(memory_format=torch.channels_last)


def compare(got: Tensor, want: Tensor) -> None:
    assert got.shape == want.shape and got.dtype == torch.float32 and want.dtype == torch.float64
    error = (got.double() - want).abs().max() / want.abs().max().clamp_min(1e-30)
    assert error <= 3e-6, f"{error:.1e}"


@pytest.fixture
def calls(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the kernels that run."""
    names: list[str] = []
    call = cpu._call
    monkeypatch.setattr(cpu, "_call", lambda name, *arguments: (names.append(name), call(name, *arguments)))
    return names


@pytest.fixture
def fits_all(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets the kernel of the convolution run at sizes where it does not pay."""
    monkeypatch.setattr(cpu, "_FEWEST_CHANNELS", 1)
    monkeypatch.setattr(cpu, "_FEWEST_TILES", 1)


@pytest.mark.parametrize("up, down", FACTORS)
def test_upfirdn2d_and_its_derivatives(up: int, down: int, calls: list[str]) -> None:
    sizes = itertools.cycle([(2, 8, 5, 7), (1, 3, 9, 4), (4, 19, 4, 4), (1, 260, 6, 5)])
    for padding, flip in itertools.product(PADDINGS, (False, True)):
        x = image(*next(sizes)).requires_grad_()
        wide = x.detach().double().requires_grad_()
        y = upfirdn2d(x, TAPS, up, down, padding, flip, 1.5)
        want = upfirdn2d(wide, TAPS, up, down, padding, flip, 1.5)
        compare(y, want)
        assert y.is_contiguous(memory_format=torch.channels_last)
        more = torch.randn(y.shape)
        compare(upfirdn2d(x, TAPS, up, down, padding, flip, 1.5, add=more), want + more)
        g = torch.randn(y.shape, requires_grad=True)  # in another memory format
        (dx,) = torch.autograd.grad(y, x, g, create_graph=True)
        (of_wide,) = torch.autograd.grad(want, wide, g.double(), create_graph=True)
        compare(dx, of_wide)
        v = torch.randn(dx.shape)
        compare(torch.autograd.grad(dx, g, v)[0], torch.autograd.grad(of_wide, g, v.double())[0].double())
    assert set(calls) == {"training_resample"} and len(calls) == 4 * 2 * len(PADDINGS)


@pytest.mark.parametrize("blur", [False, True], ids=["plain", "blur"])
def test_epilogue_and_its_derivatives(blur: bool, calls: list[str]) -> None:
    for batch, channels, size, shared in ((2, 8, 4, True), (4, 5, 9, False), (1, 160, 3, False), (3, 4, 35, True)):
        grow = int(blur)
        x = image(batch, channels, size + grow, size + 2 + grow)
        bias, scale = torch.randn(channels), torch.randn(batch, channels).abs() + 0.3
        noise = torch.randn(1 if shared else batch, 1, size, size + 2)
        fir = TAPS / 6.5 if blur else None
        for clamp, with_noise in ((0.75, True), (None, False)):  # a limit that both precisions have
            inputs = [t.clone().requires_grad_() for t in (x, bias, scale, noise)]
            wide = [t.double().requires_grad_() for t in (x, bias, scale, noise)]
            results = []
            for tensors, run in ((inputs, LayerEpilogue.apply), (wide, layer_operators._bias_act)):
                *kept, optional = tensors
                y = run(*kept, optional if with_noise else None, fir, 4.0, 0.2, 1.4, clamp)
                dy = torch.linspace(-1, 1, y.numel()).view(y.shape).to(y.dtype)
                used = tensors if with_noise else kept
                results.append([y, *torch.autograd.grad(y, used, dy, retain_graph=True)])
                results[-1] += torch.autograd.grad(y, used, dy, create_graph=True)
            for got, want in zip(*results, strict=True):
                compare(got.detach(), want.detach())
    assert {"training_bias_act", "training_bias_act_backward"} <= set(calls)


def test_modulate_backward() -> None:
    for shape in ((2, 8, 4, 5), (4, 3, 9, 17), (1, 260, 12, 12), (1, 4, 33, 2)):
        dy, x, styles = torch.randn(shape), image(*shape), torch.randn(shape[:2])
        dx, dstyles = cpu.modulate_backward(dy, x, styles)
        compare(dx, dy.double() * styles.double()[:, :, None, None])
        compare(dstyles, (dy.double() * x.double()).sum(dim=(2, 3)))


@pytest.mark.parametrize(
    "shape", [(2, 3, 8, 12, 5), (1, 33, 4, 4, 40), (3, 70, 16, 8, 36), (9, 16, 4, 8, 65), (2, 50, 8, 4, 16)]
)
def test_convolution_and_its_derivatives(shape: tuple[int, ...], calls: list[str], fits_all: None) -> None:
    batch, channels, h, w, out = shape
    x, scale, bias = image(batch, channels, h, w), torch.rand(batch, channels), torch.randn(out)
    weight, dy = torch.randn(out, channels, 3, 3), torch.randn(batch, out, h, w)
    for factors, shift in ((None, None), (scale, bias)):
        y = cpu.conv3x3(x, weight, False, factors, shift)
        scaled = x.double() if factors is None else x.double() * scale.double()[:, :, None, None]
        compare(y, F.conv2d(scaled, weight.double(), None if shift is None else bias.double(), padding=1))
        compare(
            cpu.conv3x3_weight_gradient(x, dy, factors), conv2d_weight(scaled, weight.shape, dy.double(), padding=1)
        )
    calls.clear()
    for adjoint in (False, True):
        kernel = weight.transpose(0, 1).contiguous() if adjoint else weight
        results = []
        for dtype in (torch.float32, torch.float64):
            inputs = [v.detach().to(dtype).requires_grad_() for v in (x, kernel, bias)]
            if dtype == torch.float32:
                y = Conv3x3.apply(*inputs, adjoint)
            else:
                wide, of_kernel, of_bias = inputs
                y = (F.conv_transpose2d if adjoint else F.conv2d)(wide, of_kernel, of_bias, padding=1)
            first = torch.autograd.grad(y, inputs, dy.to(dtype), create_graph=True)
            second = torch.autograd.grad(sum((g.square().sum() for g in first[:2]), torch.zeros(())), inputs[:2])
            results.append([y, *first, *second])
        for got, want in zip(*results, strict=True):
            compare(got.detach(), want.detach())
    assert set(calls) == {"training_conv", "training_conv_weight_gradient"} and len(calls) == 2 * 5


def test_small_convolutions_run_plainly(calls: list[str]) -> None:
    weight = torch.randn(32, 32, 3, 3)
    for x, kernel in (
        (image(8, 32, 6, 8), weight),  # no multiple of the tiles
        (image(7, 32, 8, 8), weight),  # too few tiles
        (image(8, 15, 8, 8), weight[:, :15]),
        (image(8, 32, 8, 8), weight[:15]),
        (image(8, 32, 8, 8).contiguous(), weight),
        (image(8, 32, 8, 8).double(), weight.double()),
    ):
        torch.testing.assert_close(conv2d_resample(x, kernel, padding=1), F.conv2d(x, kernel, padding=1))
    x = image(8, 32, 8, 8)
    conv2d_resample(x, weight[:, :1], padding=1, groups=32)
    conv2d_resample(x, weight, padding=2)
    conv2d_resample(x, weight, padding=1, impl="ref")
    with torch.autocast("cpu"):
        assert conv2d_resample(x, weight, padding=1).dtype == torch.bfloat16
    torch.func.grad(lambda v: conv2d_resample(v, weight, padding=1).sum())(x)
    assert calls == []
    conv2d_resample(x, weight, padding=1)
    assert calls == ["training_conv"]


def test_gradients_of_many_results_at_once(fits_all: None) -> None:
    x, weight, styles = image(2, 8, 8, 8), torch.randn(6, 8, 3, 3), torch.rand(2, 8)
    bias = torch.zeros(6)
    inputs = [t.requires_grad_() for t in (x, weight, styles)]
    y = styled_conv2d(x, weight, styles, bias)
    directions = torch.randn(3, *y.shape)
    together = torch.autograd.grad(y, inputs, directions, is_grads_batched=True, retain_graph=True)
    for k, direction in enumerate(directions):
        for got, want in zip(together, torch.autograd.grad(y, inputs, direction, retain_graph=True), strict=True):
            torch.testing.assert_close(got[k], want, rtol=1e-4, atol=1e-4)


def test_penalties_compute_no_gradients_of_weights(calls: list[str], fits_all: None) -> None:
    generator, discriminator = networks(torch.float32)
    real, w = torch.randn(4, 3, 16, 16).requires_grad_(), torch.randn(4, 6, 7).requires_grad_()
    for penalty, convolutions in (
        (lambda: r1_penalty(discriminator(real), real), 3),
        (lambda: path_lengths(generator.synthesis(w), w).mean(), 3),
    ):
        calls.clear()
        value = penalty()
        assert calls.count("training_conv") == 2 * convolutions and "training_conv_weight_gradient" not in calls
        value.backward()
        assert calls.count("training_conv_weight_gradient") >= convolutions


def test_what_the_kernels_do_not_support_runs_plainly(calls: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    x, f = image(2, 4, 6, 6), setup_filter()
    for value, taps, up in (
        (x.contiguous(), f, 2),
        (x.double(), f, 2),
        (x.bfloat16(), f, 2),
        (x, torch.ones(5), 2),
        (x, torch.ones(4, 4), 2),
        (x, f, (2, 1)),
        (x[:, :, ::2], f, 2),
        (x[:, :1], f, 1),
    ):
        y = upfirdn2d(value, taps, up, padding=(2, 1, 2, 1))
        want = upfirdn2d(value.double(), taps, up, padding=(2, 1, 2, 1))
        torch.testing.assert_close(y.double(), want, rtol=0, atol=0.1 if value.dtype == torch.bfloat16 else 1e-5)
    upfirdn2d(x, f, 2, padding=(2, 1, 2, 1), impl="ref")
    torch.func.vmap(lambda v: upfirdn2d(v[None], f))(x)
    monkeypatch.setattr(cpu, "_library", lambda: None)  # no compiler
    upfirdn2d(x, f, 2, padding=(2, 1, 2, 1))
    assert calls == []


def test_nan_and_infinity_propagate() -> None:
    x, bias, scale = image(1, 4, 2, 2), torch.zeros(4), torch.ones(1, 4)
    x[0, 1, 0, 0], x[0, 2, 1, 1] = float("nan"), float("inf")
    y = cpu.bias_act(x, bias, scale, None, None, 1.0, 0.2, 1.0, None)
    assert y.isnan().sum() == 1 and y.isinf().sum() == 1
    assert cpu.bias_act(x, bias, scale, None, None, 1.0, 0.2, 1.0, 0.5).isnan().sum() == 1
    dy = torch.full_like(y, float("nan"))
    dx = cpu.bias_act_backward(False, dy, y, bias, scale, None, None, 1.0, 0.2, 1.0, None)[0]
    assert dx.isnan().all()


def networks(dtype: torch.dtype) -> tuple[Generator, Discriminator]:
    torch.manual_seed(3)
    channels = {4: 8, 8: 6, 16: 4}
    generator = Generator(16, z_dim=5, w_dim=7, mapping_layers=1, channels=channels, conv_clamp=4.0)
    for module in generator.synthesis.layers():
        torch.nn.init.normal_(module.noise_strength, std=0.3)
        torch.nn.init.normal_(module.bias, std=0.3)
    return generator.to(dtype), Discriminator(16, channels=channels).to(dtype)


def gradients(dtype: torch.dtype) -> dict[str, Tensor]:
    """The gradients of each loss of StyleGAN2 with all parameters, first and second derivatives."""
    generator, discriminator = networks(dtype)
    torch.manual_seed(4)
    w, noise = torch.randn(4, 6, 7).to(dtype), torch.randn(4, 3, 16, 16).to(dtype)
    real = torch.randn(4, 3, 16, 16).to(dtype).requires_grad_()
    result = {}
    losses = {
        "generator": lambda: torch.nn.functional.softplus(-discriminator(generator.synthesis(w, noise="const"))).mean(),
        "path length": lambda: path_lengths(generator.synthesis(v := w.clone().requires_grad_()), v, noise).mean(),
        "discriminator": lambda: torch.nn.functional.softplus(-discriminator(real)).mean(),
        "r1": lambda: r1_penalty(discriminator(real), real),
    }
    for name, loss in losses.items():
        generator.zero_grad()
        discriminator.zero_grad()
        loss().backward()
        for kind, network in (("g", generator.synthesis), ("d", discriminator)):
            grads = [torch.zeros_like(p) if p.grad is None else p.grad for p in network.parameters()]
            if any(p.grad is not None for p in network.parameters()):
                result[f"{name} {kind}"] = torch.cat([g.flatten() for g in grads]).double()
    return result


def test_losses_of_a_gan_have_the_gradients_of_double_precision(calls: list[str], fits_all: None) -> None:
    got = gradients(torch.float32)
    assert {
        "training_conv",
        "training_conv_weight_gradient",
        "training_resample",
        "training_bias_act",
        "training_bias_act_backward",
        "training_modulate_backward",
    } == set(calls)
    calls.clear()
    want = gradients(torch.float64)
    assert calls == [] and got.keys() == want.keys() and len(got) == 5
    for name, value in got.items():
        assert (value - want[name]).norm() <= 1e-5 * want[name].norm(), name
