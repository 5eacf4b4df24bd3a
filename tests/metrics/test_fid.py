"""FID and KID against their definitions on features of torch-fidelity's extractor; the weights are random."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch_fidelity import feature_extractor_inceptionv3 as inception

from stylegan_inv import config
from stylegan_inv.data.images.image_files import to_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.metrics.fid import FID, KID, load_inception
from stylegan_inv.metrics.full_set import FullFID


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with the format of the published one and random weights."""
    folder = tmp_path_factory.mktemp("inception")
    torch.manual_seed(0)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(nn.Module, "load_state_dict", lambda self, state: None)
        torch.save({}, folder / "none.pth")
        network = inception.FeatureExtractorInceptionV3("any", ["2048"], str(folder / "none.pth"))
    for part in network.modules():
        if isinstance(part, nn.Conv2d):
            nn.init.kaiming_normal_(part.weight)  # PyTorch's default initialisation makes all features nearly zero
    torch.save(network.state_dict(), folder / "inception.pth")
    return folder / "inception.pth"


def sets(count: int = 5) -> tuple[Tensor, Tensor]:
    torch.manual_seed(1)
    return torch.rand(count, 3, 40, 40) * 2 - 1, (torch.rand(count + 2, 3, 40, 40) * 1.4 - 1).clamp(-1, 1)


@pytest.fixture(scope="module")
def features(weights: Path) -> tuple[np.ndarray, np.ndarray]:
    """torch-fidelity's features of both sets of images, rounded to 8 bits."""
    network = inception.FeatureExtractorInceptionV3("any", ["2048"], str(weights))
    real, fake = (network(to_uint8(images))[0].double().numpy() for images in sets())
    return real, fake


def updated(metric: FID | KID) -> float:
    real, fake = sets()
    for part in real.split(3):
        metric.update(part, real=True)
    for part in fake.split(4):
        metric.update(part, real=False)
    return float(metric.compute())


def test_fid_is_the_formula(weights: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = features
    x, y = (a - a.mean(0)) / len(a[1:]) ** 0.5, (b - b.mean(0)) / len(b[1:]) ** 0.5
    # Trace of the square root of the product of the covariances x'x and y'y.
    root = np.linalg.svd(x @ y.T, compute_uv=False).sum()
    want = ((a.mean(0) - b.mean(0)) ** 2).sum() + (x**2).sum() + (y**2).sum() - 2 * root
    assert updated(FID(weights)) == pytest.approx(want, rel=1e-4)


def test_kid_is_the_formula(weights: Path, features: tuple[np.ndarray, np.ndarray]) -> None:
    a, b = features
    n, m = len(a), len(b)

    def kernel(x: np.ndarray, y: np.ndarray) -> float:
        return (x @ y / x.size + 1) ** 3

    want = sum(kernel(x, y) for i, x in enumerate(a) for j, y in enumerate(a) if i != j) / (n * (n - 1))
    want += sum(kernel(x, y) for i, x in enumerate(b) for j, y in enumerate(b) if i != j) / (m * (m - 1))
    want -= 2 * sum(kernel(x, y) for x in a for y in b) / (n * m)
    assert updated(KID(weights)) == pytest.approx(want, rel=1e-4)


def test_both_share_one_network_and_describe_it(weights: Path) -> None:
    assert load_inception(weights) is load_inception(weights)
    assert "sha256" in FID(weights).describe() and "not FID" not in FID(weights).describe()


def test_other_weights_are_refused(tmp_path: Path) -> None:
    torch.save({"conv.weight": torch.zeros(3)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match="not the weights of Inception"):
        FID(tmp_path / "other.pth")


def test_the_config_builds_both(weights: Path) -> None:
    places = ["images=a", "targets=b", f"metrics.fid.weights='{weights}'", f"metrics.kid.weights='{weights}'"]
    metrics = config.compose("evaluate", ["metrics=evaluation_fid", *places]).metrics
    fid, kid = config.instantiate(metrics.fid), config.instantiate(metrics.kid)
    assert isinstance(fid, FID) and isinstance(kid, KID) and fid.frozen.network is kid.frozen.network


def test_fid_of_all_training_images(weights: Path) -> None:
    """It adds up the features of FID, and records how many images it is of."""
    place = f"metrics.fid50k_full.weights='{weights}'"
    node = config.compose("train", ["method=stylegan2", "metrics=fid50k_full", place]).metrics.fid50k_full
    assert node.generated == 50_000
    node.generated = 2
    metric, other = config.instantiate(node), FID(weights)
    real, fake = (images[:2] for images in sets())
    metric.fill(lambda: real.split(1), lambda count: fake, 3)
    other.update(real, real=True)
    other.update(fake, real=False)
    for name in ("real_sum", "real_outer", "fake_sum", "fake_outer"):
        torch.testing.assert_close(getattr(metric, name), getattr(other, name))
    assert (int(metric.fake_count), int(metric.real_count)) == (2, 2)
    assert "2 generated images against all training images" in metric.describe() and "not FID" not in metric.describe()


def test_torch_fidelity_is_missing(weights: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    load_inception.cache_clear()
    monkeypatch.setitem(sys.modules, "torch_fidelity.feature_extractor_inceptionv3", None)
    with pytest.raises(UserError, match=r"need torch-fidelity: pip install 'stylegan_inv\[fid\]'"):
        FullFID(weights)
