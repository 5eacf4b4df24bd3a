"""HFGI's networks, inversion, edits and training step against the official code, in double precision."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from stylegan_inv.data.augment.perspective import perspective_coefficients, warp
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.refinement.residual_encoders import ConsultationEncoder, ResidualAligner, resized
from stylegan_inv.generators import Generator, from_rosinality
from stylegan_inv.generators.io.network_geometry import infer_generator_config
from stylegan_inv.losses.arcface import ArcFaceLoss, load_arcface
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.lpips import LPIPS
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.feature_space.hfgi import HFGI
from stylegan_inv.methods.psp import PSP
from tests import golden
from tests.golden import arrays, check, filler, golden_dir, needs_golden, tensor

pytestmark = needs_golden


def photographs(first: int, last: int) -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return golden.fill().image(file["img256"][first:last]).double()


@functools.cache
def state(keys: str) -> dict[str, Tensor]:
    found: dict[str, Tensor] = filler("fill_refiners_a").reference_state(golden_dir() / "keys" / f"{keys}.json")
    return found


def array(name: str, shape: tuple[int, ...], **kwargs: float) -> Tensor:
    drawn: Tensor = filler("fill_refiners_a").array(name, shape, **kwargs)
    return drawn.double()


def sub(t: Tensor, n: int) -> Tensor:
    return t.detach().flatten()[:: max(1, t.numel() // n) | 1]


def stats(t: Tensor) -> Tensor:
    return torch.stack([filler("fill_refiners_a").stats(one) for one in t])


def grid4(t: Tensor) -> Tensor:
    return t[..., ::4, ::4]


def networks() -> tuple[ConsultationEncoder, ResidualAligner]:
    consultation, aligner = ConsultationEncoder(512), ResidualAligner()
    consultation.load_state_dict(state("hfgi_residue"))
    aligner.load_state_dict(state("hfgi_grid_align"))
    return consultation.double().eval(), aligner.double().eval()


def test_sizes() -> None:
    consultation, aligner = ConsultationEncoder(512), ResidualAligner()
    for network, parameters, tensors in ((consultation, 5_647_344, 105), (aligner, 596_801, 295)):
        assert sum(p.numel() for p in network.parameters()) == parameters
        assert len(network.state_dict()) == tensors


def test_consultation() -> None:
    name, (network, _) = "hfgi_consultation", networks()
    x = (photographs(0, 2) - photographs(2, 4)).requires_grad_()
    outputs = dict(zip(("scale", "shift"), network(x, 64), strict=True))
    shape = (2, 512, 64, 64)
    probes = sum((outputs[k] * array(f"hfgi.probe_{k}", shape)).sum() for k in outputs)
    (gradient,) = torch.autograd.grad(probes, x)
    check(name, "grad_input_grid4", grid4(gradient))
    check(name, "grad_input_mean", gradient.mean((2, 3)))
    network.train()
    with torch.no_grad():
        trained = dict(zip(("scale", "shift"), network(x, 64), strict=True))
    for mode, found in (("eval", outputs), ("train", trained)):
        for key, value in found.items():
            check(name, f"{key}_{mode}_sub", sub(value, 3000))
            check(name, f"{key}_{mode}_channel_mean", value.mean((2, 3)))
            check(name, f"{key}_{mode}_stats", stats(value))
    check(name, "running_mean_after", network.get_buffer("conv_layer3.2.res_layer.4.running_mean"))


def test_aligner() -> None:
    name, (_, network) = "hfgi_aligner", networks()
    x = torch.cat([photographs(0, 2) - photographs(2, 4), photographs(0, 2)], dim=1).requires_grad_()
    residual = network(x)
    check(name, "residual_eval_grid4", grid4(residual))
    check(name, "residual_eval_stats", stats(residual))
    (gradient,) = torch.autograd.grad((residual * array("hfgi.probe_residual", (2, 3, 256, 256))).sum(), x)
    check(name, "grad_input_grid4_sample0", grid4(gradient[:1]))
    check(name, "grad_input_mean", gradient.mean((2, 3)))
    network.train()
    with torch.no_grad():
        residual = network(x)
    check(name, "residual_train_grid4", grid4(residual))
    check(name, "residual_train_stats", stats(residual))
    check(name, "running_mean_after", network.get_buffer("dconv_layer3.2.res_layer.4.running_mean"))


def coefficients() -> Tensor:
    start, end = (torch.from_numpy(arrays("hfgi_forward")[f"corners_{k}"]) for k in ("start", "end"))
    return perspective_coefficients(start, end)


class Distorted(HFGI):
    """With the distortion of the reference."""

    def distort(self, residual: Tensor) -> Tensor:
        return warp(residual, coefficients())


@functools.cache
def generator() -> Generator:
    weights = from_rosinality({**state("rosinality_g64_cm2"), "latent_avg": torch.zeros(512)})
    network = Generator(**infer_generator_config(weights))
    network.load_state_dict(weights)
    network = network.double().freeze()
    network.mapping.w_avg.copy_(tensor("hfgi_forward", "latent_avg"))
    return network


def method(**kwargs: Any) -> HFGI:
    def encoder(**sizes: int) -> nn.Module:
        network = FPNEncoder(**sizes, progressive=True)
        network.load_state_dict(state("e4e_n10"))
        return network

    embedder = PSP(generator=generator(), encoder=encoder, training_noise="const").double().eval()
    made = Distorted(generator=generator(), start=embedder, training_noise="const", **kwargs)
    made.consultation.load_state_dict(state("hfgi_residue"))
    made.aligner.load_state_dict(state("hfgi_grid_align"))
    return made.double().eval()


@pytest.mark.slow
@pytest.mark.long  # the networks are checked above, their use in small by test_refinement
@torch.no_grad()
def test_forward() -> None:
    name, made, x = "hfgi_forward", method(), photographs(0, 2)
    w, _, plain = made._embed(x)
    low_fidelity = resized(plain.clamp(-1, 1), 256)
    check(name, "codes", w)
    check(name, "low_fidelity_grid4_sample0", grid4(low_fidelity[:1]))
    check(name, "low_fidelity_stats", stats(low_fidelity))
    check(name, "perspective_coefficients", coefficients())
    residual = x - low_fidelity
    distorted = made.distort(residual)
    check(name, "residual_distorted_grid4_sample0", grid4(distorted[:1]))
    check(name, "residual_distorted_row128", distorted[:, :, 128])
    for kind, given in (("plain", residual), ("distorted", distorted)):
        aligned, (factor, shift) = made._conditions(given, low_fidelity)
        if kind == "plain":
            check(name, "aligned_plain_grid4", grid4(aligned[:1]))
        check(name, f"aligned_{kind}_stats", stats(aligned[:1]))
        check(name, f"delta_{kind}_abs_mean", (aligned - residual).abs().mean((1, 2, 3)))
        for key, value in (("scale", factor - 1), ("shift", shift)):
            check(name, f"{key}_{kind}_sub", sub(value, 1000))
            check(name, f"{key}_{kind}_channel_mean", value.mean((2, 3)))
            check(name, f"{key}_{kind}_stats", stats(value))
        check(name, f"image_{kind}", made._render(w, None, (factor, shift)))
    check(name, "image_plain", made.invert(x).image)


@pytest.mark.slow
@pytest.mark.long  # test_refinement checks the rule of edits in small
@torch.no_grad()
def test_edits() -> None:
    name, made, x = "hfgi_edit", method(), photographs(0, 1)
    found = made.invert(x)
    assert found.steps is not None and found.kept is not None
    check(name, "codes", found.w)
    check(name, "image0", found.steps[0].image)
    check(name, "image_inversion", found.image)
    check(name, "saved_inversion_grid4", resized(found.image, 256)[:, :, 1::4, 2::4])
    unit = filler("fill_refiners_a").unit
    components, means = unit("hfgi.pca_comp", (80, 512)).double(), array("hfgi.pca_mean", (1, 512), std=0.1)
    deviations = array("hfgi.pca_std", (80,), mean=1, std=0.05)

    def ganspace(w: Tensor) -> Tensor:
        """Component 54 of layers 7 to 8 becomes 20, where the official code takes that of layer 0 as the old value."""
        score = (w[:, 0] - means) @ components[54] / deviations[54]
        moved = w.clone()
        moved[:, 7:8] += (20 - score[:, None, None]) * deviations[54] * components[54]
        return moved

    edits = {
        "interfacegan": lambda w: w + 3 * unit("hfgi.direction", (1, 512)).double(),
        "ganspace": ganspace,
    }
    for key, edit in edits.items():
        codes = edit(found.w)
        aligned, _ = made._conditions(
            found.kept["residual"], resized(made.generator.synthesis(codes).clamp(-1, 1), 256)
        )
        check(name, f"aligned_{key}_stats", stats(aligned))
        check(name, f"codes_{key}", codes)
        check(name, f"image_{key}", made.edit(found, edit))
        if key == "interfacegan":
            check(name, f"image_unconditioned_{key}", made.generator.synthesis(codes))
    aligned, _ = made._conditions(found.kept["residual"], resized(found.steps[0].image.clamp(-1, 1), 256))
    check(name, "aligned_inversion_grid4", grid4(aligned))
    check(name, "aligned_inversion_stats", stats(aligned))


@pytest.mark.slow
@pytest.mark.long  # minutes; the networks are checked above, the losses in small by test_refinement
@pytest.mark.parametrize("train_mode", [True, False])
def test_training_step(train_mode: bool, tmp_path: Any) -> None:
    torch.save(golden.reference_state("ir_se50_arcface"), tmp_path / "model_ir_se50.pth")
    torch.save(golden.reference_state("torchvision_alexnet_features"), tmp_path / "alexnet.pth")
    terms = {
        "l2": L2(),
        "lpips": LPIPS(trunk=tmp_path / "alexnet.pth").double(),
        "id": ArcFaceLoss(tmp_path / "model_ir_se50.pth").double(),
    }
    loss = LossTerms(terms, {"l2": 1.0, "lpips": 0.8, "id": 0.1})
    name, end = "hfgi_step", "" if train_mode else "_encoder_eval"
    made = method(loss=loss, train_mode_start=train_mode).train()
    losses = made.training_losses({"image": photographs(0, 2)})
    losses["total"].backward()
    for key, term in {
        "loss_l2": "l2",
        "loss_lpips": "lpips",
        "loss_id": "id",
        "loss_res": "alignment",
        "loss": "total",
    }.items():
        check(name, f"term_{key}{end}", losses[term])
    for part, network, groups in (
        (
            "residue",
            made.consultation,
            [*(f"conv_layer{k}" for k in (1, 2, 3)), "condition_scale3", "condition_shift3"],
        ),
        ("align", made.aligner, [*(f"conv_layer{k}" for k in (1, 2, 3, 4)), *(f"dconv_layer{k}" for k in (1, 2, 3))]),
    ):
        sums = [sum(p.grad.abs().sum() for p in getattr(network, g).parameters()) for g in groups]
        check(name, f"grad_abs_sum_{part}{end}", torch.stack(sums))
    if train_mode:
        gradients = {
            "residue": (
                made.consultation,
                {"conv_layer1.0.weight": 1, "condition_shift3.2.bias": 1, "condition_scale3.0.weight": 151},
            ),
            "grid_align": (
                made.aligner,
                {
                    "conv_layer1.0.weight": 1,
                    "dconv_layer3.2.res_layer.4.bias": 1,
                    "conv_layer4.0.res_layer.3.weight": 37,
                },
            ),
        }
        for part, (network, names) in gradients.items():
            for key, stride in names.items():
                gradient = network.get_parameter(key).grad
                assert gradient is not None
                want = gradient if stride == 1 else gradient.flatten()[::stride]
                check(name, f"grad.{part}.{key}{'' if stride == 1 else '_sub'}", want)
    embedder: Any = made.start.network
    for part, network, key in (
        ("encoder", embedder.encoder, "body.23.res_layer.4"),
        ("residue", made.consultation, "conv_layer3.2.res_layer.4"),
        ("align", made.aligner, "dconv_layer3.2.res_layer.4"),
    ):
        check(name, f"{part}_running_mean_after{end}", network.get_buffer(f"{key}.running_mean"))
    assert not embedder.training and all(p.grad is None for p in embedder.parameters())
    load_arcface.cache_clear()
