"""HyperStyle's refinement and one of its training steps against the official code, in double precision."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.hypernetworks.shared_weights import SharedWeightsHypernetwork
from stylegan_inv.losses.arcface import ArcFaceLoss, load_arcface
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.lpips import LPIPS
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.base import pool
from stylegan_inv.methods.hyperstyle import HyperStyle, WeightStep
from stylegan_inv.methods.psp import PSP
from tests.golden import arrays, check, needs_golden, reference_state, tensor
from tests.hypernetworks.reference import LAYERS, photographs, rosinality_256, state, stats, sub, without_aliases

pytestmark = [needs_golden, pytest.mark.slow, pytest.mark.long]  # minutes; the tests of the parts cover most of it


@pytest.fixture(scope="module")
def loss(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LossTerms]:
    yield losses(tmp_path_factory.mktemp("weights"))
    load_arcface.cache_clear()


def losses(folder: Path) -> LossTerms:
    torch.save(reference_state("ir_se50_arcface"), folder / "model_ir_se50.pth")
    torch.save(reference_state("torchvision_alexnet_features"), folder / "alexnet.pth")
    terms = {"l2": L2(), "lpips": LPIPS(trunk=folder / "alexnet.pth"), "id": ArcFaceLoss(folder / "model_ir_se50.pth")}
    return LossTerms(terms, {"l2": 1.0, "lpips": 0.8, "id": 0.1}).double()


def build(iterations: int, **kwargs: Any) -> HyperStyle:
    generator = rosinality_256(tensor("hyperstyle_w_encoder", "latent_avg"))
    start = PSP(generator=generator, encoder=SingleWEncoder).double()
    start.encoder.load_state_dict(reference_state("psp_into_w"))
    with torch.device("meta"):
        network = SharedWeightsHypernetwork(generator.synthesis, layers=LAYERS)
    network.load_state_dict(without_aliases(state("hyperstyle_hypernet_g256")), assign=True)
    method = HyperStyle(
        generator=generator, start=start, hypernetwork=lambda *_, **__: network, iterations=iterations, **kwargs
    )
    return method.double()


def offsets(method: HyperStyle, step: WeightStep) -> dict[int, Tensor]:
    assert step.weights is not None
    synthesis = method.generator.synthesis
    changes = LowRankDifference(step.weights, synthesis)
    return {
        layer.number: changes[layer.name] / synthesis.get_parameter(layer.name).detach()
        for layer in method.hypernetwork.layers
    }


@torch.no_grad()
def test_refinement() -> None:
    name, method = "hyperstyle_loop", build(3).eval()
    x = photographs(slice(1, 2))
    steps = [step for step, _ in method.refine(x)]
    check(name, "initial_image_grid4", steps[0].image[..., ::4, ::4])
    images = torch.cat([step.image for step in steps[1:]])
    check(name, "image_grid4", images[..., ::4, ::4])
    check(name, "image_mean", images.mean((2, 3)))
    check(name, "w", steps[-1].w[:, 0])
    check(name, "distance_per_step", torch.stack([(step.image - x).square().mean() for step in steps[1:]]))
    deltas = [offsets(method, step) for step in steps[1:]]
    for number in LAYERS:
        of_steps = [delta[number] for delta in deltas]
        check(name, f"delta{number}_stats", torch.stack([stats(one) for one in of_steps]))
        check(name, f"delta{number}_sum_out", torch.stack([one.sum((0, 2, 3, 4)) for one in of_steps]))
        check(name, f"delta{number}_last_sub", sub(of_steps[-1], 1536 if number == 13 else 1000))


def test_training_step(loss: LossTerms) -> None:
    name, method = "hyperstyle_step", build(2, loss=loss).train()
    seen: list[WeightStep] = []
    method.losses = lambda step, batch: seen.append(step) or HyperStyle.losses(method, step, batch)  # type: ignore
    values: dict[str, list[Tensor]] = {}
    for terms in method.training_losses({"image": photographs(slice(0, 1))}):
        terms["total"].backward()
        for key, value in terms.items():
            values.setdefault(key, []).append(value.detach())
    for key, golden in {"total": "loss", "id": "loss_id", "l2": "loss_l2", "lpips": "loss_lpips"}.items():
        check(name, golden, torch.stack(values[key]))
    check(name, "image_grid4", torch.cat([pool(step.image, 256) for step in seen])[..., ::4, ::4])
    deltas = [offsets(method, step) for step in seen]
    check(name, "delta_stats", torch.stack([torch.stack([stats(d[k]) for k in LAYERS]) for d in deltas]))

    network = method.hypernetwork
    check(name, "grad_abs_sum_stem", torch.stack([_sums(getattr(network, part)) for part in ("conv1", "bn1", "relu")]))
    check(name, "grad_abs_sum_body", torch.stack([_sums(unit) for unit in network.body]))
    shared = network.shared_weight_hypernet
    check(
        name,
        "grad_abs_sum_shared",
        torch.stack([getattr(shared, k).grad.abs().sum() for k in ("w1", "b1", "w2", "b2")]),
    )
    check(name, "grad_abs_sum_blocks", torch.stack([_sums(network.refinement_blocks[str(k)]) for k in LAYERS]))
    for key in [k for k in arrays(name) if k.startswith("grad.")]:
        parameter = network.get_parameter(key.removeprefix("grad.").removesuffix("_sub"))
        check(name, key, sub(parameter.grad, 2000) if key.endswith("_sub") else parameter.grad)
    check(name, "running_mean_after", network.body[15].bn2.running_mean)
    check(name, "running_var_after", network.body[15].bn2.running_var)
    check(name, "batches_tracked", network.bn1.num_batches_tracked.double())
    assert all(p.grad is None for p in method.start.network.parameters())


def _sums(module: torch.nn.Module) -> Tensor:
    return sum((p.grad.abs().sum() for p in module.parameters()), torch.zeros((), dtype=torch.float64))
