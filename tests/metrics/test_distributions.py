"""Frechet distance, kernel distance, precision and recall against closed forms, brute force and other libraries."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.linalg
import torch
from torch import Tensor, nn
from torch_fidelity.metric_fid import fid_features_to_statistics, fid_statistics_to_metric
from torch_fidelity.metric_kid import kid_features_to_metric
from torch_fidelity.metric_prc import prc_features_to_metric
from torchmetrics.image import FrechetInceptionDistance, KernelInceptionDistance

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.frechet import FrechetDistance, frechet_distance, gaussian_frechet
from stylegan_inv.metrics.kernel import KernelDistance, kernel_distance
from stylegan_inv.metrics.precision_recall import PrecisionRecall, coverage, manifold_radii, precision_recall


class Pixels(nn.Module):
    """Returns pixels as features, so that the features are known."""

    def pooled(self, images: Tensor) -> Tensor:
        return images.flatten(1)[:, :6]


class FirstPixels(nn.Module):
    """The interface of torchmetrics: a module with ``num_features``."""

    num_features = 6

    def forward(self, images: Tensor) -> Tensor:
        return Pixels().pooled(images)


def image_sets() -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(0)
    real = torch.rand(40, 3, 4, 4, generator=generator)
    return real, torch.rand(40, 3, 4, 4, generator=generator) * 0.8 + 0.1


def updated(metric: FrechetDistance | KernelDistance | PrecisionRecall) -> Tensor | dict[str, Tensor]:
    real, fake = image_sets()
    for chunk in real.split(7):
        metric.update(chunk, real=True)
    for chunk in fake.split(11):
        metric.update(chunk, real=False)
    return metric.compute()


def test_frechet_distance_equals_other_libraries() -> None:
    got = updated(FrechetDistance(Pixels(), features=6))
    real, fake = image_sets()
    statistics = [fid_features_to_statistics(Pixels().pooled(images).double()) for images in (real, fake)]
    want = fid_statistics_to_metric(*statistics, verbose=False)["frechet_inception_distance"]
    assert float(got) == pytest.approx(want, rel=1e-9)
    other = FrechetInceptionDistance(FirstPixels())
    other.update(real, real=True)
    other.update(fake, real=False)
    assert float(got) == pytest.approx(float(other.compute()), rel=1e-5)


def test_kernel_distance_equals_other_libraries_with_one_subset_of_all_images() -> None:
    got = updated(KernelDistance(Pixels(), features=6))
    real, fake = image_sets()
    features = [Pixels().pooled(images).double() for images in (fake, real)]
    want = kid_features_to_metric(*features, kid_subsets=1, kid_subset_size=40, verbose=False, rng_seed=0)
    assert float(got) == pytest.approx(want["kernel_inception_distance_mean"], rel=1e-9)
    other = KernelInceptionDistance(FirstPixels(), subsets=1, subset_size=40)
    other.update(real, real=True)
    other.update(fake, real=False)
    assert float(got) == pytest.approx(float(other.compute()[0]), rel=1e-3)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_equal_torch_fidelity(k: int) -> None:
    got = updated(PrecisionRecall(Pixels(), k=k, features=6))
    real, fake = image_sets()
    want = prc_features_to_metric(
        Pixels().pooled(fake).double(), Pixels().pooled(real).double(), prc_neighborhood=k, verbose=False
    )
    assert isinstance(got, dict) and 0 < got["recall"] < 1
    assert float(got["precision"]) == pytest.approx(want["precision"], abs=1e-6)
    assert float(got["recall"]) == pytest.approx(want["recall"], abs=1e-6)


def test_size_of_the_features_is_required() -> None:
    with pytest.raises(UserError, match="got no size for Pixels"):
        FrechetDistance(Pixels())
    assert FrechetDistance("face_eval").features > 0


def random_covariance(seed: int, dim: int = 6, rank: int = 8) -> Tensor:
    a = torch.randn(rank, dim, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))
    return a.T @ a / rank


def test_one_dimension_in_closed_form() -> None:
    a, b = torch.tensor([1.0]), torch.tensor([4.0])
    got = gaussian_frechet(a, torch.tensor([[4.0]]), b, torch.tensor([[25.0]]))
    assert float(got) == pytest.approx((4 - 1) ** 2 + (5 - 2) ** 2)


def test_commuting_covariances_in_closed_form() -> None:
    basis = torch.linalg.qr(torch.randn(5, 5, dtype=torch.float64)).Q
    u, v = torch.rand(5, dtype=torch.float64), torch.rand(5, dtype=torch.float64)
    zero = torch.zeros(5, dtype=torch.float64)
    got = gaussian_frechet(zero, basis @ torch.diag(u) @ basis.T, zero + 1, basis @ torch.diag(v) @ basis.T)
    assert float(got) == pytest.approx(5 + float((u.sqrt() - v.sqrt()).square().sum()), rel=1e-9)


@pytest.mark.parametrize("rank", [8, 3])
def test_general_covariances_against_scipy(rank: int) -> None:
    a, b = random_covariance(0, rank=rank), random_covariance(1)
    zero = torch.zeros(6, dtype=torch.float64)
    root = scipy.linalg.sqrtm((a @ b + (1e-12 if rank == 3 else 0) * torch.eye(6)).numpy())
    want = float(a.trace() + b.trace()) - 2 * np.trace(root).real
    assert float(gaussian_frechet(zero, a, zero, b)) == pytest.approx(want, rel=1e-4)
    assert float(gaussian_frechet(zero, a, zero, a)) == pytest.approx(0, abs=1e-9)
    torch.testing.assert_close(gaussian_frechet(zero, a, zero, b), gaussian_frechet(zero, b, zero, a))


def test_large_samples_reach_the_gaussian_value() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(40000, 3, generator=generator)
    b = 2 * torch.randn(40000, 3, generator=generator) + 1
    assert float(frechet_distance(a, b)) == pytest.approx(3 + 3, rel=0.05)


def test_metric_equals_the_function_for_any_batches() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(40, 3, 4, 4), torch.rand(30, 3, 4, 4) * 0.5 + 3
    metric = FrechetDistance(Pixels(), features=6)
    for chunk in real.split(7):
        metric.update(chunk, real=True)
    for chunk in fake.split(1):
        metric.update(chunk, real=False)
    want = frechet_distance(Pixels().pooled(real), Pixels().pooled(fake))
    torch.testing.assert_close(metric.compute(), want, rtol=1e-9, atol=1e-9)
    metric.reset()
    metric.update(real[:1], real=True)
    with pytest.raises(UserError, match="got 1 real images, expected at least 2"):
        metric.compute()


def brute_force(points: Tensor, manifold: Tensor, k: int) -> float:
    points_, manifold_ = points.double().numpy(), manifold.double().numpy()
    hits = 0
    for p in points_:
        for i, m in enumerate(manifold_):
            others = sorted(np.linalg.norm(m - o) for j, o in enumerate(manifold_) if j != i)
            if np.linalg.norm(p - m) <= others[k - 1]:
                hits += 1
                break
    return hits / len(points_)


@pytest.mark.parametrize("k", [1, 3])
def test_precision_and_recall_against_brute_force(k: int) -> None:
    generator = torch.Generator().manual_seed(k)
    real = torch.randn(37, 4, generator=generator)
    fake = 0.7 * torch.randn(29, 4, generator=generator) + 0.5
    fake[3] = real[5]
    fake[4] = fake[5]  # an equal feature is a neighbour at distance zero
    precision, recall = precision_recall(real, fake, k)
    assert float(precision) == pytest.approx(brute_force(fake, real, k))
    assert float(recall) == pytest.approx(brute_force(real, fake, k))
    assert 0 < float(precision) <= 1


def test_result_does_not_depend_on_the_chunk_size() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = torch.randn(50, 5, generator=generator), torch.randn(60, 5, generator=generator)
    assert coverage(a, b, chunk=7) == coverage(a, b)
    torch.testing.assert_close(manifold_radii(a, chunk=7), manifold_radii(a))


def test_extremes() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(30, 3, generator=generator)
    assert precision_recall(a, a.clone()) == (1, 1)
    assert precision_recall(a, a + 1000) == (0, 0)
    precision, recall = precision_recall(a, a[:1] + 1e-3 * torch.randn(30, 3, generator=generator))  # mode collapse
    assert precision == 1 and recall < 0.2


def test_precision_recall_metric() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(12, 3, 4, 4), torch.rand(10, 3, 4, 4)
    metric = PrecisionRecall(Pixels(), features=6)
    for chunk in real.split(5):
        metric.update(chunk, real=True)
    metric.update(fake, real=False)
    want = precision_recall(Pixels().pooled(real), Pixels().pooled(fake))
    got = metric.compute()
    assert (got["precision"], got["recall"]) == want
    with pytest.raises(UserError, match="k=0: expected a whole number"):
        PrecisionRecall(Pixels(), k=0, features=6)
    small = PrecisionRecall(Pixels(), features=6)
    small.update(real[:2], real=True)
    with pytest.raises(UserError, match="expected at least 4"):
        small.compute()


def test_kernel_distance_against_brute_force() -> None:
    generator = torch.Generator().manual_seed(0)
    a, b = (torch.randn(n, 4, generator=generator).double() for n in (9, 12))

    def kernel(x: Tensor, y: Tensor) -> float:
        return (float(x @ y) / 4 + 1) ** 3

    same_a = np.mean([kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j])
    same_b = np.mean([kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j])
    across = np.mean([kernel(x, y) for x in a for y in b])
    assert float(kernel_distance(a, b, chunk=4)) == pytest.approx(same_a + same_b - 2 * across, rel=1e-10)


def test_kernel_distance_is_unbiased() -> None:
    generator = torch.Generator().manual_seed(0)
    draws = [float(kernel_distance(*torch.randn(2, 15, 3, generator=generator), chunk=100)) for _ in range(1500)]
    assert abs(np.mean(draws)) < 4 * np.std(draws) / np.sqrt(len(draws)) and min(draws) < 0 < max(draws)
    far = kernel_distance(torch.randn(50, 3, generator=generator), torch.randn(50, 3, generator=generator) + 2)
    assert float(far) > 10 * np.std(draws)


def test_kernel_distance_metric() -> None:
    torch.manual_seed(0)
    real, fake = torch.rand(12, 3, 4, 4), torch.rand(10, 3, 4, 4)
    metric = KernelDistance(Pixels(), features=6)
    for chunk in real.split(5):
        metric.update(chunk, real=True)
    metric.update(fake[:1], real=False)
    with pytest.raises(UserError, match="got 12 and 1 images, expected at least 2"):
        metric.compute()
    metric.update(fake[1:], real=False)
    torch.testing.assert_close(metric.compute(), kernel_distance(Pixels().pooled(real), Pixels().pooled(fake)))
