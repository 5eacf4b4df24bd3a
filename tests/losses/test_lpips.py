"""LPIPS against the reference numbers, with a filled trunk: nothing is downloaded."""

from __future__ import annotations

import importlib.util
import urllib.error
from pathlib import Path

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.losses.lpips import LPIPS, load_lpips

pytest.importorskip("lpips")


@pytest.fixture(scope="module")
def trunk(golden: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """AlexNet's convolutions, filled by the golden rule."""
    spec = importlib.util.spec_from_file_location("golden_fill", golden / "fill.py")
    assert spec and spec.loader
    fill = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fill)
    path = tmp_path_factory.mktemp("lpips") / "alexnet.pth"
    torch.save(fill.reference_state(str(golden / "keys" / "torchvision_alexnet_features.json")), path)
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


def test_no_weights_is_one_clear_line(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def offline(*args: object, **kwargs: object) -> None:
        raise urllib.error.URLError("no network")

    monkeypatch.setattr(torch.hub, "download_url_to_file", offline)
    monkeypatch.setattr(torch.hub, "_hub_dir", str(tmp_path))
    with pytest.raises(UserError, match=r"no ImageNet weights for vgg \(.*no network.*loss=embedded") as error:
        load_lpips("vgg")
    assert "\n" not in str(error.value)


def test_wrong_trunk_and_wrong_net(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="expected one of alex, vgg, squeeze"):
        load_lpips("resnet")
    with pytest.raises(UserError, match="no such file"):
        load_lpips("alex", tmp_path / "nothing.pth")
    torch.save({"other": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(UserError, match=r"lacks features\.0\.bias"):
        load_lpips("alex", tmp_path / "other.pth")
