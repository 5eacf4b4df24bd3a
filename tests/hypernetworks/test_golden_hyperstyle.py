"""HyperStyle's networks and generator with offsets against the official code, in double precision: about 90 s."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.generators.variants.low_rank_difference import SCALE, LowRankDifference
from stylegan_inv.hypernetworks.shared_weights import SharedWeightsHypernetwork
from stylegan_inv.methods.common.base import pool
from stylegan_inv.methods.psp import PSP
from tests.golden import check, needs_golden, reference_state, tensor
from tests.hypernetworks.reference import (
    LAYERS,
    array,
    check_offsets,
    photographs,
    rosinality_256,
    state,
    without_aliases,
)

pytestmark = [needs_golden, pytest.mark.slow]  # networks of 200 million weights in double precision


def offsets(factors: dict[str, Tensor], network: SharedWeightsHypernetwork, synthesis: torch.nn.Module) -> dict:
    """Number of a layer -> delta (B, O, I, k, k)."""
    changes = LowRankDifference(factors, synthesis)
    return {
        layer.number: changes[layer.name] / synthesis.get_parameter(layer.name).detach() for layer in network.layers
    }


@torch.no_grad()
def test_w_encoder() -> None:
    name = "hyperstyle_w_encoder"
    generator = rosinality_256(tensor(name, "latent_avg"))
    method = PSP(generator=generator, encoder=SingleWEncoder).double().eval()
    method.encoder.load_state_dict(reference_state("psp_into_w"))
    found = method.invert(photographs(slice(0, 2)))
    check(name, "w", found.w[:, 0] - generator.w_avg)
    check(name, "codes_first_row", found.w[:, 5])
    image = pool(found.image, 256)
    check(name, "image_grid4", image[..., ::4, ::4])
    check(name, "image_mean", image.mean((2, 3)))


@pytest.mark.parametrize("separable", [False, True])
@torch.no_grad()
def test_hypernetworks(separable: bool) -> None:
    name = "hyperstyle_separable" if separable else "hyperstyle_hypernet"
    synthesis = rosinality_256().synthesis
    with torch.device("meta"):
        network = SharedWeightsHypernetwork(synthesis, layers=LAYERS, separable=separable)
    network.load_state_dict(without_aliases(state(f"{name}_g256")), assign=True)
    network.double().eval()
    x = torch.cat([photographs(slice(0, 2)), photographs(slice(2, 4))], dim=1)
    factors = network(x)
    delta = offsets(factors, network, synthesis)
    check(name, "is_none", torch.tensor([number not in delta for number in range(20)]).double())
    for number in (13, 17, 18) if separable else LAYERS:
        check_offsets(name, f"delta{number}", delta[number], 3000 if number == 13 else 2000, ("out", "in", "tap"))
    if separable:
        return
    features = network.maps(x)[-1]
    check(name, "features_sub", features.reshape(-1)[::131])
    check(name, "features_mean", features.mean((2, 3)))
    for number in (0, 12):
        check(name, f"code{number}", network.refinement_blocks[str(number)](features))
    check(name, "delta0_row5", delta[0][0, 5, :8])
    check(name, "delta0_col5", delta[0][0, :8, 5])
    check(name, "delta17_corner", delta[17][:, :8, :8, 1, 1])


SHAPES = {
    0: ("b4.conv1.weight", (512, 512, 3, 3)), 12: ("b64.conv1.weight", (512, 512, 3, 3)),
    13: ("b64.torgb.weight", (3, 512, 1, 1)), 14: ("b128.conv0.weight", (256, 512, 3, 3)),
    18: ("b256.conv1.weight", (128, 128, 3, 3)),
}  # fmt: skip


@pytest.mark.long  # test_relative_changes_of_the_generator checks the same in small
def test_generator_with_offsets() -> None:
    name = "hyperstyle_generator"
    synthesis = rosinality_256().synthesis
    w, probe = array("hyperstyle.w_plus", (2, 14, 512), 0.7), array("hyperstyle.probe", (2, 3, 256, 256))
    delta = {number: array(f"hyperstyle.delta.{number}", (2, *shape), 0.2) for number, (_, shape) in SHAPES.items()}

    def weights(scales: dict[int, Tensor]) -> LowRankDifference:
        return LowRankDifference({SHAPES[k][0] + SCALE: scale for k, scale in scales.items()}, synthesis)

    with torch.no_grad():
        check(name, "image_plain_grid4", synthesis(w[:1])[..., ::4, ::4])
        image = synthesis(w, weights=weights(delta))
        check(name, "image_5d_grid4", image[..., ::4, ::4])
        check(name, "image_5d_mean", image.mean((2, 3)))
    own = {number: value[:1].clone().requires_grad_() for number, value in delta.items()}
    code = w[:1].clone().requires_grad_()
    (synthesis(code, weights=weights(own)) * probe[:1]).sum().backward()
    check(name, "grad_w_5d", code.grad)
    for number, value in own.items():
        check_offsets(name, f"grad_delta{number}_5d", value.grad, 1500)

    shared = {number: delta[number][:1].clone().requires_grad_() for number in (12, 13, 18)}
    image = synthesis(w, weights=weights(shared))
    check(name, "image_4d_grid4", image[..., ::4, ::4])
    check(name, "image_4d_mean", image.mean((2, 3)))
    (image * probe).sum().backward()
    for number, value in shared.items():
        check_offsets(name, f"grad_delta{number}_4d", value.grad, 1500)
