"""LSAP's style vectors, anchors, loss and distance, against the official code and by construction."""

from __future__ import annotations

from typing import Any

import pytest
import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator, from_rosinality
from stylegan_inv.generators.io.network_geometry import infer_generator_config
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.losses.latent.style_alignment import StyleAlignment, style_anchors, style_vectors
from stylegan_inv.metrics.latent import StyleSpaceDistance
from tests.golden import check, filler, golden_dir, needs_golden, tensor
from tests.methods.tiny import tiny_generator


def inputs(w: torch.Tensor) -> LossInputs:
    image = torch.zeros(len(w), 3, 4, 4, dtype=w.dtype)
    return LossInputs(image=image, target=image, w=w)


@needs_golden
def test_official_numbers() -> None:
    name, fill = "lsap_sncd", filler("fill_features")
    weights = fill.reference_state(golden_dir() / "keys" / "rosinality_g64_cm2.json")
    state = from_rosinality({**weights, "latent_avg": torch.zeros(512)})
    generator = Generator(**infer_generator_config(state))
    generator.load_state_dict(state)
    generator = generator.double().freeze()
    with torch.no_grad():
        samples = generator.mapping.w(fill.rnd("lsap.z", (2000, 512), 0).double())
    anchors = style_anchors(generator, samples)
    assert [len(a) for a in anchors] == tensor(name, "style_dims").tolist()
    check(name, "anchors", torch.cat(anchors))
    check(name, "anchor_norms", torch.stack([a.norm() for a in anchors]))
    term = StyleAlignment(generator, samples=2, unit_anchors=False)
    term.set_anchors(anchors)
    w = fill.rnd("lsap.w", (2, 10, 512), 0, 0, 0.7).double()
    for end, rows in (("", 10), ("_stage3", 4)):
        codes = w.clone().requires_grad_()
        # The rows above the stage are those of the first one.
        staged = torch.cat([codes[:, :rows], codes[:, :1].expand(-1, 10 - rows, -1)], dim=1)
        total = term(inputs(staged))
        check(name, f"total_sncd{end}", total[None])
        check(name, f"loss{end}", 0.5 * total[None])
        (gradient,) = torch.autograd.grad(0.5 * total, codes)
        check(name, f"grad_w{end}", gradient)
    check(name, "sncd_per_layer", -term.similarities(w).mean(0))
    metric: Any = StyleSpaceDistance(generator, samples=20).double()
    for number, anchor in enumerate(anchors):
        setattr(metric, f"anchor{number}", torch.nn.functional.normalize(anchor, dim=0))
    check(name, "metric_distance", metric.distances(w))
    check(name, "metric_mean", metric.score(w).mean()[None])


def test_a_sample_alone_is_its_own_anchor() -> None:
    generator = tiny_generator()
    w = generator.mapping(torch.randn(1, 8, dtype=torch.float64)).detach()
    term = StyleAlignment(generator, samples=2)
    term.set_anchors(style_anchors(generator, w[:, 0]))
    found = style_vectors(generator, w)
    assert len(found) == generator.num_ws
    products = torch.stack([s @ term.get_buffer(f"anchor{k}") for k, s in enumerate(found)])
    torch.testing.assert_close(products, torch.ones_like(products))


def test_the_gradient_is_orthogonal_to_each_style_vector() -> None:
    generator = tiny_generator()
    term = StyleAlignment(generator, samples=50)
    layer = generator.synthesis.get_submodule("b4.conv1.affine")
    style = layer(torch.randn(3, 8, dtype=torch.float64)).detach().requires_grad_()
    (torch.nn.functional.normalize(style, dim=1) @ term.get_buffer("anchor0")).sum().backward()
    assert style.grad is not None and float(style.grad.abs().max()) > 0
    torch.testing.assert_close((style * style.grad).sum(1), torch.zeros(3, dtype=torch.float64))


def test_codes_of_w_are_nearer_than_noise() -> None:
    generator = tiny_generator(torch.float32)
    metric = StyleSpaceDistance(generator, samples=2000)
    own = generator.mapping(torch.randn(64, 8)).detach()
    metric.update(own)
    near = float(metric.compute())
    assert near == pytest.approx(float(metric.own_distance), rel=0.3)
    metric.reset()
    metric.update(5 * torch.randn(64, generator.num_ws, 8))
    assert float(metric.compute()) > 2 * near
    with pytest.raises(UserError, match="expected \\(B, 6, D\\)"):
        style_vectors(generator, own[:, :3])
