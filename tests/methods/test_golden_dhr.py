"""DHR's mask, refinement and edit against the official code, in double precision."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from stylegan_inv.generators import Generator, from_rosinality
from stylegan_inv.generators.io.network_geometry import infer_generator_config
from stylegan_inv.losses.features import LpipsFeatures
from stylegan_inv.methods.feature_space.dhr import DHR, RefinementState
from stylegan_inv.methods.projector import Projector
from stylegan_inv.methods.regions.domain_mask import DomainMask, DomainRules, domain_mask
from stylegan_inv.optim.optimization_state import Monitor
from tests import golden
from tests.golden import arrays, check, filler, golden_dir, needs_golden

pytestmark = needs_golden
NAME = "dhr"


def rnd(*args: Any) -> Tensor:
    drawn: Tensor = filler("fill_features").rnd(*args)
    return drawn.double()


def image() -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return golden.fill().image(file["img256"][1:2]).double()[:, :, ::4, ::4]


@functools.cache
def mask() -> DomainMask:
    maps = [0.05 + 0.12 * rnd(f"dhr.delta.{i}", (1, 1, 64 >> i, 64 >> i), 0).abs()[0, 0] for i in range(5)]
    parsing = (2 * rnd("dhr.parse", (19, 8, 8), 0)).softmax(0)
    parsing = parsing.repeat_interleave(8, 1).repeat_interleave(8, 2)
    superpixels = torch.from_numpy(arrays(NAME)["superpixels"].astype(np.int64))
    return domain_mask(maps, superpixels, DomainRules(drop_missed=True), parsing)


def test_mask() -> None:
    found = mask()
    for key, got in (("mask", found.mask), ("mask_superpixel", found.superpixel), ("mask_parsing", found.parsing)):
        check(NAME, key, got)
    check(NAME, "distances", found.distances.nan_to_num(-1))
    assert bool((found.mask <= found.parsing).all())


class Watched(DHR):
    """Keeps the images and the gradients of the refinement."""

    def refinement_losses(self, image: Tensor, *args: Any) -> tuple[Tensor, Tensor]:
        self.images = [*getattr(self, "images", []), image.detach()]
        return super().refinement_losses(image, *args)


@pytest.mark.slow
def test_refinement(tmp_path: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    torch.save(golden.reference_state("torchvision_alexnet_features"), tmp_path / "alexnet.pth")
    weights = filler("fill_features").reference_state(golden_dir() / "keys" / "rosinality_g64_cm2.json")
    state = from_rosinality({**weights, "latent_avg": torch.zeros(512)})
    generator = Generator(**infer_generator_config(state))
    generator.load_state_dict(state)
    generator = generator.double().freeze()
    features = LpipsFeatures("alex", tmp_path / "alexnet.pth", size=None).double()
    coarse = Projector(generator=generator, features=features, steps=1)
    method: Any = Watched(
        generator=generator, features=features, coarse=coarse, layer="b32", steps=4, weight_steps=2, sum_channels=True
    )
    w = rnd("dhr.w", (1, 10, 512), 0, 0, 0.5)
    noise = [m.clone() for m in generator.synthesis.noise_maps()]
    begun = RefinementState(w, noise, False, mask().mask[None, None])
    check(NAME, "mask_f", method._small(begun.mask)[0, 0])
    with torch.no_grad():
        check(NAME, "image_start", generator.synthesis(w))

    gradients, real = [], torch.autograd.grad

    def grad(outputs: Any, inputs: Any, **kwargs: Any) -> Any:
        found = real(outputs, inputs, **kwargs)
        gradients.append(found)
        return found

    monkeypatch.setattr(torch.autograd, "grad", grad)
    kept: list[Any] = []
    monkeypatch.setattr(
        "stylegan_inv.methods.feature_space.dhr.compress", lambda base, changed, rank: kept.append(changed) or {}
    )
    result = method._refine(image(), begun, 0, Monitor())
    check(NAME, "images", torch.cat(method.images)[..., ::2, ::2])
    offsets = [found[0] for found in gradients if len(found) == 1]
    check(NAME, "grad_offset_0_slice", offsets[0][:, ::32])
    check(NAME, "grad_offset_abs_sum", torch.stack([g.abs().sum((0, 2, 3)) for g in offsets]))
    inside = begun.mask.new_ones(1) > 0
    assert inside and all(bool((g[:, :, method._small(begun.mask)[0, 0] == 1] == 0).all()) for g in offsets)
    names = [name for name, _ in generator.synthesis.named_parameters()]
    groups = groups_of(names)
    sums = [
        [sum(float(g.abs().sum()) for n, g in zip(names, found, strict=True) if n in group) for group in groups]
        for found in gradients
        if len(found) > 1
    ]
    check(NAME, "grad_weight_abs_sum", torch.tensor(sums, dtype=torch.float64))
    first = dict(zip(names, next(found for found in gradients if len(found) > 1), strict=True))
    check(NAME, "grad_weight.convs.6.conv.modulation.bias", first["b64.conv0.affine.bias"])
    check(NAME, "grad_weight.to_rgbs.3.conv.weight", first["b64.torgb.weight"][None])
    check(NAME, "offset_slice", result.feature[:, ::32])
    check(NAME, "offset_chan_norm", result.feature.norm(dim=(2, 3))[0])
    tuned, before = dict(kept[0].named_parameters()), dict(generator.synthesis.named_parameters())
    changes = [sum(float((tuned[n] - before[n]).square().sum()) for n in group) ** 0.5 for group in groups]
    check(NAME, "weight_change_norms", torch.tensor(changes, dtype=torch.float64))
    check(NAME, "weight.to_rgbs.3.conv.weight", tuned["b64.torgb.weight"][None])
    small = method._small(begun.mask)
    change = {"b32": (small, result.feature * (1 - small))}
    with torch.no_grad():
        check(NAME, "image_final", kept[0](w, features=change))
        edited = w + rnd("dhr.n", (1, 10, 512), 0, 0, 0.3)
        check(NAME, "image_edit", kept[0](edited, features=change))


def groups_of(names: list[str]) -> list[list[str]]:
    """Names of the parameters by the official modules: style, input, conv1, to_rgb1, convs, to_rgbs."""
    of = lambda start: [n for n in names if n.startswith(f"{start}.")]  # noqa: E731
    sizes = (8, 16, 32, 64)
    convs = [of(f"b{r}.{conv}") for r in sizes for conv in ("conv0", "conv1")]
    return [[], ["b4.const"], of("b4.conv1"), of("b4.torgb"), *convs, *(of(f"b{r}.torgb") for r in sizes)]
