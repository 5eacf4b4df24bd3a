"""LPIPS against the reference numbers, with a backbone filled by rule; nothing is downloaded."""

from __future__ import annotations

import shutil
import socket
import urllib.error
from dataclasses import replace
from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.losses.lpips import LPIPS, TRUNKS, load_lpips
from stylegan_inv.weights import download as weights
from stylegan_inv.weights.download import TABLE
from tests.golden import reference_state

pytest.importorskip("lpips")


def file(net: str) -> str:
    return TABLE[TRUNKS[net]].file


@pytest.fixture(scope="module")
def trunk(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A file with AlexNet's convolutions, filled by the rule of the reference numbers."""
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save(reference_state("torchvision_alexnet_features"), path)
    return path


def test_equals_the_reference(golden: Path, trunk: Path) -> None:
    import numpy as np

    images = np.load(golden / "images.npz")["img256"].astype(np.float32)
    images = torch.from_numpy(images / np.float32(127.5) - np.float32(1)).double()
    want = np.load(golden / "loss_lpips.npz")
    term = LPIPS(trunk=trunk).double()
    x = images[:2].requires_grad_()
    value = term(LossInputs(image=x, target=images[2:4].detach()))
    assert float(value.detach()) == pytest.approx(float(want["value_batch"]), rel=1e-6)
    pairs = term.frozen(x, images[2:4]).flatten()
    torch.testing.assert_close(pairs.detach(), torch.from_numpy(want["value_pairs"]).double(), rtol=1e-6, atol=0)
    value.backward()
    assert x.grad is not None
    got = torch.nn.functional.avg_pool2d(x.grad[:, :1], 4)
    reference = torch.from_numpy(want["grad_ch0_pool4"]).double()
    assert float((got - reference).norm() / reference.norm()) < 1e-5
    term.float()  # the network is shared


def test_one_network_for_all_terms(trunk: Path) -> None:
    assert load_lpips("alex", trunk) is LPIPS(trunk=trunk).frozen.network
    assert LPIPS(trunk=trunk).state_dict() == {}


@pytest.fixture
def empty(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """Empty caches."""
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path / "hub"))
    monkeypatch.setenv("STYLEGAN_INV_CACHE", str(tmp_path / "cache"))
    return tmp_path


def test_missing_weights_are_one_error_line(monkeypatch: pytest.MonkeyPatch, empty: Path) -> None:
    def unreachable(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(weights.urllib.request.OpenerDirector, "open", unreachable)
    monkeypatch.setattr(weights, "PAUSE_SECONDS", 0.0)
    with pytest.raises(UserError, match=r"no ImageNet weights for vgg: .*no network.*trunk=FILE.*~loss.lpips") as error:
        load_lpips("vgg")
    assert "\n" not in str(error.value) and str(empty / "cache" / "weights" / file("vgg")) in str(error.value)


# Layers of the backbone whose outputs LPIPS compares, by torchvision's indices.
OUTPUTS = {"vgg": (3, 8, 15, 22, 29), "squeeze": (1, 4, 7, 9, 10, 11, 12)}


@pytest.mark.parametrize("net", OUTPUTS)
def test_other_backbones_by_the_formula(net: str, tmp_path: Path) -> None:
    """On torchvision's network: unit length over channels, squared difference, heads, mean, sum (equation 1)."""
    from torchvision import models

    torch.manual_seed(0)
    with torch.device("meta"):  # LPIPS does not use the large fully connected layers
        own = {"vgg": models.vgg16, "squeeze": models.squeezenet1_1}[net]().features
    own = own.to_empty(device="cpu")
    for parameter in own.parameters():
        fan_in = parameter[0].numel()
        torch.nn.init.normal_(parameter, std=(2 / fan_in) ** 0.5 if parameter.ndim > 1 else 0.1)
    trunk = tmp_path / file(net)
    torch.save({f"features.{name}": value for name, value in own.state_dict().items()}, trunk)
    own.double()
    images = torch.rand(4, 3, 64, 64, dtype=torch.float64) * 2 - 1
    term = LPIPS(net, trunk, offline=True).double()

    shift = torch.tensor([-0.030, -0.088, -0.188]).double().view(3, 1, 1)
    scale = torch.tensor([0.458, 0.448, 0.450]).double().view(3, 1, 1)
    x, want = (images - shift) / scale, torch.zeros(2, dtype=torch.float64)
    heads = [head.model[1].weight for head in term.frozen.network.lins]
    assert len(heads) == len(OUTPUTS[net])
    with torch.no_grad():
        for number, layer in enumerate(own):
            x = layer(x)
            if number in OUTPUTS[net]:
                unit = x / (x.norm(dim=1, keepdim=True) + 1e-10)
                difference = (unit[:2] - unit[2:]).square()
                want += (difference * heads[OUTPUTS[net].index(number)].view(-1, 1, 1)).sum(1).mean(dim=(1, 2))
        got = term(LossInputs(image=images[:2], target=images[2:]))
    torch.testing.assert_close(got, want.mean(), rtol=1e-5, atol=0)  # the package stores its constants in float32


def test_in_the_interest_region(trunk: Path) -> None:
    """Masked images are compared; dividing by the area makes distances of large and small masks comparable."""
    torch.manual_seed(0)
    image, target = torch.rand(2, 2, 3, 64, 64) * 2 - 1
    mask = torch.zeros(2, 1, 64, 64)
    mask[0, :, 16:32], mask[1, :, 32:] = 1, 1  # a quarter and a half
    plain = LPIPS(trunk=trunk)(LossInputs(image=image * mask, target=target * mask))
    x = LossInputs(image=image, target=target, mask=mask)
    torch.testing.assert_close(LPIPS(trunk=trunk, region="interest")(x), plain)
    by_area = LPIPS(trunk=trunk, region="interest", normalise="mask_area")(x)
    torch.testing.assert_close(by_area, plain * 2 / 0.75)


def test_offline_opens_no_connection(monkeypatch: pytest.MonkeyPatch, empty: Path, trunk: Path) -> None:
    def touched(*args: object, **kwargs: object) -> None:
        raise AssertionError("opened a connection")

    monkeypatch.setattr(socket, "socket", touched)
    monkeypatch.setitem(TABLE, "alexnet", replace(TABLE["alexnet"], sha256=None))  # the trunk is not the published one
    with pytest.raises(
        UserError, match=r"no ImageNet weights for alex: .*switched off: put the file at .*7be5be79\.pth"
    ):
        load_lpips("alex", offline=True)
    for folder in (empty / "cache" / "weights", empty / "hub" / "checkpoints"):  # torch's own cache takes precedence
        folder.mkdir(parents=True)
        shutil.copy(trunk, folder / file("alex"))
        assert load_lpips("alex", offline=True) is load_lpips("alex", folder / file("alex"))


def test_wrong_trunk_and_wrong_net(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of alex, vgg, squeeze"):
        load_lpips("resnet")
    with pytest.raises(UserError, match="no file .*nothing.pth; expected the trunk of lpips"):
        load_lpips("alex", tmp_path / "nothing.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"other\.pth lacks features\.0\.weight"):
        load_lpips("alex", tmp_path / "other.pth")
