"""Metrics share forward passes of a network but no outdated results; protocols name the right file."""

from __future__ import annotations

import hashlib
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from stylegan_inv.encoders.face_network import ASSETS
from stylegan_inv.encoders.irse import FaceRecognition
from stylegan_inv.losses.crop import face_crop
from stylegan_inv.metrics import recognition
from stylegan_inv.metrics.face_similarity import IdentitySimilarity
from stylegan_inv.metrics.networks import ResultCache, describe_network, masked
from stylegan_inv.metrics.perceptual_distance import EmbeddedPerceptualDistance


class Counting(nn.Module):
    """Returns the image as the only feature map and counts forward passes."""

    def __init__(self) -> None:
        super().__init__()
        self.passes = 0

    def features(self, image: Tensor) -> list[Tensor]:
        self.passes += 1
        return [image]

    def embed_features(self, maps: list[Tensor]) -> Tensor:
        return nn.functional.normalize(maps[0].flatten(1), dim=1)


def test_metrics_share_forward_passes_over_steps_and_regions() -> None:
    network = Counting()
    metrics = [IdentitySimilarity(network), EmbeddedPerceptualDistance(network)]
    target, mask = torch.rand(2, 3, 8, 8), (torch.rand(2, 1, 8, 8) > 0.5).float()
    for _ in range(3):
        image = torch.rand(2, 3, 8, 8)
        for metric in metrics:
            metric.update(image, target)
            metric.update(image, target, mask=mask)
    assert network.passes == 2 + 3 * 2  # target and masked target once, image and masked image in each step
    single = IdentitySimilarity(Counting())
    single.update(image, target, mask=mask)
    want = nn.functional.cosine_similarity((image * mask).flatten(1), (target * mask).flatten(1))
    torch.testing.assert_close(single.per_image()[1], want.double(), rtol=1e-5, atol=1e-6)


def test_changed_or_deleted_tensors_are_not_recognised() -> None:
    cache = ResultCache(size=3)

    def double(x: Tensor) -> Tensor:
        return 2 * x

    x = torch.ones(3)
    assert cache(None.__class__, double, x).tolist() == [2, 2, 2]
    x.add_(1)
    assert cache(None.__class__, double, x).tolist() == [4, 4, 4]
    for value in range(50):  # Python reuses ids of deleted tensors
        assert cache(None.__class__, double, torch.full((3,), float(value))).tolist() == [2.0 * value] * 3
    assert len(cache._results) <= 3
    with torch.inference_mode():
        y = torch.ones(2)
        assert cache(None.__class__, double, y).tolist() == [2, 2]
        y.add_(1)
        assert cache(None.__class__, double, y).tolist() == [4, 4]
    image, mask = torch.rand(1, 3, 4, 4), torch.rand(1, 1, 4, 4)
    assert masked(image, mask) is masked(image, mask)
    assert not masked(image, mask).equal(masked(image, mask.clone() * 0))


def test_empty_regions_have_no_value() -> None:
    metric = EmbeddedPerceptualDistance(Counting())
    mask = torch.stack([torch.zeros(1, 8, 8), torch.ones(1, 8, 8)])
    metric.update(torch.rand(2, 3, 8, 8), torch.rand(2, 3, 8, 8), mask=mask)
    assert metric.per_image()[1].isnan().tolist() == [True, False]


def test_names_and_hashes(tmp_path: Path) -> None:
    digest = hashlib.sha256((ASSETS / "face_eval.safetensors").read_bytes()).hexdigest()
    assert describe_network("face_eval", nn.Identity()) == f"face_eval (sha256 {digest[:12]})"
    assert digest[:12] in IdentitySimilarity("face_eval").describe()
    first, second = nn.Linear(2, 2), nn.Linear(2, 2)
    assert describe_network(None, first) != describe_network(None, second)
    second.load_state_dict(first.state_dict())
    assert describe_network(None, first) == describe_network(None, second)


def test_curricularface_receives_the_crop_of_the_identity_loss(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def small() -> FaceRecognition:
        return FaceRecognition((1, 1, 1, 1), se=False, affine=False, channels=(4, 4, 8, 8))

    torch.manual_seed(0)
    network = small().eval()
    save_file(network.state_dict(), tmp_path / "c.safetensors")
    monkeypatch.setattr(recognition, "curricularface", small)
    metric = IdentitySimilarity(recognition.load_curricularface(str(tmp_path / "c.safetensors")))
    x, y = torch.rand(2, 2, 3, 256, 256)
    metric.update(x, y)
    crops = [nn.functional.adaptive_avg_pool2d(face_crop(image), (112, 112)) for image in (x, y)]
    want = nn.functional.cosine_similarity(*(network(crop) for crop in crops))
    torch.testing.assert_close(metric.per_image()[1], want.detach().double(), rtol=1e-4, atol=1e-5)
    assert "CurricularFace (sha256 of its tensors" in metric.describe()
