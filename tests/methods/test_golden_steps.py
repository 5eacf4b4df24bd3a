"""One training step of pSp, ReStyle, e4e and IntereStyle against the official trainers, in double precision.

Weights are filled by rule, the generator's noise is fixed, the encoders are in training mode.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
import torch
from filelock import FileLock
from PIL import Image, ImageFilter
from torch import Tensor, nn

from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.single_level import SingleLevelEncoder
from stylegan_inv.generators import Generator, from_rosinality
from stylegan_inv.generators.io.network_geometry import infer_generator_config
from stylegan_inv.latents.mixing import mix_styles
from stylegan_inv.losses.arcface import ArcFaceLoss, load_arcface
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.latent.regularization import DeltaNorm
from stylegan_inv.losses.lpips import LPIPS
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.base import InversionMethod, Step
from stylegan_inv.methods.common.discriminators.latent_discriminator_training import LatentDiscriminatorTraining
from stylegan_inv.methods.e4e import E4E
from stylegan_inv.methods.interestyle import IntereStyle
from stylegan_inv.methods.psp import PSP
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.optim.schedules import ProgressiveStages
from tests.golden import arrays, check, entry, fill, golden_dir, needs_golden, reference_state, tensor

pytestmark = [needs_golden, pytest.mark.slow]  # IR-SE50 at 256 px in double precision


def photographs() -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return fill().image(file["img256"][:2]).double()


@pytest.fixture(autouse=True)
def one_at_a_time(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Also where the tests run on several processes: each takes up to 13 GB."""
    root = tmp_path_factory.getbasetemp()
    folder = root.parent if "PYTEST_XDIST_WORKER" in os.environ else root  # which the processes share
    with FileLock(folder / "golden_steps.lock"):
        yield


@pytest.fixture(scope="module")
def networks(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Any]]:
    """The generator and the networks of the losses, as the official files would give them."""
    folder = tmp_path_factory.mktemp("weights")
    torch.save(reference_state("ir_se50_arcface"), folder / "model_ir_se50.pth")
    torch.save(reference_state("torchvision_alexnet_features"), folder / "alexnet.pth")
    state = from_rosinality({**reference_state("rosinality_g64_cm2"), "latent_avg": torch.zeros(512)})
    generator = Generator(**infer_generator_config(state))
    generator.load_state_dict(state)
    yield {
        "generator": generator.double().freeze(),
        "id": ArcFaceLoss(folder / "model_ir_se50.pth").double(),
        "lpips": LPIPS(trunk=folder / "alexnet.pth").double(),
    }
    load_arcface.cache_clear()


def build(kind: type, golden: str, networks: dict[str, Any], encoder: type, keys: str, **kwargs: Any) -> Any:
    """A method with the papers' losses around an encoder with the reference's weights."""
    region = kwargs.pop("region", "whole")
    terms: dict[str, nn.Module] = {"l2": L2(region=region), "lpips": networks["lpips"], "id": networks["id"]}
    weights = {"l2": 1.0, "lpips": 0.8, "id": 0.1, **kwargs.pop("weights", {})}
    terms.update(kwargs.pop("terms", {}))
    for name in ("lpips", "id"):
        terms[name].region = region
    generator = networks["generator"]
    generator.mapping.w_avg.copy_(tensor(golden, "latent_avg"))
    made = kind(generator=generator, encoder=encoder, loss=LossTerms(terms, weights), training_noise="const", **kwargs)
    made.encoder.load_state_dict(reference_state(keys))
    return made.double().train()


def sums(parameters: Iterator[nn.Parameter]) -> Tensor:
    zero = torch.zeros((), dtype=torch.float64)
    return sum((p.grad.abs().sum() for p in parameters if p.grad is not None), zero)


def check_gradients(golden: str, method: InversionMethod, groups: list[str], names: list[str]) -> None:
    encoder: Any = method.encoder
    check(golden, "grad_abs_sum_top", torch.stack([sums(getattr(encoder, name).parameters()) for name in groups]))
    check(golden, "grad_abs_sum_body", torch.stack([sums(unit.parameters()) for unit in encoder.body]))
    check(golden, "grad_abs_sum_styles", torch.stack([sums(head.parameters()) for head in encoder.styles]))
    for name in names:
        check(golden, f"grad.{name}", encoder.get_parameter(name).grad)


def check_statistics(golden: str, method: InversionMethod) -> None:
    norm: Any = method.encoder.get_submodule("body.23.res_layer.4")
    check(golden, "running_mean_after", norm.running_mean)
    check(golden, "running_var_after", norm.running_var)


def retain_codes(method: Any, seen: list[Step]) -> None:
    """Remember each reconstruction that the losses see, with the gradient of its codes."""
    losses = method.losses

    def watch(step: Step, batch: Any) -> dict[str, Tensor]:
        if step.w.requires_grad:
            step.w.retain_grad()
        seen.append(step)
        return losses(step, batch)

    method.losses = watch


@torch.no_grad()
def test_psp_forward(networks: dict[str, Any]) -> None:
    name = "psp_forward64"
    method = build(PSP, name, networks, FPNEncoder, "psp_gradual_n10").eval()
    images, layers, alpha = photographs(), arrays(name)["latent_mask"].tolist(), float(arrays(name)["alpha"])
    result = method.invert(images)
    check(name, "latents", result.w)
    check(name, "image", result.image)

    inject = tensor(name, "inject_latent")
    for label, other, strength in (
        ("injected", inject, 1.0),
        ("blended", inject, alpha),
        ("masked_zero", torch.zeros_like(inject), 1.0),  # the official code without a code to inject
    ):
        w = mix_styles(result.w, other, layers, strength)
        if f"latents_{label}" in arrays(name):
            check(name, f"latents_{label}", w[:, layers])
        check(name, f"image_{label}", method.decode(w[:1]).image)
    w = method.generator.mapping(tensor(name, "z"))
    check(name, "w_from_z", w[:, 0])
    check(name, "image_from_z", method.decode(w[:1]).image)


@pytest.mark.long  # takes longer than all others; psp_forward and e4e_step cover its parts
def test_restyle_step(networks: dict[str, Any]) -> None:
    name = "restyle_step_n3"
    method = build(ReStyle, name, networks, SingleLevelEncoder, "restyle_backbone_n10", iterations=3)
    check(name, "avg_image_64", method.average_image(64)[0])
    seen: list[Step] = []
    retain_codes(method, seen)
    values: dict[str, list[Tensor]] = {}
    for terms in method.training_losses({"image": photographs()}):
        terms["total"].backward()
        for key, value in terms.items():
            values.setdefault(key, []).append(value.detach())
    for key, golden in {"total": "loss", "id": "loss_id", "l2": "loss_l2", "lpips": "loss_lpips"}.items():
        check(name, golden, torch.stack(values[key]))
    check(name, "w_plus", torch.stack([step.w for step in seen]))
    check(name, "grad_w_plus", torch.stack([step.w.grad for step in seen]))
    check(name, "image_64_last", seen[-1].image)
    check_gradients(
        name, method, ["input_layer", "body", "styles"],
        ["input_layer.0.weight", "body.23.res_layer.5.fc1.weight", "styles.4.linear.bias", "body.0.res_layer.2.weight"],
    )  # fmt: skip
    check_statistics(name, method)


def test_e4e_step(networks: dict[str, Any]) -> None:
    name = "e4e_step_stage3"
    progressive = lambda **kwargs: FPNEncoder(**kwargs, progressive=True)  # noqa: E731
    method = build(
        E4E, name, networks, progressive, "e4e_n10",
        adversary=LatentDiscriminatorTraining, stages=ProgressiveStages(0, 1),
        terms={"delta": DeltaNorm()}, weights={"delta": 2e-4},
    )  # fmt: skip
    method.adversary.discriminator.load_state_dict(reference_state("latent_discriminator"))
    method.adversary.double()
    method.train_discriminator = lambda _: None  # the golden is the encoder's step alone, the discriminator as filled
    method.on_step(2)
    assert method.encoder.stage == 3
    seen: list[Any] = []
    retain_codes(method, seen)
    terms = method.training_losses({"image": photographs()})
    terms["total"].backward()
    for key, golden in {
        "total": "loss", "id": "loss_id", "l2": "loss_l2", "lpips": "loss_lpips", "delta": "total_delta_loss",
        "latent_adversarial": "encoder_discriminator_loss",
    }.items():  # fmt: skip
        check(name, f"term_{golden}", terms[key].detach())
    (step,) = seen
    for layer in (1, 2, 3):
        check(name, f"term_delta{layer}_loss", (step.w[:, layer] - step.w[:, 0]).norm(dim=1).mean())
    check(name, "w_plus", step.w)
    check(name, "grad_w_plus", step.w.grad)
    check(name, "image_64", step.image)
    check_gradients(
        name, method, entry(name)["groups_top"],
        ["input_layer.0.weight", "body.23.res_layer.5.fc1.weight", "styles.3.linear.bias", "body.0.res_layer.2.weight"],
    )  # fmt: skip
    check_statistics(name, method)


@pytest.mark.long
def test_interestyle_step(networks: dict[str, Any]) -> None:
    """The released trainer with the disentanglement on: Pillow's blur of the 8-bit image, the last pass alone."""
    name = "interestyle_step"
    with np.load(golden_dir() / "images.npz") as file:
        pixels = file["img256"][:2]

    def pillow_blur(images: Tensor, radius: float) -> Tensor:
        pictures = [Image.fromarray(p.transpose(1, 2, 0)).filter(ImageFilter.GaussianBlur(radius)) for p in pixels]
        return fill().image(np.stack([np.asarray(p).transpose(2, 0, 1) for p in pictures])).double()

    want = arrays(name)["blurred_sample0_u8"]
    for number, radius in enumerate((16, 9, 4, 1)):
        got = ((pillow_blur(photographs(), radius)[0, :, ::4, ::4] + 1) * 127.5).round().numpy()
        assert np.array_equal(got, want[number])

    method = build(
        IntereStyle, name, networks, SingleLevelEncoder, "restyle_backbone_n10", region="interest",
        filter_region="whole", backprop="last", disentanglement=0.05, blur=pillow_blur,
    )  # fmt: skip
    mask = (torch.from_numpy(arrays(name)["mask_u8"])[:, None] / 255).double()  # divided in single precision
    seen: list[Step] = []
    retain_codes(method, seen)
    (terms,) = method.training_losses({"image": photographs(), "mask": mask})
    terms["total"].backward()
    last, changed = seen
    torch.testing.assert_close(terms["disentanglement"].detach(), tensor(name, "loss")[5], rtol=1e-5, atol=0)
    for key, golden in {"id": "loss_id", "l2": "loss_l2", "lpips": "loss_lpips"}.items():
        torch.testing.assert_close(terms[key].detach(), tensor(name, golden)[4], rtol=1e-5, atol=0)
    total = tensor(name, "loss")[4] + 0.05 * tensor(name, "loss")[5]
    torch.testing.assert_close(terms["total"].detach(), total, rtol=1e-5, atol=0)
    check(name, "w_plus", torch.stack([last.w, changed.w]))
    check(name, "image_64_last", last.image)
    check(name, "image_64_ind", changed.image)
    check(name, "grad_w_plus_last", last.w.grad)
    check(name, "grad_w_plus_ind", changed.w.grad)
    check_gradients(
        name, method, ["input_layer", "body", "styles"],
        ["input_layer.0.weight", "styles.4.linear.bias", "body.0.res_layer.2.weight"],
    )  # fmt: skip
