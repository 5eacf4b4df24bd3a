"""The networks: geometry, initialisation, interface, gradients."""

from __future__ import annotations

import copy
import math
import subprocess
import sys

import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator, channel_table
from stylegan_inv.generators.discriminator import minibatch_stddev

SMALL = {4: 8, 8: 6, 16: 4}


def small(**kwargs) -> Generator:
    torch.manual_seed(0)
    generator = Generator(16, **{"z_dim": 5, "w_dim": 7, "mapping_layers": 2, "channels": SMALL, **kwargs})
    for layer in generator.synthesis.layers():
        torch.nn.init.normal_(layer.noise_strength, std=0.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
    generator.w_avg.normal_()
    return generator


@pytest.mark.parametrize(
    ("resolution", "generator", "discriminator"),
    [
        (64, 27_032_600, 26_488_833),
        (256, 30_034_338, 28_864_129),
        (512, 30_276_583, 28_982_849),
        (1024, 30_370_060, 29_012_513),
    ],
)
def test_parameter_totals_of_config_f(resolution, generator, discriminator):
    with torch.device("meta"):
        g, d = Generator(resolution), Discriminator(resolution)
    assert sum(p.numel() for p in g.parameters()) == generator
    assert sum(p.numel() for p in d.parameters()) == discriminator
    assert g.num_ws == 2 * math.log2(resolution) - 2
    assert len(g.synthesis.layers()) == 2 * math.log2(resolution) - 3


def test_channel_table():
    assert channel_table(1024) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 512, 128: 256, 256: 128, 512: 64, 1024: 32}
    assert channel_table(64, 16384) == {4: 512, 8: 512, 16: 512, 32: 512, 64: 256}


@pytest.mark.parametrize("resolution", [4, 8, 32])
def test_any_resolution(resolution):
    table = {r: 2 + i for i, r in enumerate(channel_table(resolution))}
    generator = Generator(resolution, z_dim=3, w_dim=4, mapping_layers=1, channels=table, img_channels=1)
    image = generator(torch.randn(2, 3), noise="random")
    assert image.shape == (2, 1, resolution, resolution)
    logits = Discriminator(resolution, channels=table, img_channels=1)(image)
    assert logits.shape == (2, 1)
    (logits.sum()).backward()
    assert all(p.grad is not None for p in generator.parameters())


@pytest.mark.parametrize("resolution", [2, 48, 0, -8])
def test_impossible_resolution(resolution):
    with pytest.raises(UserError, match="power of two"):
        Generator(resolution)


def test_impossible_channels():
    with pytest.raises(UserError, match=r"each of the resolutions \[4, 8, 16\]"):
        Generator(16, channels={4: 8, 8: 8})


def test_initialisation():
    generator = Generator(16, channels={4: 128, 8: 128, 16: 64})
    fc, layer, rgb = generator.mapping.fc0, generator.synthesis.b8.conv0, generator.synthesis.b8.torgb
    assert fc.weight.std().item() == pytest.approx(100, rel=0.02)
    assert fc.bias.abs().max() == 0 and fc.weight_gain == pytest.approx(0.01 / math.sqrt(512))
    assert layer.weight.std().item() == pytest.approx(1, rel=0.02)
    assert layer.bias.abs().max() == 0 and layer.noise_strength == 0
    assert (layer.affine.bias == 1).all() and (rgb.affine.bias == 1).all()
    assert rgb.bias.abs().max() == 0
    assert generator.w_avg.abs().max() == 0
    # the initialisation keeps unit variance through the first layers
    w = generator.mapping(torch.randn(64, 512))[:, 0]
    assert 0.5 < w.std() < 1.5


def test_config_rebuilds():
    generator = small(conv_clamp=3.0, demod_eps_scaled=False, c_dim=2)
    twin = Generator(**generator.config)
    twin.load_state_dict(generator.state_dict())
    z, c = torch.randn(2, 5), torch.randn(2, 2)
    assert torch.equal(twin(z, c=c), generator(z, c=c))
    discriminator = Discriminator(16, channels=SMALL, mbstd_group_size=2, mbstd_features=2, c_dim=2, mapping_layers=1)
    twin = Discriminator(**discriminator.config)
    twin.load_state_dict(discriminator.state_dict())
    image = torch.randn(2, 3, 16, 16)
    assert torch.equal(twin(image, c), discriminator(image, c))
    # string keys, as in JSON
    assert Generator(16, channels={str(k): v for k, v in SMALL.items()}).channels == SMALL


def test_state_holds_no_filters():
    assert not [key for key in small().state_dict() if "filter" in key]


def test_mapping_is_its_definition():
    generator = small(c_dim=3).double()
    z, c = torch.randn(4, 5, dtype=torch.float64), torch.randn(4, 3, dtype=torch.float64)
    m = generator.mapping
    embedded = c @ m.embed.weight.t() / math.sqrt(3) + m.embed.bias
    parts = [v / (v.square().mean(dim=1, keepdim=True) + 1e-8).sqrt() for v in (z, embedded)]
    x = torch.cat(parts, dim=1)
    for layer in (m.fc0, m.fc1):
        x = x @ layer.weight.t() * 0.01 / math.sqrt(x.shape[1]) + 0.01 * layer.bias
        x = torch.where(x > 0, x, 0.2 * x) * math.sqrt(2)
    torch.testing.assert_close(generator.mapping(z, c=c), x[:, None].expand(-1, 6, -1))


def test_truncation():
    generator = small()
    z = torch.randn(3, 5)
    w, mean = generator.mapping(z), generator.w_avg
    torch.testing.assert_close(generator.mapping(z, psi=0.0), mean.expand(3, 6, 7))
    torch.testing.assert_close(generator.mapping(z, psi=0.3), mean + 0.3 * (w - mean))
    torch.testing.assert_close(generator.mapping(z, psi=-1.0), mean - (w - mean))
    cut = generator.mapping(z, psi=0.3, cutoff=2)
    torch.testing.assert_close(cut[:, :2], (mean + 0.3 * (w - mean))[:, :2])
    torch.testing.assert_close(cut[:, 2:], w[:, 2:])
    torch.testing.assert_close(generator.mapping(z, psi=0.3, cutoff=0), w)
    torch.testing.assert_close(generator.mapping(z, psi=0.3, cutoff=99), mean + 0.3 * (w - mean))


def test_update_w_avg():
    generator = small()
    before, w = generator.w_avg.clone(), torch.randn(10, 7, requires_grad=True)
    buffer = generator.w_avg
    generator.update_w_avg(w, beta=0.9)
    assert generator.w_avg is buffer  # in place: an optimiser or checkpoint that refers to it sees the change
    torch.testing.assert_close(buffer, 0.9 * before + 0.1 * w.detach().mean(dim=0))
    generator.update_w_avg(w[:, None].expand(-1, 6, -1), beta=0.0)
    torch.testing.assert_close(buffer, w.detach().mean(dim=0))
    assert not buffer.requires_grad


def test_rows_of_w_and_the_layers_they_style():
    generator = small().double()
    w = torch.randn(1, 6, 7, dtype=torch.float64)
    seen = {}
    for name, module in generator.synthesis.named_modules():
        if name.endswith("affine"):
            module.register_forward_hook(lambda _, args, __, name=name: seen.update({name: args[0]}))
    generator.synthesis(w)
    rows = {"b4.conv1": 0, "b4.torgb": 1, "b8.conv0": 1, "b8.conv1": 2, "b8.torgb": 3}
    rows.update({"b16.conv0": 3, "b16.conv1": 4, "b16.torgb": 5})
    assert {k.removesuffix(".affine") for k in seen} == set(rows)
    for name, row in rows.items():
        assert torch.equal(seen[f"{name}.affine"], w[:, row]), name


def test_noise_modes():
    generator = small()
    w = generator.mapping(torch.randn(2, 5))
    const = generator.synthesis(w)
    assert torch.equal(const, generator.synthesis(w, noise="const"))
    maps = generator.synthesis.noise_maps()
    assert [tuple(m.shape) for m in maps] == [(1, 1, r, r) for r in (4, 8, 8, 16, 16)]
    assert torch.equal(const, generator.synthesis(w, noise=maps))
    assert torch.equal(const, generator.synthesis(w, noise=[m.expand(2, -1, -1, -1) for m in maps]))
    none = generator.synthesis(w, noise="none")
    torch.testing.assert_close(none, generator.synthesis(w, noise=[torch.zeros_like(m) for m in maps]))
    torch.manual_seed(1)
    first, second = generator.synthesis(w, noise="random"), generator.synthesis(w, noise="random")
    assert not torch.equal(first, second)
    torch.manual_seed(1)
    assert torch.equal(first, generator.synthesis(w, noise="random"))
    same = generator.synthesis(w[:1].expand(2, -1, -1), noise="random")
    assert not torch.equal(same[0], same[1])  # each sample has its own noise


def test_samples_are_independent():
    generator = small().double()
    w = torch.randn(3, 6, 7, dtype=torch.float64)
    together = generator.synthesis(w)
    alone = torch.cat([generator.synthesis(row[None]) for row in w])
    torch.testing.assert_close(together, alone)
    assert together.is_contiguous()


def test_conv_clamp():
    generator = small(conv_clamp=0.05)
    seen = []
    for layer in generator.synthesis.layers():
        layer.register_forward_hook(lambda _, __, out: seen.append(out.abs().max().item()))
    generator(torch.randn(2, 5))
    assert max(seen) == pytest.approx(0.05)
    discriminator = Discriminator(16, channels=SMALL, conv_clamp=0.05)
    discriminator.b16.conv1.register_forward_hook(lambda _, __, out: seen.append(out.abs().max().item()))
    discriminator(torch.randn(4, 3, 16, 16) * 10)
    assert seen[-1] == pytest.approx(0.05 * math.sqrt(0.5))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda g: g.synthesis(torch.zeros(2, 7)), r"codes must have shape \(B, 6, 7\), got \(2, 7\)"),
        (lambda g: g.synthesis(torch.zeros(2, 5, 7)), r"\(B, 6, 7\), got \(2, 5, 7\)"),
        (lambda g: g.mapping(torch.zeros(2, 6)), r"z must have shape \(B, 5\), got \(2, 6\)"),
        (lambda g: g.mapping(torch.zeros(2, 5), c=torch.zeros(2, 1)), "has no condition"),
        (lambda g: g.synthesis(torch.zeros(2, 6, 7), noise="fixed"), 'must be "const", "random", "none"'),
        (lambda g: g.synthesis(torch.zeros(2, 6, 7), noise=[]), "expected 5 noise maps"),
        (lambda g: g.synthesis(torch.zeros(2, 6, 7), noise=[torch.zeros(1, 1, 4, 4)] * 5), r"\(1 or 2, 1, 8, 8\)"),
        (lambda g: Discriminator(16, channels=SMALL)(torch.zeros(1, 3, 8, 8)), r"expects images \(B, 3, 16, 16\)"),
        (lambda g: Discriminator(16, channels=SMALL)(torch.zeros(6, 3, 16, 16)), "batch of 6 into groups of 4"),
        (lambda g: Generator(16, ops="cuda"), "unknown implementation 'cuda'"),
        (lambda g: Generator(16, mapping_layers=0), "mapping_layers=0"),
    ],
)
def test_errors_are_one_line(call, message):
    with pytest.raises(UserError, match=message) as info:
        call(small())
    assert "\n" not in str(info.value)


def test_frozen_generator_computes_no_weight_gradients():
    generator = small().freeze()
    w = torch.randn(2, 6, 7, requires_grad=True)
    image = generator.synthesis(w)
    image.square().sum().backward()
    assert w.grad is not None and not generator.training
    assert all(p.grad is None and not p.requires_grad for p in generator.parameters())
    # the codes are the only leaf of the graph
    leaves, todo, done = [], [image.grad_fn], set()
    while todo:
        node = todo.pop()
        if node is None or node in done:
            continue
        done.add(node)
        leaves += [node.variable] if hasattr(node, "variable") else []
        todo += [n for n, _ in node.next_functions]
    assert len(leaves) == 1 and leaves[0] is w


def test_frozen_sums_follow_the_weights():
    generator = small().freeze()
    w = torch.randn(1, 6, 7)
    first = generator.synthesis(w)
    cached = generator.synthesis.b8.conv1.squares()
    assert cached is generator.synthesis.b8.conv1.squares()  # computed once
    with torch.no_grad():
        generator.synthesis.b8.conv1.weight[:, 0] *= 5
    changed = generator.synthesis(w)
    fresh = small()
    fresh.load_state_dict(generator.state_dict())
    torch.testing.assert_close(changed, fresh.synthesis(w))
    assert not torch.allclose(first, changed)
    # a tuned copy (PTI) trains and leaves the original as it is
    tuned = copy.deepcopy(generator).requires_grad_(True)
    tuned.synthesis(w).sum().backward()
    assert tuned.synthesis.b8.conv1.weight.grad is not None
    assert torch.equal(generator.synthesis(w), changed)
    with torch.inference_mode():
        torch.testing.assert_close(generator.double().synthesis(w.double()).float(), changed, rtol=1e-4, atol=1e-5)


def test_first_and_second_derivatives():
    generator = Generator(8, z_dim=3, w_dim=3, mapping_layers=1, channels={4: 2, 8: 2}).double()
    for layer in generator.synthesis.layers():
        torch.nn.init.constant_(layer.noise_strength, 0.3)
    w = torch.randn(1, 4, 3, dtype=torch.float64, requires_grad=True)
    assert gradcheck(generator.synthesis, w)
    probe = torch.randn(1, 3, 8, 8, dtype=torch.float64)
    assert gradgradcheck(lambda w: (generator.synthesis(w) * probe).sum(), w)
    discriminator = Discriminator(8, channels={4: 2, 8: 2}, mbstd_group_size=2).double()
    image = torch.randn(2, 3, 8, 8, dtype=torch.float64, requires_grad=True)
    assert gradcheck(discriminator, image)
    assert gradgradcheck(discriminator, image)


def test_r1_and_path_length_reach_every_weight():
    generator, discriminator = small(), Discriminator(16, channels=SMALL)
    image = torch.randn(4, 3, 16, 16, requires_grad=True)
    (g,) = torch.autograd.grad(discriminator(image).sum(), image, create_graph=True)
    g.square().sum().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for name, p in discriminator.named_parameters()
        if not name.endswith("bias")
    )
    ws = generator.mapping(torch.randn(2, 5))
    image = generator.synthesis(ws, noise="random")
    (g,) = torch.autograd.grad((image * torch.randn_like(image)).sum(), ws, create_graph=True)
    g.square().sum(dim=2).mean(dim=1).sqrt().mean().backward()
    assert all(
        p.grad is not None and p.grad.isfinite().all()
        for name, p in generator.named_parameters()
        if name.endswith("weight")
    )


def test_minibatch_stddev_groups_interleave():
    x = torch.randn(8, 2, 3, 3, dtype=torch.float64)
    got = minibatch_stddev(x, group_size=4)
    for n in range(8):
        group = x[n % 2 :: 2]
        want = (group.var(dim=0, unbiased=False) + 1e-8).sqrt().mean()
        torch.testing.assert_close(got[n], want.expand(1, 3, 3))


def test_autocast_stays_close():
    torch.manual_seed(0)
    generator = Generator(16, z_dim=16, w_dim=16, mapping_layers=2, channels={4: 32, 8: 32, 16: 16})
    discriminator = Discriminator(16, channels={4: 32, 8: 32, 16: 16})
    z = torch.randn(4, 16)
    want = generator(z)
    with torch.autocast("cpu", torch.bfloat16):
        got = generator(z)
        loss = discriminator(got).float().sum()
    assert got.dtype == torch.float32
    assert (got - want).norm() < 0.02 * want.norm()
    loss.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in generator.synthesis.parameters())


def test_import_has_no_side_effects():
    code = (
        "import sys, logging, random, torch\n"
        "state = torch.random.get_rng_state(), random.getstate(), torch.get_num_threads(), torch.get_default_dtype()\n"
        "import stylegan_inv.generators\n"
        "assert torch.equal(state[0], torch.random.get_rng_state()) and state[1] == random.getstate()\n"
        "assert state[2:] == (torch.get_num_threads(), torch.get_default_dtype())\n"
        "assert not logging.getLogger().handlers\n"
        "heavy = {'pytorch_lightning', 'hydra', 'torch.utils.cpp_extension', 'torchvision'} & set(sys.modules)\n"
        "assert not heavy, heavy\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_compiles_whole_and_works_under_functional_transforms():
    torch.manual_seed(0)
    generator = Generator(8, z_dim=3, w_dim=3, mapping_layers=1, channels={4: 2, 8: 2}).double().freeze()
    w = torch.randn(2, 4, 3, dtype=torch.float64, requires_grad=True)
    compiled = torch.compile(lambda w: generator.synthesis(w), fullgraph=True, backend="aot_eager")
    image = compiled(w)
    torch.testing.assert_close(image, generator.synthesis(w))
    (got,) = torch.autograd.grad(image.square().sum(), w)
    (want,) = torch.autograd.grad(generator.synthesis(w).square().sum(), w)
    torch.testing.assert_close(got, want)
    jacobian = torch.func.jacrev(lambda w: generator.synthesis(w).mean(dim=(2, 3)))(w.detach())
    assert jacobian.shape == (2, 3, 2, 4, 3)
    assert jacobian[0, :, 1].abs().max() == 0  # one sample's image does not depend on the other's code
