"""Identity, MoCo, LPIPS, w norm and the latent discriminator against the reference numbers, in double precision.

Weights follow a deterministic rule and are written in the format of the official files; nothing is downloaded.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.losses import adversarial, gan_regularization
from stylegan_inv.losses.arcface import ArcFaceLoss, load_arcface
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.losses.identity import IdentityLoss
from stylegan_inv.losses.latent.latent_discriminator import LatentDiscriminator
from stylegan_inv.losses.latent.regularization import DeltaNorm, WNorm
from stylegan_inv.losses.lpips import LPIPS
from stylegan_inv.losses.moco import MoCoLoss, load_moco
from tests.golden import check, entry, fill, golden_dir, needs_golden, reference_state, tensor

pytestmark = needs_golden


def photographs() -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return fill().image(file["img256"]).double()


@pytest.fixture(scope="module")
def arcface(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityLoss]:
    path = tmp_path_factory.mktemp("arcface") / "model_ir_se50.pth"
    torch.save(reference_state("ir_se50_arcface"), path)
    yield ArcFaceLoss(path).double()
    load_arcface.cache_clear()


@pytest.fixture(scope="module")
def moco(tmp_path_factory: pytest.TempPathFactory) -> Iterator[IdentityLoss]:
    """A file like the official one: nested state dict, name prefix and an unused projection head."""
    path = tmp_path_factory.mktemp("moco") / "moco_v2_800ep_pretrain.pth.tar"
    state = {f"module.encoder_q.{name}": value for name, value in reference_state("torchvision_resnet50").items()}
    state = {name.replace(".fc.", ".fc.0."): value for name, value in state.items()}
    state["module.queue"] = torch.zeros(2, 2)
    torch.save({"epoch": 800, "arch": "resnet50", "state_dict": state}, path)
    yield MoCoLoss(path).double()
    load_moco.cache_clear()


def comparison(images: Tensor) -> LossInputs:
    """The images y_hat, y and x of the reference."""
    return LossInputs(image=images[:2].clone().requires_grad_(), target=images[2:4].clone(), source=images[1:3])


def test_identity(arcface: IdentityLoss) -> None:
    inputs = comparison(photographs())
    loss = arcface(inputs)
    check("loss_id", "loss", loss.detach())
    loss.backward()
    assert inputs.image.grad is not None
    check("loss_id", "grad_y_hat_ch0_pool4", F.avg_pool2d(inputs.image.grad[:, :1], 4))
    assert inputs.image.grad[:, :, :35].abs().max() == 0 and inputs.image.grad[:, :, 223:].abs().max() == 0
    check("loss_id", "id_improve", arcface.improvement(inputs).detach())
    embeddings = torch.cat([arcface._embed(inputs, which) for which in ("image", "target")])
    check("loss_id", "embedding", embeddings)


def test_moco(moco: IdentityLoss) -> None:
    images = photographs()
    inputs = comparison(images)
    check("loss_moco", "loss", moco(inputs).detach())
    check("loss_moco", "sim_improve", moco.improvement(inputs).detach())
    features = torch.cat([moco._embed(inputs, which) for which in ("image", "target")])
    check("loss_moco", "features", features)
    # A batch of one, for which the official code fails (pSp issue 282).
    with torch.no_grad():
        one = moco(LossInputs(image=images[:1], target=images[2:3]))
    torch.testing.assert_close(one, 1 - (features[0] * features[2]).sum())


def test_lpips_with_filled_heads(tmp_path: Path) -> None:
    trunk = tmp_path / "alexnet.pth"
    torch.save(reference_state("torchvision_alexnet_features"), trunk)
    images = photographs()
    term = LPIPS(trunk=trunk).double()
    check("loss_lpips", "value_batch", term(LossInputs(image=images[:2], target=images[2:4])))
    network = term.frozen.network
    with torch.no_grad():
        for i, head in enumerate(network.lins):
            weight = head.model[1].weight
            weight.copy_(torch.as_tensor(fill().tensor(f"lin{i}.model.1.weight", tuple(weight.shape))))
        pairs = [term(LossInputs(image=images[i : i + 1], target=images[i + 2 : i + 3])) for i in range(2)]
    check("loss_lpips", "value_pairs_filled_heads", torch.stack(pairs))


def test_w_norm() -> None:
    image = torch.zeros(3, 3, 8, 8)
    inputs = LossInputs(
        image=image, target=image, w=tensor("loss_w_norm", "latent"), w_avg=tensor("loss_w_norm", "latent_avg")
    )
    check("loss_w_norm", "loss", WNorm()(inputs))
    check("loss_w_norm", "loss_without_avg", WNorm(from_average=False)(inputs))


def test_latent_discriminator() -> None:
    """Logits, losses, R1 with its gradient, and two updates: adversarial loss and lazy R1."""
    name = "e4e_latent_discriminator"
    network = LatentDiscriminator().double()
    network.load_state_dict(reference_state("latent_discriminator"))
    assert list(dict(network.named_parameters())) == entry(name)["param_names"]
    real, fake = tensor(name, "real_w"), tensor(name, "fake_w")

    logits = network(real), network(fake)
    check(name, "logits_real", logits[0])
    check(name, "logits_fake", logits[1])
    check(name, "d_real_loss", F.softplus(-logits[0]).mean())
    check(name, "d_fake_loss", F.softplus(logits[1]).mean())
    loss = adversarial.discriminator_loss(*logits)
    check(name, "discriminator_loss", loss)

    def r1() -> Tensor:
        codes = real.clone().requires_grad_()
        return gan_regularization.r1_penalty(network(codes), codes)

    check(name, "r1", r1())
    gradients = torch.autograd.grad(r1(), list(network.parameters()), allow_unused=True)
    sums = [torch.zeros((), dtype=torch.float64) if g is None else g.abs().sum() for g in gradients]
    check(name, "r1_param_grad_abs_sums", torch.stack(sums))

    optimizer = torch.optim.Adam(network.parameters(), lr=2e-5)
    loss.backward()
    optimizer.step()
    optimizer.zero_grad()
    penalty = 10 / 2 * 16 * r1()
    check(name, "r1_step_loss", penalty)
    penalty.backward()
    for parameter in network.parameters():  # Adam's moments of a parameter without a gradient must decay as well
        parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
    optimizer.step()
    check(name, "logits_real_after", network(real))
    check(name, "logits_fake_after", network(fake))


def test_encoder_loss_of_the_latent_discriminator() -> None:
    """e4e averages softplus(-D(w_i)) over active layers and batch: one call on (B, L, D)."""
    network = LatentDiscriminator().double()
    network.load_state_dict(reference_state("latent_discriminator"))
    active = tensor("e4e_step_stage3", "w_plus")[:, : 3 + 1]
    check("e4e_step_stage3", "term_encoder_discriminator_loss", adversarial.generator_loss(network(active)))


def test_delta_norm_of_a_stage() -> None:
    """Layers after stage 3 equal the first one; the sum over all layers is the sum over the active ones."""
    w = tensor("e4e_step_stage3", "w_plus").requires_grad_()
    image = torch.zeros(2, 3, 8, 8)
    loss = DeltaNorm()(LossInputs(image=image, target=image, w=w))
    check("e4e_step_stage3", "term_total_delta_loss", loss.detach())
    loss.backward()
    assert w.grad is not None and w.grad.isfinite().all() and w.grad[:, 4:].abs().max() == 0


def test_networks_are_frozen_and_not_saved(arcface: IdentityLoss, moco: IdentityLoss) -> None:
    for term in (arcface, moco):
        network: nn.Module = term.train().frozen.network
        assert not network.training and not any(p.requires_grad for p in network.parameters())
        assert term.state_dict() == {} and list(term.parameters()) == []
