"""The image discriminator in an encoder's loss, compared with its steps written out."""

from __future__ import annotations

import copy
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator
from stylegan_inv.losses.adversarial import AdversarialLoss
from stylegan_inv.losses.compose import LossInputs, LossTerms
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.e4e import E4E
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from tests.methods import test_encoder_methods
from tests.methods.test_encoder_methods import SIZE, adversary, fit, images, loader, make


def loss(**kwargs: Any) -> LossTerms:
    torch.manual_seed(2)
    discriminator = Discriminator(SIZE, channels={4: 8, 8: 8, 16: 8})
    term = AdversarialLoss(discriminator, **{"kind": "hinge", "lr": 1e-2, "r1_every": 2, **kwargs})
    return LossTerms({"l2": L2(), "adversarial": term}, {"l2": 1.0, "adversarial": 0.2})


def term_of(method: Any) -> Any:
    return method.loss.terms["adversarial"]


def generator_loss(kind: str, fake: torch.Tensor, real: torch.Tensor) -> torch.Tensor:
    if kind in ("hinge", "wgan"):
        return -fake.mean()
    return torch.log1p(torch.exp(real - fake if kind == "relativistic" else -fake)).mean()


def discriminator_loss(kind: str, real: torch.Tensor, fake: torch.Tensor) -> torch.Tensor:
    if kind == "hinge":
        return (1 - real).clamp_min(0).mean() + (1 + fake).clamp_min(0).mean()
    if kind == "wgan":
        return (fake - real).mean()
    if kind == "relativistic":
        return torch.log1p(torch.exp(fake - real)).mean()
    return torch.log1p(torch.exp(-real)).mean() + torch.log1p(torch.exp(fake)).mean()


@pytest.mark.parametrize("kind", ["hinge", "nonsaturating", "wgan", "relativistic"])
def test_steps_of_both_sides_as_written_out(kind: str, tmp_path: Path) -> None:
    method = make(PSP, loss=loss(kind=kind))
    encoder, networks = copy.deepcopy(method.encoder), copy.deepcopy(term_of(method).discriminator).requires_grad_(True)
    fit(method, tmp_path, 2)

    adam = torch.optim.Adam(encoder.parameters())
    other = torch.optim.Adam(networks.parameters(), lr=1e-2, betas=(0.0, 0.99))
    for step, batch in enumerate(loader()):
        real = batch["image"]
        fake = method.generator.synthesis(encoder(real) + method.generator.w_avg)
        logits = networks(fake)
        term = generator_loss(kind, logits, networks(real).detach())
        adam.zero_grad()
        ((fake - real).square().mean() + 0.2 * term).backward()
        adam.step()
        real_logits, fake_logits = networks(real), networks(fake.detach())
        own = discriminator_loss(kind, real_logits, fake_logits)
        other.zero_grad()
        own.backward()
        other.step()
        if step == 0:
            x = real.clone().requires_grad_()
            (gradient,) = torch.autograd.grad(networks(x).sum(), x, create_graph=True)
            other.zero_grad()
            (0.1 / 2 * 2 * gradient.square().flatten(1).sum(1).mean()).backward()
            other.step()
    for mine, theirs in ((method.encoder, encoder), (term_of(method).discriminator, networks)):
        for (name, a), b in zip(mine.named_parameters(), theirs.parameters(), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-6, msg=name)
    assert int(term_of(method).steps) == 2
    assert all(not p.requires_grad and p.grad is None for p in term_of(method).parameters())


def weights(method: Any) -> dict[str, Tensor]:
    return {name: value.clone() for name, value in term_of(method).state_dict().items()}


def test_without_a_learning_rate_it_stays_fixed(tmp_path: Path) -> None:
    method = make(ReStyle, iterations=2, loss=loss(lr=0.0))
    before = weights(method)
    trainer = fit(method, tmp_path, 2)
    assert len(trainer.optimizers) == 1
    assert all(torch.equal(before[name], value) for name, value in weights(method).items())


def test_continues_exactly(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A checkpoint restores its weights, the state of its optimiser and its number of steps."""
    whole, first, second = (make(ReStyle, iterations=2, loss=loss()) for _ in range(3))
    # One batch, since a plain loader does not continue where it stopped.
    monkeypatch.setattr(test_encoder_methods, "loader", partial(loader, 4))
    fit(whole, tmp_path, 4)
    trainer = fit(first, tmp_path, 2)
    assert trainer.global_step == 2  # the encoder's alone
    trainer.save_checkpoint(tmp_path / "half.ckpt")
    fit(second, tmp_path, 4, ckpt=tmp_path / "half.ckpt")
    for name, value in whole.state_dict().items():
        torch.testing.assert_close(second.state_dict()[name], value, rtol=0, atol=0, msg=name)


def test_together_with_the_latent_discriminator(tmp_path: Path) -> None:
    method = make(E4E, adversary=adversary, loss=loss())
    codes, images_before = copy.deepcopy(method.adversary.discriminator), weights(method)
    trainer = fit(method, tmp_path, 2)
    names = [optimizer.param_groups[0]["name"] for optimizer in trainer.optimizers]
    assert names == ["encoder", "latent", "discriminator"]
    for a, b in zip(codes.parameters(), method.adversary.discriminator.parameters(), strict=True):
        assert not torch.equal(a, b)
    now = weights(method)
    assert any(not torch.equal(now[name], value) for name, value in images_before.items() if name.endswith("weight"))
    assert {"train/loss/discriminator", "train/loss/r1", "train/loss/latent_discriminator"} <= set(
        trainer.logged_metrics
    )


def test_in_the_region_of_interest_nothing_else_is_seen() -> None:
    term: Any = loss(region="interest").terms["adversarial"]
    mask = torch.zeros(2, 1, SIZE, SIZE)
    mask[..., :8] = 1
    a, b = images(2), images(2, seed=5)
    values, seen = [], []
    for outside in (0.0, 1.0):
        inputs = LossInputs(image=a + outside * (1 - mask), target=b - outside * (1 - mask), mask=mask)
        values.append(term(inputs))
        seen.append([loss.value for loss in term.learning_losses()][0])
    torch.testing.assert_close(values[0], values[1])
    torch.testing.assert_close(seen[0], seen[1])


def test_impossible_arguments() -> None:
    for arguments, message in (
        ({"kind": "gan"}, "nonsaturating, minimax"),
        ({"region": "crop"}, "whole"),
        ({"lr": -1}, "lr=-1"),
    ):
        with pytest.raises(UserError, match=message):
            loss(**arguments)
