"""HFGI, SAM and DHR on a tiny generator: what holds for any weights, edits, resuming, starts, errors."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stylegan_inv.data.augment.perspective import corners, perspective_coefficients, random_corners, warp
from stylegan_inv.encoders.refinement.residual_encoders import ConsultationEncoder, ResidualAligner
from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.methods.feature_space.dhr import DHR
from stylegan_inv.methods.feature_space.hfgi import HFGI
from stylegan_inv.methods.feature_space.sam import SAM
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.projector import Projector
from stylegan_inv.methods.regions.domain_mask import DomainRules, domain_mask
from stylegan_inv.methods.regions.superpixels import Superpixels
from stylegan_inv.optim.optimization_state import Monitor
from tests.methods.tiny import Blurs, tiny, tiny_generator, tiny_images


class Known(InversionMethod):
    """Finds fixed codes and perhaps more."""

    def __init__(self, **more: Any) -> None:
        super().__init__(tiny_generator())
        z = torch.randn(4, 8, generator=torch.Generator().manual_seed(9)).double()
        self.w, self.more = self.generator.mapping(z).detach(), more

    def invert(self, images: Tensor) -> Inversion:
        w = self.w[: len(images)]
        noise = self.more.get("noise")
        return Inversion(w, self.generator.synthesis(w, noise=noise or "const"), **self.more)


def moved(w: Tensor) -> Tensor:
    return w + 0.3


def hfgi(**settings: Any) -> HFGI:
    torch.manual_seed(2)
    settings = {"start": Known(), "layer": "b8.conv0", "loss": LossTerms({"l2": L2()}, {"l2": 1.0}), **settings}
    small: dict[str, Any] = {
        "consultation": partial(ConsultationEncoder, widths=(4, 4, 6), strides=(2, 1)),
        "aligner": partial(ResidualAligner, widths=(4, 4, 6, 6)),
    }
    return HFGI(generator=tiny_generator(), **small, **settings).double().eval()


def dhr(**settings: Any) -> Any:
    coarse = tiny(Projector, steps=2)
    settings = {"layer": "b8", "steps": 4, "weight_steps": 2, "coarse": coarse, "start": Known(), **settings}
    return tiny(DHR, rules=DomainRules(face=1e-3), superpixels=Superpixels(segments=12), **settings).eval()


def sam(**settings: Any) -> Any:
    settings = {"layers": ["b4", "b8"], "steps": 4, "measure_steps": 3, "start": Known(), **settings}
    return tiny(SAM, superpixels=Superpixels(segments=12), w_avg_samples=100, **settings).eval()


# -- perspective -------------------------------------------------------------------------------------------------------


def test_corners_move_inwards_by_whole_pixels() -> None:
    torch.manual_seed(0)
    found, start = random_corners(2000, 64, 32, 0.15), corners(64, 32)
    shift = (found - start).abs()
    assert not found.is_floating_point() and shift[..., 0].max() == 2 and shift[..., 1].max() == 4
    centre = torch.tensor([15.5, 31.5])
    assert bool(((found - centre).abs() <= (start - centre).abs()).all())
    assert torch.equal(shift.unique(), torch.arange(5))


def test_a_warp_carries_the_corners() -> None:
    start, end = corners(32, 32), random_corners(1, 32, 32, 0.5)[0]
    table = perspective_coefficients(start, end).double()
    a, b, c, d, e, f, g, h = table
    for (u, v), (x, y) in zip(start.double(), end.double(), strict=True):
        depth = g * x + h * y + 1
        torch.testing.assert_close((a * x + b * y + c) / depth, u, atol=1e-3, rtol=0)
        torch.testing.assert_close((d * x + e * y + f) / depth, v, atol=1e-3, rtol=0)
    image = torch.rand(1, 3, 32, 32)
    torch.testing.assert_close(warp(image, perspective_coefficients(start, start)), image, atol=1e-4, rtol=0)


# -- HFGI --------------------------------------------------------------------------------------------------------------


def test_conditions_of_zero_are_the_plain_image() -> None:
    method = hfgi()
    for head in (method.consultation.condition_scale3, method.consultation.condition_shift3):
        for parameter in head.parameters():  # type: ignore[union-attr]
            parameter.data.zero_()
    found = method.invert(tiny_images(2))
    assert found.steps is not None
    assert torch.equal(found.image, found.steps[0].image)


def test_an_edit_aligns_the_residual_with_the_edited_image() -> None:
    method, images = hfgi(), tiny_images(2)
    with torch.no_grad():
        found = method.invert(images)
        torch.testing.assert_close(method.edit(found, lambda w: w), found.image)
        w = moved(found.w)
        plain = method.generator.synthesis(w)
        residual = images - method.generator.synthesis(found.w).clamp(-1, 1)
        aligned = method.aligner(torch.cat([residual, plain.clamp(-1, 1)], dim=1))
        scale, shift = method.consultation(aligned, 8)
        want = method.generator.synthesis(w, features={"b8.conv0": (1 + scale, shift)})
        torch.testing.assert_close(method.edit(found, moved), want)
        one = method.render_edited(found.select(slice(1, 2)), w[1:])
    torch.testing.assert_close(one, want[1:])
    with pytest.raises(UserError, match="which is missing; invert the image again"):
        method.edit(Inversion(found.w, found.image), moved)


class Unaligned(nn.Module):
    """Returns the residual as it is."""

    def forward(self, x: Tensor) -> Tensor:
        return x[:, :3]


def test_the_alignment_is_free_without_distortion_and_an_identity() -> None:
    method = hfgi(distortion_probability=0.0).train()
    method.aligner = Unaligned()
    losses = method.training_losses({"image": tiny_images(3)})
    assert float(losses["alignment"]) == 0
    method.distortion_probability, method.distortion = 1.0, 0.5
    assert float(method.training_losses({"image": tiny_images(3)})["alignment"]) > 0


def test_only_the_two_networks_learn() -> None:
    method = hfgi().train()
    method.training_losses({"image": tiny_images(3)})["total"].backward()
    learned = {name.split(".")[0] for name, p in method.named_parameters() if p.grad is not None}
    assert learned == {"consultation", "aligner"}
    assert {name.split(".")[0] for name in method.state_dict()} == learned
    assert all(p.grad is None for p in method.generator.parameters())


def test_one_distortion_for_a_batch_on_request() -> None:
    torch.manual_seed(4)
    image = tiny_images(1).expand(6, -1, -1, -1)
    for same in (False, True):
        warped = hfgi(same_distortion=same, distortion=0.9, distortion_probability=1.0).distort(image)
        assert all(torch.equal(one, warped[0]) for one in warped) is same


# -- SAM ---------------------------------------------------------------------------------------------------------------


def test_sam_inverts_each_image_alone() -> None:
    images = tiny_images(3)
    together, alone = sam(start="average").invert(images), sam(start="average").invert(images[1:2])
    torch.testing.assert_close(together.image[1:2], alone.image, atol=1e-9, rtol=1e-9)
    assert float((together.image - images).square().mean()) < float((together.steps[0].image - images).square().mean())


@pytest.mark.parametrize("threshold", [-1.0, 1e6])
def test_thresholds_at_both_ends(threshold: float) -> None:
    """Nothing is good enough: the last feature map explains all. Everything is: the codes do, and edits are plain."""
    method = sam(threshold=threshold)
    found = method.invert(tiny_images(2))
    kept = {layer: float(1 - scale.mean()) for layer, (scale, _) in found.features.items()}
    assert kept == ({"b4": 0.0, "b8": 1.0} if threshold < 0 else {"b4": 0.0, "b8": 0.0})
    with torch.no_grad():
        edited = method.edit(found, moved)
        if threshold > 0:
            torch.testing.assert_close(edited, method.generator.synthesis(moved(found.w)))
        else:
            rows = method.generator.synthesis(moved(found.w), features={"b8": found.features["b8"][1]})
            torch.testing.assert_close(edited, rows)


def test_sam_restores_its_features_in_an_edit() -> None:
    method = sam(threshold=0.01)
    found = method.invert(tiny_images(2))
    with torch.no_grad():
        torch.testing.assert_close(method.edit(found, lambda w: w), found.image)  # also at soft borders
        other = method.generator.synthesis(moved(found.w), features=found.features, return_features=["b8"]).features
    scale, kept = found.features["b8"]
    inside = (scale == 0).expand_as(kept)
    torch.testing.assert_close(other["b8"][inside], kept[inside])


# -- DHR ---------------------------------------------------------------------------------------------------------------


def test_dhr_moves_only_what_is_foreign() -> None:
    images = tiny_images(2)
    mask = torch.zeros(2, 1, 16, 16, dtype=torch.float64)
    method = dhr(weight_steps=0, start=Known())
    outside = method.optimize(images, mask=mask)
    change = outside.features["b8"]
    assert float(change[0].abs().max()) == 0
    plain = method.generator.synthesis(outside.w, features={"b8": change[1]})
    torch.testing.assert_close(outside.image, plain)
    assert float((outside.image - images).square().mean()) < float((outside.steps[0].image - images).square().mean())
    method.rules = DomainRules(face=1e6)
    inside = method.optimize(images, mask=1 - mask)
    torch.testing.assert_close(inside.image, inside.steps[0].image)


def test_weights_stop_moving_after_their_steps() -> None:
    images = tiny_images(1)
    methods = [dhr(steps=steps) for steps in (2, 4)]
    for method in methods:
        method.rules = DomainRules(face=1e6)
    weights = [method.invert(images).weights for method in methods]
    assert all(torch.equal(weights[0][name], weights[1][name]) for name in weights[0])
    assert any(float(value.abs().max()) > 0 for value in weights[0].values())


def test_dhr_keeps_weights_and_features_in_edits() -> None:
    method = dhr(rank=2)
    found = method.invert(tiny_images(2))
    with torch.no_grad():
        torch.testing.assert_close(method.edit(found, lambda w: w), found.image)
        both = method.edit(found, moved)
        torch.testing.assert_close(method.edit(found.select(slice(1, 2)), moved), both[1:])
    assert float((both - method.generator.synthesis(moved(found.w))).abs().max()) > 1e-3


def test_superpixels_that_a_coarse_map_misses() -> None:
    """Official code: foreign. Here: their distance is interpolated."""
    numbers = torch.ones(16, 16, dtype=torch.long)
    numbers[3, 3] = 2
    maps = [torch.full((16, 16), 0.1, dtype=torch.float64), torch.full((4, 4), 0.1, dtype=torch.float64)]
    for drop, value in ((True, 0.0), (False, 1.0)):
        found = domain_mask(maps, numbers, DomainRules(face=0.3, drop_missed=drop))
        assert float(found.mask[3, 3]) == value and float(found.mask[0, 0]) == 1
    assert float(domain_mask(maps, numbers, DomainRules(face=0.1)).mask.sum()) == 0


def test_parts_of_distances_sum_to_the_distance() -> None:
    network, images = Blurs().double(), tiny_images(3)
    a, b = network.maps(images), network.maps(images.flip(0))
    parts = sum(m.mean((1, 2, 3)) for m in network.distance_maps(a, b))
    torch.testing.assert_close(parts, network.distance(a, b))


def test_dhr_with_a_parser() -> None:
    class Parser(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            found = images.new_zeros(len(images), 19, *images.shape[2:])
            found[:, 0, :, :8], found[:, 2, :, 8:] = 1, 1
            return found

    method = dhr(parser=Parser())
    method.rules = DomainRules(face=1e6, others=1e6)
    mask = method.masks(tiny_images(2), tiny_images(2))
    assert float(mask[:, :, :, :8].abs().max()) == 0 and float(mask[:, :, :, 8:].min()) == 1


# -- all -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("make", [sam, dhr])
def test_an_interrupted_refinement_continues(make: Any, tmp_path: Path) -> None:
    images = tiny_images(2)
    whole = make().optimize(images)

    class Stop(Exception):
        pass

    saves = 0
    save = Monitor.save

    def stopping(self: Monitor, state: object) -> None:
        nonlocal saves
        save(self, state)
        saves += 1
        if saves == 2:
            raise Stop

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Monitor, "save", stopping)
        with pytest.raises(Stop):
            make().optimize(images, monitor=Monitor(tmp_path / "state", "key"))
    again = make().optimize(images, monitor=Monitor(tmp_path / "state", "key"))
    assert torch.equal(again.image, whole.image) and torch.equal(again.w, whole.w)


@pytest.mark.parametrize("make", [hfgi, sam, dhr])
def test_any_embedder_of_codes(make: Any) -> None:
    images = tiny_images(1)
    for start in (tiny(Projector, steps=2, space="w_plus"), tiny(Image2StyleGAN, steps=2), Known(), "average"):
        found = make(start=start).invert(images)
        assert found.image.shape == images.shape and bool(found.image.isfinite().all())


@pytest.mark.parametrize("make", [hfgi, sam, dhr])
def test_pairs_that_make_no_sense_are_one_line(make: Any) -> None:
    features = {"b8": torch.zeros(1, 8, 8, 8, dtype=torch.float64)}
    with pytest.raises(UserError, match="method.start"):
        make(start=Known(features=features)).invert(tiny_images(1))
    sketches = Known()
    sketches.in_channels = 1
    with pytest.raises(UserError, match="reads inputs of 1 channels"):
        make(start=sketches)
    with pytest.raises(UserError, match="method.start='median'"):
        make(start="median")
    with pytest.raises(UserError, match="method.layer"):
        make(**({"layers": ["b32"]} if make is sam else {"layer": "b32"}))


def test_layers_of_sam() -> None:
    with pytest.raises(UserError, match="expected different ones in the order of the generator"):
        sam(layers=["b8", "b4"])
    with pytest.raises(UserError, match="expected a list of feature maps"):
        sam(layers="b8")
