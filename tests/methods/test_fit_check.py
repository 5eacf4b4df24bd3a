"""Errors of `check_fit`: what does not fit, and the option that helps."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.latent.style_mixing import StyleMixing
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.fit_check import check_fit
from stylegan_inv.methods.interestyle import IntereStyle
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from tests.methods.test_encoder_methods import SIZE, make


def batch(size: int = SIZE, channels: int | None = None) -> dict[str, torch.Tensor]:
    image = torch.zeros(1, 3, size, size)
    return (
        {"image": image} if channels is None else {"image": image, "source": image[:, :1].expand(-1, channels, -1, -1)}
    )


def terms(term: Any) -> LossTerms:
    return LossTerms({"l2": L2(), "other": term}, {"l2": 1.0, "other": 1.0})


def grey() -> Generator:
    return Generator(16, w_dim=8, img_channels=1, channels={4: 8, 8: 8, 16: 8})


def test_what_fits() -> None:
    check_fit(make(PSP), batch(), {"image"})
    check_fit(make(PSP), batch(8), {"image"})  # compared at 8 px
    check_fit(make(PSP, in_channels=5), batch(channels=5), {"image", "label"})
    check_fit(make(IntereStyle, radii=[0]), batch(), {"image", "mask"})
    check_fit(make(PSP, loss=terms(L2(region="interest"))), batch(), set())  # nothing could be read


@pytest.mark.parametrize(
    ("method", "seen", "message"),
    [
        (lambda: make(PSP), batch(32), r"dataset\.resolution=32: larger than .* dataset\.resolution=16"),
        (lambda: make(PSP), batch(channels=1), r"data have 1 channels and the method sees 3; .*in_channels=1"),
        (lambda: make(ReStyle), batch(channels=8), r"data have 8 channels and the method sees 3"),
        (lambda: make(PSP, in_channels=19), batch(), r"data have 3 channels and the method sees 19"),
        (lambda: make(IntereStyle, radii=[0]), batch(), r"IntereStyle: needs masks .* image, index alone; .*mask_root"),
        (lambda: make(PSP, loss=terms(L2("interest"))), batch(), r"loss\.other\.region=interest: needs masks"),
        (lambda: make(PSP, loss=terms(StyleMixing(L2("interest")))), batch(), r"loss\.other\.region=interest: needs"),
        (
            lambda: make(PSP, loss=terms(AdversarialLoss(Discriminator(8, channels={4: 4, 8: 4})))),
            batch(),
            r"loss\.other: its discriminator is for 8 px, expected dataset\.resolution=16",
        ),
        (lambda: make(PSP, generator=grey()), batch(), "generator: makes images of 1 channels"),
    ],
)  # fmt: skip
def test_what_does_not(method: Any, seen: dict[str, torch.Tensor], message: str) -> None:
    with pytest.raises(UserError, match=message):
        check_fit(method(), seen, {"image", "index"})
