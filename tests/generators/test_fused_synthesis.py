"""The numbers of the fast path of a frozen generator, against its modules and the reference numbers."""

from __future__ import annotations

import copy
import math

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, load_generator
from tests import golden
from tests.generators.frozen_generators import compare, error, make, used


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


def test_random_noise_is_drawn_as_by_the_modules(kernels):
    generator, modules = make()
    w = torch.randn(2, generator.num_ws, 6)
    generator.synthesis(w)
    modules.float()
    torch.manual_seed(3)
    got = generator.synthesis(w, noise="random")
    torch.manual_seed(3)
    torch.testing.assert_close(got, modules.synthesis(w, noise="random"), rtol=1e-4, atol=1e-5)


def test_gradients_for_some_inputs(kernels):
    """A gradient does not depend on which other gradients are computed."""
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
