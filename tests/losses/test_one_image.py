"""Every term accepts a batch of one, and a batch of two gives the mean of both images."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from torch import nn

from stylegan_inv.encoders.face_network import FaceNetwork
from stylegan_inv.encoders.irse import FaceRecognition
from stylegan_inv.generators import Discriminator
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.arcface import ArcFace
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.losses.identity import IdentityLoss
from stylegan_inv.losses.latent.regularization import DeltaNorm, WNorm
from stylegan_inv.losses.lpips import LPIPS, TRUNKS
from stylegan_inv.losses.moco import MoCo
from stylegan_inv.losses.perceptual import EmbeddedPerceptual
from stylegan_inv.losses.pixel import L2
from stylegan_inv.weights.download import TABLE


@pytest.fixture
def both() -> LossInputs:
    torch.manual_seed(1)
    image = torch.rand(2, 3, 64, 64) * 2 - 1
    return LossInputs(
        image=image.requires_grad_(),
        target=torch.rand_like(image) * 2 - 1,
        w=torch.randn(2, 10, 8, requires_grad=True),
        w_avg=torch.randn(8),
        mask=(torch.rand(2, 1, 64, 64) > 0.3).float(),
    )


def one(inputs: LossInputs, number: int) -> LossInputs:
    part = slice(number, number + 1)
    assert inputs.w is not None and inputs.mask is not None
    return LossInputs(
        image=inputs.image[part],
        target=inputs.target[part],
        w=inputs.w[part],
        w_avg=inputs.w_avg,
        mask=inputs.mask[part],
    )


def face(tmp_path: Path) -> nn.Module:
    return FaceNetwork(8, ("yaw",), 16)


def arcface(tmp_path: Path) -> nn.Module:
    return ArcFace(FaceRecognition(units=(1, 1, 1, 1)))


def moco(tmp_path: Path) -> nn.Module:
    from torchvision.models import resnet50

    network = resnet50(weights=None)
    network.fc = nn.Identity()
    return MoCo(network)


def lpips(tmp_path: Path) -> nn.Module:
    """LPIPS with an untrained AlexNet; nothing is downloaded."""
    pytest.importorskip("lpips")
    from torchvision.models import alexnet

    file = tmp_path / TABLE[TRUNKS["alex"]].file
    torch.save({f"features.{name}": value for name, value in alexnet().features.state_dict().items()}, file)
    return LPIPS(trunk=file)


TERMS: dict[str, Callable[[Path], nn.Module]] = {
    "l2": lambda _: L2(),
    "masked l2": lambda _: L2(region="interest"),
    "lpips": lpips,
    "embedded perceptual": lambda path: EmbeddedPerceptual(face(path)),
    "embedded identity": lambda path: IdentityLoss(face(path).eval()),
    "masked identity": lambda path: IdentityLoss(face(path).eval(), region="interest"),
    "arcface": lambda path: IdentityLoss(arcface(path).eval()),
    "moco": lambda path: IdentityLoss(moco(path).eval()),
    "w norm": lambda _: WNorm(),
    "delta norm": lambda _: DeltaNorm(),
}


@pytest.mark.parametrize("name", TERMS)
def test_a_batch_is_the_mean_of_its_images(name: str, both: LossInputs, tmp_path: Path) -> None:
    torch.manual_seed(0)
    term = TERMS[name](tmp_path)
    single, codes = [term(one(both, number)) for number in range(2)], both.w
    assert codes is not None
    for value in single:
        found = torch.autograd.grad(value, [both.image, codes], allow_unused=True)
        (gradient,) = (g for g in found if g is not None)
        assert value.ndim == 0 and gradient.isfinite().all() and gradient.abs().max() > 0
    assert not torch.equal(*single)
    torch.testing.assert_close(term(dataclasses.replace(both)), torch.stack(single).mean(), rtol=1e-5, atol=1e-6)


def test_adversarial(both: LossInputs) -> None:
    """Only a batch of one, because the discriminator's minibatch statistics depend on the whole batch."""
    torch.manual_seed(0)
    value = AdversarialLoss(Discriminator(64, channel_base=256, channel_max=16))(one(both, 0))
    (gradient,) = torch.autograd.grad(value, both.image)
    assert value.isfinite() and gradient[0].abs().max() > 0 and gradient[1].abs().max() == 0
