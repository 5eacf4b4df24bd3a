"""Pixel metrics against scikit-image, torchmetrics and plain numpy."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.metrics import peak_signal_noise_ratio, structural_similarity
from torchmetrics.functional.image import (
    multiscale_structural_similarity_index_measure,
    structural_similarity_index_measure,
)
from torchmetrics.functional.image import (
    peak_signal_noise_ratio as torchmetrics_psnr,
)

from stylegan_inv.errors import UserError
from stylegan_inv.metrics import image as functional
from stylegan_inv.metrics.image import MSE, MSSSIM, PSNR, SSIM, AverageImageRatio


def pair(batch: int = 3, size: int = 64) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    base = torch.nn.functional.interpolate(
        torch.rand(batch, 3, 8, 8, generator=generator, dtype=torch.float64), size=(size, size), mode="bicubic"
    )
    x = (base * 2 - 1).clamp(-1, 1)
    scale = torch.linspace(0.02, 0.3, batch, dtype=torch.float64)[:, None, None, None]
    y = (x + scale * torch.randn(x.shape, generator=generator, dtype=torch.float64)).clamp(-1, 1)
    return y, x


def test_mse_and_psnr() -> None:
    y, x = pair()
    want = ((y.numpy() - x.numpy()) ** 2).mean(axis=(1, 2, 3))
    np.testing.assert_allclose(functional.mse(y, x), want, rtol=1e-12)
    want = [peak_signal_noise_ratio(a, b, data_range=2) for a, b in zip(x.numpy(), y.numpy(), strict=True)]
    np.testing.assert_allclose(functional.psnr(y, x), want, rtol=1e-12)
    other = torchmetrics_psnr(y, x, data_range=2.0, reduction="none", dim=(1, 2, 3))
    torch.testing.assert_close(functional.psnr(y, x), other)
    assert functional.psnr(x, x).isfinite().all()


def test_ssim_equals_scikit_image_and_torchmetrics() -> None:
    y, x = pair()
    want = [
        structural_similarity(
            a, b, data_range=2, channel_axis=0, gaussian_weights=True, sigma=1.5, use_sample_covariance=False
        )
        for a, b in zip(x.numpy(), y.numpy(), strict=True)
    ]
    np.testing.assert_allclose(functional.ssim(y, x), want, rtol=1e-7)
    _, maps = structural_similarity_index_measure(
        y, x, data_range=2.0, sigma=1.5, reduction="none", return_full_image=True
    )
    # torchmetrics averages over padded positions as well.
    torch.testing.assert_close(functional.ssim(y, x), maps[..., 5:-5, 5:-5].mean((1, 2, 3)), rtol=1e-6, atol=0)


def test_ms_ssim_equals_torchmetrics() -> None:
    y, x = pair(2, 192)
    got = functional.ms_ssim(y, x)
    # torchmetrics averages over channels before the power, so it is called for one channel at a time.
    want = torch.stack(
        [
            torch.stack(
                [
                    multiscale_structural_similarity_index_measure(
                        y[i : i + 1, c : c + 1], x[i : i + 1, c : c + 1], data_range=2.0, kernel_size=11, sigma=1.5
                    )
                    for c in range(3)
                ]
            ).mean()
            for i in range(2)
        ]
    )
    torch.testing.assert_close(got, want.to(got.dtype), rtol=2e-3, atol=2e-4)


def test_too_small_images() -> None:
    with pytest.raises(UserError, match="expected at least 176 px"):
        functional.ms_ssim(*pair(1, 64))
    with pytest.raises(UserError, match="at least 11 px"):
        functional.ssim(torch.zeros(1, 3, 8, 8), torch.zeros(1, 3, 8, 8))
    assert functional.ms_ssim(*pair(1, 64), weights=(0.5, 0.5)).shape == (1,)


@pytest.mark.parametrize("metric", [MSE, PSNR, SSIM, lambda: MSSSIM(weights=(0.4, 0.6))])
def test_result_does_not_depend_on_the_batch_size_and_values_are_kept(metric) -> None:
    y, x = pair(5)
    whole, parts = metric(), metric()
    whole.update(y, x)
    for start, end in ((0, 1), (1, 2), (2, 5)):
        parts.update(y[start:end], x[start:end])
    torch.testing.assert_close(whole.compute(), parts.compute(), rtol=1e-12, atol=0)
    assert len(whole.per_image()[1]) == 5
    torch.testing.assert_close(whole.per_image()[1].mean(), whole.compute())
    parts.reset()
    assert parts.compute().isnan()


def test_images_are_clamped() -> None:
    target = torch.ones(1, 3, 16, 16)
    metric = MSE()
    metric.update(target * 3, target)
    assert metric.compute() == 0
    raw = MSE(clamp=False)
    raw.update(target * 3, target)
    assert raw.compute() == 4


def test_values_are_sorted_by_index_and_padding_is_counted_once() -> None:
    y, x = pair(4)
    metric = MSE()
    metric.update(y[[3, 1]], x[[3, 1]], index=torch.tensor([3, 1]))
    metric.update(y[[0, 2, 3]], x[[0, 2, 3]], index=torch.tensor([0, 2, 3]))  # 3 occurs twice
    index, value = metric.per_image()
    assert index.tolist() == [0, 1, 2, 3]
    torch.testing.assert_close(value, functional.mse(y, x))
    torch.testing.assert_close(metric.compute(), functional.mse(y, x).mean())


def test_average_image_ratio() -> None:
    y, x = pair()
    average = x.mean(dim=0)
    metric = AverageImageRatio(average)
    metric.update(average.expand_as(x), x)
    assert metric.compute() == pytest.approx(1)
    metric.reset()
    metric.update(x, x)
    assert metric.compute() == 0


def test_shapes_are_checked() -> None:
    with pytest.raises(UserError, match="expected two equal"):
        MSE().update(torch.zeros(1, 3, 8, 8), torch.zeros(2, 3, 8, 8))


def test_masked_metrics_against_numpy() -> None:
    y, x = pair(3)
    mask = torch.zeros(3, 1, 64, 64, dtype=torch.float64)
    mask[0, :, 10:40, 20:50], mask[1, :, 30:, :35] = 1, 0.5
    for metric, functional_form in (
        (MSE(), functional.masked_mse),
        (PSNR(), functional.psnr),
        (SSIM(), functional.ssim),
    ):
        metric.update(y, x, mask=mask)
        got = metric.per_image()[1]
        torch.testing.assert_close(got, functional_form(y, x, mask), equal_nan=True)
        assert got.isnan().tolist() == [False, False, True], "the third mask is empty"
        full = type(metric)()
        full.update(y, x, mask=torch.ones_like(mask))
        plain = type(metric)()
        plain.update(y, x)
        torch.testing.assert_close(full.compute(), plain.compute())
    a, b = y[0].numpy(), x[0].numpy()
    inside = ((a - b) ** 2)[:, 10:40, 20:50].mean()
    np.testing.assert_allclose(functional.masked_mse(y, x, mask)[0], inside)
    np.testing.assert_allclose(functional.psnr(y, x, mask)[0], 10 * np.log10(4 / inside))
    options = {
        "data_range": 2,
        "channel_axis": 0,
        "gaussian_weights": True,
        "use_sample_covariance": False,
        "full": True,
    }
    whole = structural_similarity(b, a, sigma=1.5, **options)[1]
    np.testing.assert_allclose(functional.ssim(y, x, mask)[0], whole[:, 10:40, 20:50].mean(), rtol=1e-7)


def test_ms_ssim_uses_the_scales_that_fit() -> None:
    assert functional.scales_that_fit(256) == pytest.approx(functional.MS_SSIM_WEIGHTS, abs=2e-4)
    assert len(functional.scales_that_fit(64)) == 3 and sum(functional.scales_that_fit(64)) == pytest.approx(1)
    y, x = pair(2)
    metric, masked = MSSSIM(weights=None), MSSSIM(weights=None)
    metric.update(y, x)
    masked.update(y, x, mask=torch.ones(2, 1, 64, 64, dtype=torch.float64))
    torch.testing.assert_close(metric.compute(), masked.compute())
    torch.testing.assert_close(metric.compute(), functional.ms_ssim(y, x, functional.scales_that_fit(64)).mean())
    assert "3 scales with weights 0.07105" in metric.describe()


def test_masks_of_another_shape() -> None:
    with pytest.raises(UserError, match="got masks of shape"):
        MSE().update(torch.zeros(2, 3, 8, 8), torch.zeros(2, 3, 8, 8), mask=torch.ones(2, 3, 8, 8))
