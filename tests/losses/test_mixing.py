"""Style mixing with a synthesis function that returns the codes as an image."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs, LossTerms
from stylegan_inv.losses.latent.style_mixing import StyleMixing, mix_layers
from stylegan_inv.losses.pixel import L2


def synthesis(w: Tensor) -> Tensor:
    """Maps (B, L, D) to (B, 3, L, D)."""
    return w[:, None].expand(-1, 3, -1, -1)


def inputs(w: Tensor) -> LossInputs:
    return LossInputs(image=synthesis(w), target=torch.zeros(len(w), 3, *w.shape[1:]), w=w, synthesis=synthesis)


def test_layers_come_from_the_previous_image() -> None:
    torch.manual_seed(0)
    w = torch.arange(4.0)[:, None, None].expand(4, 10, 3)
    fraction = torch.zeros(4, 10)
    for _ in range(400):
        mixed = mix_layers(w, probability=0.3, first_layer=4)
        assert (mixed == mixed[..., :1]).all(), "layers are replaced as a whole"
        replaced = mixed[..., 0] != w[..., 0]
        assert torch.equal(mixed[..., 0][replaced], w.roll(1, 0)[..., 0][replaced])
        fraction += replaced.float() / 400
    assert fraction[:, :4].max() == 0
    assert (fraction[:, 4:] - 0.3).abs().max() < 4 * (0.3 * 0.7 / 400) ** 0.5


def test_term_receives_the_mixed_image_and_gradients_reach_both_images() -> None:
    w = torch.randn(2, 10, 4, requires_grad=True)
    StyleMixing(L2(), probability=1.0, first_layer=6)(inputs(w)).backward()
    expected = torch.cat([w[:, :6], w.roll(1, 0)[:, 6:]], dim=1)
    assert w.grad is not None
    torch.testing.assert_close(w.grad, 2 * w.detach() / w.numel())  # each layer counts once, in whichever image it is
    value = StyleMixing(L2(), probability=1.0, first_layer=6)(inputs(w.detach()))
    torch.testing.assert_close(value, expected.detach().square().mean())


def test_a_batch_of_one_mixes_with_itself() -> None:
    w = torch.randn(1, 10, 4)
    total, terms = LossTerms({"mixing": StyleMixing(L2())}, {"mixing": 0.5})(inputs(w))
    torch.testing.assert_close(terms["mixing"], w.square().mean())
    torch.testing.assert_close(total, terms["mixing"] / 2)


def test_errors() -> None:
    w = torch.zeros(1, 4, 4)
    with pytest.raises(UserError, match="first_layer=8, expected less than 4 layers"):
        StyleMixing(L2())(inputs(w))
    with pytest.raises(UserError, match="no synthesis"):
        StyleMixing(L2())(LossInputs(image=synthesis(w), target=synthesis(w), w=w))
    for bad in ({"probability": 0.0}, {"probability": 1.5}, {"first_layer": -1}):
        with pytest.raises(UserError, match="mixing: .*expected a (whole )?number"):
            StyleMixing(L2(), **bad)
