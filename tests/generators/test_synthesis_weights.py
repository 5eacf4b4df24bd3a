"""Differences of weights as an argument of the synthesis network, plain and compressed."""

from __future__ import annotations

import copy

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference, compress, tuned
from tests.generators.frozen_generators import frozen


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_weights_of_one_image_are_a_tuned_copy(dtype):
    """Bit for bit, also with a compressed difference, and without a trace in the original."""
    generator = frozen().to(dtype)
    w = torch.randn(3, 6, 6, dtype=dtype)
    plain = generator.synthesis(w)
    other = copy.deepcopy(generator)
    for p in other.parameters():
        p.add_(0.1 * torch.randn_like(p))
    factors = compress(generator.synthesis, other.synthesis, rank=2)
    assert any(name.endswith(".left") for name in factors)
    copied = tuned(generator, factors)
    weights = LowRankDifference({name: t[None] for name, t in factors.items()}, generator.synthesis)
    assert set(weights) == {name for name, _ in generator.synthesis.named_parameters()} and len(weights) == len(
        list(generator.synthesis.parameters())
    )
    for code in (w[:1], w):
        assert torch.equal(generator.synthesis(code, weights=weights), copied.synthesis(code))
        change = {"b8.conv0": (1.0, 0.5)}
        assert torch.equal(
            generator.synthesis(code, features=change, weights=weights), copied.synthesis(code, features=change)
        )
    assert torch.equal(generator.synthesis(w), plain)
    generator.synthesis.fused.enabled = copied.synthesis.fused.enabled = False
    assert torch.equal(generator.synthesis(w, weights=weights), copied.synthesis(w))


def test_weights_of_a_batch_are_those_of_its_images(path):
    generator = path(frozen())
    dtype = next(generator.parameters()).dtype
    w, noise = torch.randn(3, 6, 6, dtype=dtype), [m.expand(3, -1, -1, -1) for m in generator.synthesis.noise_maps()]
    weights = {
        name: 0.1 * torch.randn(3 if k % 2 else 1, *p.shape, dtype=dtype)
        for k, (name, p) in enumerate(generator.synthesis.named_parameters())
    }
    styles = {"b8.conv1": torch.randn(3, 20, dtype=dtype)}
    features = {"b8": (torch.rand(20, 1, 1, dtype=dtype), torch.randn(3, 20, 8, 8, dtype=dtype))}
    result = generator.synthesis(
        w, noise, features=features, styles=styles, weights=weights, return_features=["b8.conv0"]
    )
    for i in range(3):
        other = copy.deepcopy(generator)
        for name, p in other.synthesis.named_parameters():
            p.add_(weights[name][i if len(weights[name]) > 1 else 0])
        one = other.synthesis(
            w[i : i + 1],
            [m[i : i + 1] for m in noise],
            features={"b8": (features["b8"][0], features["b8"][1][i : i + 1])},
            styles={"b8.conv1": styles["b8.conv1"][i : i + 1]},
            return_features=["b8.conv0"],
        )
        assert torch.equal(result.image[i : i + 1], one.image)
        assert torch.equal(result.features["b8.conv0"][i : i + 1], one.features["b8.conv0"])


def test_weights_train():
    """A hypernetwork's differences get the gradient of the weight itself."""
    generator = frozen().double()
    w = torch.randn(1, 6, 6, dtype=torch.float64)
    difference = torch.zeros(1, 20, 20, 3, 3, dtype=torch.float64, requires_grad=True)
    (got,) = torch.autograd.grad(
        generator.synthesis(w, weights={"b8.conv1.weight": difference}).square().sum(), difference
    )
    weight = generator.synthesis.b8.conv1.weight.requires_grad_()
    (want,) = torch.autograd.grad(generator.synthesis(w).square().sum(), weight)
    torch.testing.assert_close(got[0], want)


def test_other_differences_are_refused():
    base, other = frozen(), frozen(seed=1)
    factors = {name: t[None] for name, t in compress(base.synthesis, other.synthesis, 2).items()}
    with pytest.raises(UserError, match="no parameter extra; expected the generator that was tuned"):
        LowRankDifference({**factors, "extra": torch.zeros(1)}, base.synthesis)
    some = {name: t for name, t in factors.items() if "b4.const" not in name}
    weights = LowRankDifference(some, base.synthesis)
    assert "b4.const" not in weights and len(weights) == len(list(base.synthesis.parameters())) - 1
    with pytest.raises(UserError, match=r"b4\.const has 79 numbers, expected \(5, 4, 4\)"):
        LowRankDifference({**factors, "b4.const": torch.zeros(1, 79)}, base.synthesis)
