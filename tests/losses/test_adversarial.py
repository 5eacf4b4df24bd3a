"""GAN losses in closed form; R1 and path length on functions with known derivatives."""

from __future__ import annotations

import math

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.losses import adversarial, gan_regularization


def test_losses_in_closed_form() -> None:
    real, fake = torch.tensor([[2.0], [-0.5]]).double(), torch.tensor([[0.3], [-1.7]]).double()
    softplus = [math.log1p(math.exp(-x)) for x in (2.0, -0.5)], [math.log1p(math.exp(x)) for x in (0.3, -1.7)]
    assert float(adversarial.discriminator_loss(real, fake)) == pytest.approx(sum(map(sum, softplus)) / 2)
    expected = sum(math.log1p(math.exp(-x)) for x in (0.3, -1.7)) / 2
    assert float(adversarial.generator_loss(fake)) == pytest.approx(expected)
    assert float(adversarial.discriminator_loss(real, fake, "hinge")) == pytest.approx((0 + 1.5) / 2 + (1.3 + 0) / 2)
    assert float(adversarial.generator_loss(fake, "hinge")) == pytest.approx(0.7)
    # The original game: both sides have one value, E log D(x) + E log(1 - D(G(z))), D = sigmoid(logit).
    value = sum(math.log(1 / (1 + math.exp(-x))) for x in (2.0, -0.5)) / 2
    of_fakes = sum(math.log(1 - 1 / (1 + math.exp(-x))) for x in (0.3, -1.7)) / 2
    assert float(adversarial.discriminator_loss(real, fake, "minimax")) == pytest.approx(-(value + of_fakes))
    assert float(adversarial.generator_loss(fake, "minimax")) == pytest.approx(of_fakes)
    assert float(adversarial.discriminator_loss(real, fake, "wgan")) == pytest.approx(-0.7 - 0.75)
    assert float(adversarial.generator_loss(fake, "wgan")) == pytest.approx(0.7)
    pairs = (
        [math.log(1 + math.exp(x)) for x in (0.3 - 2.0, -1.7 + 0.5)],
        [math.log(1 + math.exp(x)) for x in (1.7, 1.2)],
    )
    assert float(adversarial.discriminator_loss(real, fake, "relativistic")) == pytest.approx(sum(pairs[0]) / 2)
    assert float(adversarial.generator_loss(fake, "relativistic", real)) == pytest.approx(sum(pairs[1]) / 2)
    with pytest.raises(UserError, match="compares generated with real"):
        adversarial.generator_loss(fake, "relativistic")
    for call in (
        lambda: adversarial.generator_loss(fake, "logistic"),
        lambda: adversarial.discriminator_loss(real, fake, ""),
    ):
        with pytest.raises(UserError, match="nonsaturating, minimax, wgan, hinge, relativistic"):
            call()


def test_losses_stay_finite_for_huge_logits() -> None:
    logits = torch.tensor([[1e4], [-1e4]], requires_grad=True)
    total = adversarial.discriminator_loss(logits, logits) + adversarial.generator_loss(logits)
    total.backward()
    assert torch.isfinite(total) and logits.grad is not None and torch.isfinite(logits.grad).all()


def test_r1_of_a_quadratic() -> None:
    """D(x) = a |x|^2 / 2 has the gradient a x: R1 = a^2 |x|^2, dR1/da = 2 a |x|^2."""
    x = torch.randn(3, 2, 4, 4, dtype=torch.float64, requires_grad=True)
    a = torch.tensor(1.7, dtype=torch.float64, requires_grad=True)
    penalty = gan_regularization.r1_penalty((a * x.square() / 2).flatten(1).sum(1, keepdim=True), x)
    norm = float(x.detach().square().flatten(1).sum(1).mean())
    assert float(penalty.detach()) == pytest.approx(1.7**2 * norm)
    penalty.backward()
    assert a.grad is not None and float(a.grad) == pytest.approx(2 * 1.7 * norm)


def test_path_length_of_a_linear_generator() -> None:
    """G(w) = sum over layers of A_l w_l: the gradient is A_l^T y / sqrt(HW)."""
    torch.manual_seed(0)
    a = torch.randn(2, 5, 3 * 4 * 4, dtype=torch.float64, requires_grad=True)
    ws = torch.randn(3, 2, 5, dtype=torch.float64, requires_grad=True)
    y = torch.randn(3, 3, 4, 4, dtype=torch.float64)
    images = torch.einsum("bld,ldp->bp", ws, a).view(3, 3, 4, 4)
    lengths = gan_regularization.path_lengths(images, ws, y)
    for i in range(3):
        squares = [float(((a[layer].detach() @ y[i].flatten()) / 4).square().sum()) for layer in range(2)]
        assert float(lengths[i].detach()) == pytest.approx(math.sqrt(sum(squares) / 2))
    penalty = gan_regularization.path_length_penalty(lengths, torch.tensor(2.0, dtype=torch.float64))
    assert float(penalty.detach()) == pytest.approx(float((lengths.detach() - 2).square().mean()))
    assert torch.autograd.gradcheck(
        lambda a: gan_regularization.path_lengths(torch.einsum("bld,ldp->bp", ws, a).view(3, 3, 4, 4), ws, y), (a,)
    )
