"""Feature maps of per-image optimisation against torchvision and the lpips package, with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from stylegan_inv.encoders.face_network import load_face_network, perceptual_distance
from stylegan_inv.errors import UserError
from stylegan_inv.losses.features import VGG16, EmbeddedFeatures, LpipsFeatures, Vgg16Features
from tests.golden import reference_state


@pytest.fixture(scope="module")
def vgg_file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with random weights of torchvision's VGG-16 convolutions."""
    from torchvision.models import vgg16

    torch.manual_seed(0)
    network = vgg16(weights=None, init_weights=False)
    path = tmp_path_factory.mktemp("vgg") / "vgg16.pth"
    torch.save({k: v for k, v in network.state_dict().items() if k.startswith("features.")}, path)
    return path


def test_vgg_layers(vgg_file: Path) -> None:
    """Each map is the ReLU output of the named convolution, on an image with ImageNet normalisation."""
    names = ("conv1_2", "conv3_2", "conv4_2")
    features = Vgg16Features(layers=names, weights=vgg_file)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    state = torch.load(vgg_file, weights_only=True)
    mean, std = torch.tensor([0.485, 0.456, 0.406]), torch.tensor([0.229, 0.224, 0.225])
    x, seen = ((image + 1) / 2 - mean[:, None, None]) / std[:, None, None], {}
    for name, index in VGG16.items():
        if name.endswith("_1") and name != "conv1_1":
            x = F.max_pool2d(x, 2)
        x = F.conv2d(x, state[f"features.{index}.weight"], state[f"features.{index}.bias"], padding=1).relu()
        seen[name] = x
    for name, got in zip(names, features.maps(image), strict=True):
        torch.testing.assert_close(got, seen[name])
    torch.testing.assert_close(features.style(image), seen["conv3_3"])
    a, b = features.maps(image[:1]), features.maps(image[1:])
    want = sum(F.mse_loss(p, q) for p, q in zip(a, b, strict=True))
    torch.testing.assert_close(features.distance(a, b)[0], want)
    large = torch.rand(1, 3, 512, 512)
    torch.testing.assert_close(features.maps(large)[0], features.maps(F.avg_pool2d(large, 2))[0])
    assert features.state_dict() == {} and not list(features.parameters())
    with pytest.raises(UserError, match="expected some of conv1_1"):
        Vgg16Features(layers=("conv9_1",), weights=vgg_file)


def test_lpips_as_maps(golden: Path, tmp_path: Path) -> None:
    torch.save(reference_state("torchvision_alexnet_features"), tmp_path / "alex.pth")
    features = LpipsFeatures("alex", tmp_path / "alex.pth", size=None)
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    got = features.distance(features.maps(a), features.maps(b))
    torch.testing.assert_close(got, features.frozen(a, b).flatten(), rtol=1e-4, atol=1e-6)


def test_embedded() -> None:
    a, b = torch.rand(2, 3, 64, 64) * 2 - 1, torch.rand(2, 3, 64, 64) * 2 - 1
    features, network = EmbeddedFeatures(), load_face_network("face_train")
    got = features.distance(features.maps(a), features.maps(b))
    torch.testing.assert_close(got, perceptual_distance(network.features(a), network.features(b)))
    assert features.style(a).shape == (2, 48, 16, 16)
