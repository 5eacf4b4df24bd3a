"""Distances and spread of codes against NumPy; consistency of edits against its definition."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan_inv.generators import Generator
from stylegan_inv.metrics.editing_consistency import LatentEditingConsistency
from stylegan_inv.metrics.latent import CodeSpread, DistanceToW, sample_w


@pytest.fixture(scope="module")
def generator() -> Generator:
    torch.manual_seed(0)
    return Generator(16, z_dim=8, w_dim=8, mapping_layers=2, channel_base=64, channel_max=8).freeze()


def codes(count: int = 5, rows: int = 6) -> Tensor:
    return torch.randn(count, rows, 8, generator=torch.Generator().manual_seed(1))


def test_distance_to_the_nearest_code(generator: Generator) -> None:
    metric = DistanceToW(generator, samples=300, seed=4)
    w = codes()
    metric.update(w[:2], torch.tensor([0, 1]))
    metric.update(w[2:], torch.tensor([2, 3, 4]))
    cloud = sample_w(generator, 330, seed=4).double().numpy()
    samples, new = cloud[:300], cloud[300:]

    def nearest(rows: np.ndarray) -> np.ndarray:
        return np.sqrt(((rows[:, None] - samples[None]) ** 2).sum(-1)).min(1)

    want = [nearest(rows.double().numpy()).mean() / nearest(new).mean() for rows in w]
    np.testing.assert_allclose(metric.per_image()[1], want, rtol=1e-3)


def test_codes_of_w_have_a_distance_of_one(generator: Generator) -> None:
    metric = DistanceToW(generator, samples=2000)
    inside = sample_w(generator, 200, seed=99)[:, None].expand(-1, 6, -1)
    metric.update(inside)
    assert float(metric.compute()) == pytest.approx(1, abs=0.15)
    metric.reset()
    metric.update(inside + 3 * codes(200))
    assert float(metric.compute()) > 2


def test_spread_against_the_closed_form(generator: Generator) -> None:
    metric = CodeSpread(generator, samples=500, seed=2)
    one = codes(3)[:, :1].expand(-1, 6, -1)
    offset = torch.zeros(6, 8)
    offset[:, 0] = torch.tensor([3.0, -3.0, 3.0, -3.0, 3.0, -3.0])  # each row has a distance of 3 to their mean
    metric.update(torch.cat([one, one + offset]))
    cloud = sample_w(generator, 500, seed=2).double().numpy()
    radius = np.sqrt(((cloud - cloud.mean(0)) ** 2).sum(1).mean())
    np.testing.assert_allclose(metric.per_image()[1], [0, 0, 0, *[3 / radius] * 3], atol=1e-6)


def test_consistency_of_a_constant_and_of_an_exact_inverter(generator: Generator) -> None:
    w = codes(4)
    shift = torch.zeros(8)
    shift[2] = 1.0

    def edit(w: Tensor, strength: float) -> Tensor:
        return w + strength * shift

    seen: list[Tensor] = []

    def constant(image: Tensor) -> Tensor:
        assert torch.is_grad_enabled(), "methods that optimise need gradients"
        seen.append(image)
        return torch.zeros_like(w)

    metric = LatentEditingConsistency(generator, constant, edit, 3.0)
    metric.update(w)
    # w - edit^-1(0) = w + 3 shift
    np.testing.assert_allclose(metric.per_image()[1], (w + 3 * shift).flatten(1).norm(dim=1), rtol=1e-6)
    torch.testing.assert_close(seen[0], generator.synthesis(w + 3 * shift, noise="const"))
    exact = LatentEditingConsistency(generator, lambda image: edit(w, 3.0), edit, 3.0)
    exact.update(w)
    assert float(exact.compute()) == pytest.approx(0, abs=1e-5)
    identity = LatentEditingConsistency(generator, lambda image: w + 0.5, lambda w, strength: w, 3.0)
    identity.update(w)  # an identity edit measures the round trip: 0.5 in each of 6 x 8 numbers
    np.testing.assert_allclose(identity.per_image()[1], [0.5 * np.sqrt(48)] * 4, rtol=1e-6)
