"""Frozen generators and their comparison with modules in double precision, for the tests of the fast path."""

from __future__ import annotations

import copy

import torch

from stylegan_inv.generators import Generator

ODD = {4: 5, 8: 20, 16: 17, 32: 9, 64: 3}


def make(resolution=32, seed=0, margin=0.0, **kwargs):
    """Returns a frozen generator and, for comparison, one with the same weights that runs its modules in float64.

    ``margin`` moves the values before each activation away from zero, half of the channels to either side. Rounding
    then flips no sign, and gradients are comparable to the last digits.
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
    """Returns codes and, if ``maps``, noise maps (of one image or of all), in ``dtype`` and in double precision."""
    w = torch.randn(batch, generator.num_ws, generator.w_dim)
    tensors = [w]
    if maps:
        for i, layer in enumerate(generator.synthesis.layers()):
            tensors.append(torch.randn(batch if i % 2 else 1, 1, layer.resolution, layer.resolution))
    return [[t.to(d).requires_grad_() for t in tensors] for d in (dtype, torch.float64)]


def compare(generator, modules, dtype, batch=2, noise="const"):
    """Returns the error of the image and the largest error of a gradient."""
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


SMALL = {4: 5, 8: 20, 16: 17}


def frozen(resolution=16, seed=0, margin=0.0, **kwargs) -> Generator:
    """Returns a small frozen generator; ``margin`` as for :func:`make`."""
    torch.manual_seed(seed)
    table = {r: c for r, c in SMALL.items() if r <= resolution}
    options = {"z_dim": 6, "w_dim": 6, "mapping_layers": 1, "channels": table, **kwargs}
    generator = Generator(resolution, **options)
    for layer in generator.synthesis.layers():
        torch.nn.init.normal_(layer.noise_strength, std=0.3)
        torch.nn.init.normal_(layer.bias, std=0.3)
        with torch.no_grad():
            layer.bias += margin * (1 - 2 * (torch.arange(len(layer.bias)) % 2))
    for block in generator.synthesis.blocks():
        torch.nn.init.normal_(block.torgb.bias, std=0.3)
    return generator.freeze()
