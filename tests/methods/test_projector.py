"""The schedules and the noise regularisation of the projector against values computed from the official description."""

from __future__ import annotations

import math

import pytest
import torch

from stylegan_inv.methods.projector import Projector, autocorrelation, lr_ramp
from tests.methods.tiny import tiny, tiny_images


def test_lr_rises_linearly_and_falls_as_a_cosine() -> None:
    assert lr_ramp(0.0, 0.05, 0.25) == 0 and lr_ramp(0.025, 0.05, 0.25) == pytest.approx(0.5)
    assert lr_ramp(0.5, 0.05, 0.25) == 1 and lr_ramp(0.75, 0.05, 0.25) == 1
    assert lr_ramp(0.875, 0.05, 0.25) == pytest.approx(0.5)
    assert lr_ramp(0.9, 0.05, 0.25) == pytest.approx(0.5 - 0.5 * math.cos(math.pi * 0.4))


def test_noise_on_w_decays() -> None:
    method = tiny(Projector, steps=100, w_avg_samples=4000)
    w = method.generator.mapping.w(torch.randn(20000, 8, dtype=torch.float64))
    spread = (w - method.generator.w_avg).square().sum(1).mean().sqrt()
    assert method.w_std() == pytest.approx(float(spread), rel=0.05)
    assert method.w_noise_scale(0) == pytest.approx(0.05 * method.w_std())
    assert method.w_noise_scale(30) == pytest.approx(0.05 * method.w_std() * 0.36)
    assert method.w_noise_scale(75) == method.w_noise_scale(99) == 0


def test_autocorrelation_by_loops() -> None:
    torch.manual_seed(0)
    maps = torch.randn(2, 1, 16, 16, dtype=torch.float64)
    want = torch.zeros(2, dtype=torch.float64)
    for b in range(2):
        for m in (maps[b, 0], maps[b, 0].view(8, 2, 8, 2).mean((1, 3))):
            r = len(m)
            right = sum(m[i, j] * m[i, (j + 1) % r] for i in range(r) for j in range(r)) / r**2
            below = sum(m[i, j] * m[(i + 1) % r, j] for i in range(r) for j in range(r)) / r**2
            want[b] += right**2 + below**2
    torch.testing.assert_close(autocorrelation(maps), want)
    stripes = torch.ones(1, 1, 16, 16).cumsum(3) % 2
    assert autocorrelation(2 * stripes - 1) > 100 * autocorrelation(maps[:1])


def test_one_code_in_w_and_white_noise() -> None:
    found = tiny(Projector, steps=12, w_avg_samples=50).invert(tiny_images(2))
    assert torch.equal(found.w[:, 0], found.w[:, 5]) and not torch.equal(found.w[0], found.w[1])
    assert found.noise is not None
    for m in found.noise:
        torch.testing.assert_close(m.mean((1, 2, 3)), torch.zeros(2, dtype=m.dtype), atol=1e-9, rtol=0)
        torch.testing.assert_close(m.square().mean((1, 2, 3)), torch.ones(2, dtype=m.dtype))
    plus = tiny(Projector, space="w_plus", steps=12, w_avg_samples=50).invert(tiny_images(2))
    assert not torch.equal(plus.w[:, 0], plus.w[:, 5])
