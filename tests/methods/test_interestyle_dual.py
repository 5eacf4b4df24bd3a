"""Two codes, one mask: blending against the plain synthesis, the losses by hand, and what each stage trains."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.unet import UNet
from stylegan_inv.errors import UserError
from stylegan_inv.generators.variants.blended_synthesis import blended_synthesis
from stylegan_inv.methods.interestyle_dual import IntereStyleDual
from tests.methods.test_encoder_methods import DIM, SIZE, fit, generator, images, loader, make


def dual(**kwargs: Any) -> IntereStyleDual:
    return make(IntereStyleDual, **{"mask_width": 4, **kwargs})


def codes(seed: int) -> Tensor:
    return torch.randn(2, 6, DIM, generator=torch.Generator().manual_seed(seed))


def test_blending_with_a_constant_mask_is_the_plain_image() -> None:
    synthesis, a, b = generator().synthesis, codes(1), codes(2)
    ones = torch.ones(2, 1, SIZE, SIZE)
    torch.testing.assert_close(blended_synthesis(synthesis, a, b, ones), synthesis(a))
    torch.testing.assert_close(blended_synthesis(synthesis, a, b, 0 * ones), synthesis(b))
    torch.testing.assert_close(blended_synthesis(synthesis, a, a, torch.rand_like(ones)), synthesis(a))
    left = ones.clone()
    left[..., SIZE // 2 :] = 0
    both = blended_synthesis(synthesis, a, b, left)
    # Each side is closer to the image of its own code.
    for side, own, other in ((slice(0, 4), a, b), (slice(SIZE - 4, SIZE), b, a)):
        near, far = (float((both - synthesis(w))[..., side].square().mean()) for w in (own, other))
        assert near < 0.5 * far
    with pytest.raises(UserError, match="two equal shapes"):
        blended_synthesis(synthesis, a, b[:1], ones)


def test_unet_keeps_the_size_and_sees_far() -> None:
    torch.manual_seed(0)
    network = UNet(width=4, depth=2)
    image = torch.randn(1, 3, 16, 24, requires_grad=True)
    out = network(image)
    assert out.shape == (1, 1, 16, 24)
    (gradient,) = torch.autograd.grad(out[0, 0, 8, 12], image)
    reach = gradient[0].abs().sum(0).nonzero()
    assert reach[:, 0].max() - reach[:, 0].min() >= 10
    with pytest.raises(UserError, match="multiples of 4"):
        network(image[..., :15])


def test_losses_by_hand() -> None:
    method, batch = dual(mixing_probability=0.0, margin=5.0), next(iter(loader()))
    x = batch["image"]
    terms = method.training_losses(batch)
    inside, outside = (w + method.generator.w_avg for w in method.encoder(x).chunk(2, 1))
    m = method.mask_network(x).sigmoid()
    image = blended_synthesis(method.generator.synthesis, inside, outside, m)
    torch.testing.assert_close(terms["l2"], (image - x).square().mean())
    distance = torch.stack([(a - b).square().mean().sqrt() for a, b in zip(inside, outside, strict=True)])
    torch.testing.assert_close(terms["style_consistency"], (5.0 - distance).clamp_min(0).mean())
    entropy = -(batch["mask"] * m.log() + (1 - batch["mask"]) * (1 - m).log()).mean()
    torch.testing.assert_close(terms["mask"], entropy)
    plain = terms["l2"] + 2e-4 * terms["delta"]
    torch.testing.assert_close(terms["total"], plain + 0.1 * terms["style_consistency"] + 0.1 * terms["mask"])
    certain = method.mask_regularisation(torch.full((1, 1, 2, 2), 20.0), None)
    assert certain < 1e-6 < method.mask_regularisation(torch.zeros(1, 1, 2, 2), None)


def test_mixing_compares_the_interest_region_only() -> None:
    method, batch = dual(mixing_probability=1.0), next(iter(loader()))
    seen: list[Any] = []
    losses = method.losses
    method.losses = lambda inversion, target: seen.append((inversion, target)) or losses(inversion, target)  # type: ignore[func-returns-value,method-assign]
    method.training_losses(batch)
    keep = method.mask(batch["image"]).sigmoid()
    torch.testing.assert_close(seen[0][1]["image"], batch["image"] * keep)


@pytest.mark.parametrize("stage", ["frozen", "unfrozen"])
def test_stage_decides_whether_the_generator_learns(stage: str, tmp_path: Path) -> None:
    method = dual(stage=stage)
    original = {name: value.clone() for name, value in method.generator.state_dict().items()}
    fit(method, tmp_path, 2)
    assert all(torch.equal(value, original[name]) for name, value in method.generator.state_dict().items())
    names = method.state_dict().keys()
    assert any(name.startswith("tuned.") for name in names) == (stage == "unfrozen")
    if method.tuned is not None:
        weight = "synthesis.b8.conv0.weight"
        assert not torch.equal(method.tuned.state_dict()[weight], original[weight])
        assert torch.equal(method.tuned.state_dict()["mapping.fc0.weight"], original["mapping.fc0.weight"])
    assert method.eval().invert(images()).image.shape == (4, 3, SIZE, SIZE)
    with pytest.raises(UserError, match="stage=.*: expected one of frozen, unfrozen"):
        dual(stage="thawed")
