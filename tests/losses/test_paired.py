"""Paired regression against loops, its schedule, and the latent codes of known images."""

from __future__ import annotations

import math

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import normalize_2nd_moment
from stylegan_inv.losses.paired.image_regression import PairedRegression, difference_l1, pyramid_l1
from stylegan_inv.losses.paired.warm_start import PairedWarmStart


def test_pyramid_and_differences_against_loops() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 1, 4, 4, dtype=torch.float64)
    error = (a - b)[0, 0]
    full = float(error.abs().mean())
    half = sum(abs(float(error[y : y + 2, x : x + 2].mean())) for y in (0, 2) for x in (0, 2)) / 4
    assert float(pyramid_l1(a, b, 2)) == pytest.approx((full + half) / 2)
    horizontal = [abs(float(error[y, x + 1] - error[y, x])) for y in range(4) for x in range(3)]
    vertical = [abs(float(error[y + 1, x] - error[y, x])) for y in range(3) for x in range(4)]
    assert float(difference_l1(a, b)) == pytest.approx(sum(horizontal) / 12 + sum(vertical) / 12)
    shifted = a + 0.5
    assert float(difference_l1(shifted, a)) == pytest.approx(0, abs=1e-12)
    assert float(PairedRegression(edge=2.0, levels=2)(a, b)) == pytest.approx(
        float(pyramid_l1(a, b, 2) + 2 * difference_l1(a, b))
    )


def test_detail_weights_pixels_by_local_contrast() -> None:
    torch.manual_seed(0)
    a, b = torch.randn(2, 1, 3, 6, 6, dtype=torch.float64)
    weight = torch.empty(6, 6, dtype=torch.float64)
    for y in range(6):
        for x in range(6):
            # Pixels outside the image repeat its edge.
            near = [b[0, :, min(max(y + i, 0), 5), min(max(x + j, 0), 5)] for i in range(-2, 3) for j in range(-2, 3)]
            weight[y, x] = 1 + 3 * (b[0, :, y, x] - torch.stack(near).mean(0)).abs().mean()
    error = (a - b)[0]
    across, down = (error[..., 1:] - error[..., :-1]).abs(), (error[:, 1:] - error[:, :-1]).abs()
    expected = (error.abs() * weight).mean() + (across * weight[:, 1:]).mean() + (down * weight[1:]).mean()
    torch.testing.assert_close(PairedRegression(edge=1.0, levels=1, detail=3.0)(a, b), expected)
    flat = torch.full_like(b, 0.3)
    torch.testing.assert_close(PairedRegression(detail=9.0)(a, flat), PairedRegression()(a, flat))


def test_network_of_the_perceptual_term_is_not_in_the_state() -> None:
    class Network(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.conv = torch.nn.Conv2d(3, 4, 3)

        def features(self, image):
            return [self.conv(image)]

    loss = PairedRegression(perceptual=1.0, network=Network())
    assert not loss.state_dict() and not list(loss.parameters())
    a, b = torch.rand(2, 2, 3, 8, 8)
    assert loss(a, b) > PairedRegression()(a, b) and not loss(a, a).any()


def test_schedule() -> None:
    paired = PairedWarmStart(
        warmup_images=1000, warmup_lr=1.0, weight=10, final_weight=2, decay_images=400, ramp_images=200
    )
    assert paired.warming_up(999) and not paired.warming_up(1000)
    assert paired.lr(500) == pytest.approx(0.1 + 0.45) and paired.lr(1000) == pytest.approx(0.1)
    assert paired.lr(0) == pytest.approx(0.1)  # the first hundredth rises
    assert [paired.weight(n) for n in (0, 1000, 1200, 1400, 9999)] == [1.0, 10.0, 6.0, 2.0, 2.0]
    assert [paired.adversarial_weight(n) for n in (1000, 1100, 1200, 9999)] == [0.0, 0.5, 1.0, 1.0]
    with pytest.raises(UserError, match="fraction=0"):
        PairedWarmStart(fraction=0)


def test_mapping_network_sees_the_normals_unchanged() -> None:
    torch.manual_seed(0)
    normals = torch.randn(200, 20, dtype=torch.float64)
    z = PairedWarmStart.latents(normals, 64)
    torch.testing.assert_close(z.square().sum(1), torch.full((200,), 64.0, dtype=torch.float64))
    torch.testing.assert_close(normalize_2nd_moment(z)[:, :20], normals, rtol=1e-6, atol=1e-7)
    rest = z[:, 20:]
    assert abs(float(rest.mean())) < 0.05 and float(rest.std()) == pytest.approx(1, abs=0.05)
    long = PairedWarmStart.latents(torch.full((1, 20), 3.0), 64)  # |n|^2 = 180 > 64: shrinks and stays finite
    assert torch.isfinite(long).all() and math.isclose(float(long[0, 0]), 3.0)
    with pytest.raises(UserError, match="z_dim=20"):
        PairedWarmStart.latents(normals, 20)
