"""The feature-space methods on a tiny generator: what holds for any weights, edits, starts, errors."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.feature_space.feature_fusion import FeatureFusion, SmallFeatureFusion
from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder
from stylegan_inv.encoders.feature_space.small_feature_style import SmallFeatureStyleEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.base import Inversion, InversionMethod
from stylegan_inv.methods.common.feature_layers import FeatureLayer, rendered, resized
from stylegan_inv.methods.feature_space.fse import FSE
from stylegan_inv.methods.feature_space.sfe import FUSED, SFE, START_CODES
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.pti import PTI
from tests.methods.tiny import tiny, tiny_generator

ENCODER = partial(FeatureStyleEncoder, input_size=32, channels=(4, 4, 6, 8), units=(1, 1, 1, 1))


class Fixed(InversionMethod):
    """Finds the same codes for every image, and perhaps more."""

    def __init__(self, generator: Generator, **more: Any) -> None:
        super().__init__(generator)
        self.w, self.more = self.average_codes(2) + 0.1, more

    def invert(self, images: Tensor) -> Inversion:
        return Inversion(self.w[: len(images)], torch.zeros(len(images), 3, 16, 16), **self.more)


def fse(**settings: Any) -> FSE:
    torch.manual_seed(1)
    loss = LossTerms({"l2": L2()}, {"l2": 1.0})
    return FSE(generator=tiny_generator(), encoder=ENCODER, loss=loss, **settings).double().eval()


def sfe(**settings: Any) -> SFE:
    torch.manual_seed(1)
    fusion = partial(FeatureFusion, units=1)
    loss = LossTerms({"l2": L2()}, {"l2": 1.0})
    settings = {"editor_first_step": 0, **settings}
    return SFE(
        generator=tiny_generator(), encoder=ENCODER, fuser=fusion, editor=fusion, loss=loss, **settings
    ).double().eval()  # fmt: skip


def photographs(count: int = 2, size: int = 16) -> Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(3)).double() * 2 - 1


def moved(w: Tensor) -> Tensor:
    return w + 0.3


# -- the layer ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("index", "size"), [(1, 4), (3, 8)])
def test_a_feature_is_the_map_that_the_next_block_reads(index: int, size: int) -> None:
    generator = tiny_generator()
    layer = FeatureLayer.of(generator, index, 5)
    assert (layer.size, layer.block, layer.channels) == (size, f"b{size}", generator.channels[size])
    w = moved(generator.w_avg.expand(2, 6, -1))
    image, own = rendered(generator, layer, w)
    torch.testing.assert_close(rendered(generator, layer, w, features=layer.replaced(own))[0], image)
    other = torch.randn(2, layer.channels, size, size, dtype=torch.float64)
    torch.testing.assert_close(rendered(generator, layer, w, features=layer.replaced(other, 0.0))[0], image)
    blended, same = rendered(generator, layer, w, features=layer.replaced(other, 0.3))
    expected = generator.synthesis(w, features={layer.block: 0.7 * own + 0.3 * other})
    torch.testing.assert_close(blended, expected)
    torch.testing.assert_close(same, own)  # the map before it is replaced
    torch.testing.assert_close(
        generator.synthesis(w, features=layer.added(other - own)),
        generator.synthesis(w, features=layer.replaced(other)),
    )


def test_the_paper_s_layer_or_the_last() -> None:
    assert FeatureLayer.of(tiny_generator(), None, 9).index == 3
    assert FeatureLayer.of(Generator(64, channel_max=4), None, 9).index == 7
    assert FeatureLayer.of(Generator(64, channel_max=4), None, 5).index == 5
    for index in (0, 2, 4, 5, 9):
        with pytest.raises(UserError, match="feature_index"):
            FeatureLayer.of(tiny_generator(), index, 5)
    with pytest.raises(UserError, match="at least 8"):
        FeatureLayer.of(Generator(4, channel_max=4), None, 5)


def test_resizing_by_halves_averages() -> None:
    x = photographs(1, 64)
    torch.testing.assert_close(resized(x, 16, by_halves=True), torch.nn.functional.avg_pool2d(x, 4))
    assert not torch.allclose(resized(x, 16), resized(x, 16, by_halves=True))
    torch.testing.assert_close(resized(x, 64), x)


# -- Feature-Style encoder ---------------------------------------------------------------------------------------------


def test_fse_renders_its_feature_and_keeps_the_difference_in_edits() -> None:
    method, x = fse(), photographs()
    with torch.no_grad():
        w, features = method.encode(x)
        inversion = method.invert(x)
        assert inversion.w.equal(w)
        torch.testing.assert_close(inversion.image, method.generator.synthesis(w, features={"b8": features}))
        torch.testing.assert_close(method.edit(inversion, lambda codes: codes), inversion.image)
        synthesis = method.generator.synthesis
        by_hand = features + synthesis(moved(w), upto="b8") - synthesis(w, upto="b8")
        torch.testing.assert_close(method.edit(inversion, moved), synthesis(moved(w), features={"b8": by_hand}))
    assert not method.edits_with_networks and inversion.kept is None


def test_codes_do_not_depend_on_the_content_layer() -> None:
    method, x = fse(), photographs()
    with torch.no_grad():
        before = method.encode(x)
        for parameter in method.encoder.content_layer.parameters():
            parameter.add_(0.5)
        after = method.encode(x)
    assert before[0].equal(after[0]) and not torch.allclose(before[1], after[1])


@pytest.mark.parametrize("noise", ["random", "const"])
def test_fse_learns_from_synthetic_images(noise: str) -> None:
    method = fse(training_noise=noise, scale_steps=10).train()
    method.on_step(5)
    assert method.scale == 0.5
    terms = method.training_losses({"image": photographs(4)})
    assert {"l2", "features", "pixel", "total"} == terms.keys()
    total = terms["l2"] + 0.01 * terms["features"] + terms["pixel"]
    torch.testing.assert_close(terms["total"], total)
    terms["total"].backward()
    assert all(p.grad is not None and p.grad.abs().sum() > 0 for p in method.encoder.content_layer.parameters())


def test_the_second_reconstruction_has_the_noise_of_the_synthetic_image(monkeypatch: pytest.MonkeyPatch) -> None:
    method = fse(training_noise="random").train()
    batch, noise, count = method._with_synthetic_images({"image": photographs(4)})
    assert count == 2 and noise is not None and all(len(m) == 4 for m in noise)
    assert batch["image"][2:].equal(photographs(4)[2:]) and batch["source"] is batch["image"]
    assert noise[0][:2].equal(noise[0][2:])  # photographs have that of the synthetic images
    seen: list[Tensor] = []
    synthesis = method.generator.synthesis.forward

    def watch(w: Tensor, noise: Any = "const", **more: Any) -> Any:
        seen.append(w)
        return synthesis(w, noise, **more)

    monkeypatch.setattr(method.generator.synthesis, "forward", watch)
    batch, noise, _ = method._with_synthetic_images({"image": photographs(4)})
    made = synthesis(seen[0], [m[:2] for m in noise])
    torch.testing.assert_close(batch["image"][:2], made)
    method.mismatched_noise = True
    batch, noise, _ = method._with_synthetic_images({"image": photographs(4)})
    assert not torch.allclose(batch["image"][:2], synthesis(seen[1], [m[:2] for m in noise]))


def test_batch_norm_stops_after_the_first_epoch_on_request() -> None:
    for steps, moves in ((None, True), (3, False)):
        method = fse(batch_norm_steps=steps).train()
        before = method.encoder.content_layer[5].running_mean.clone()
        method.on_step(3)
        method.training_losses({"image": photographs()})
        assert torch.equal(before, method.encoder.content_layer[5].running_mean) is not moves


# -- StyleFeatureEditor ------------------------------------------------------------------------------------------------


def test_sfe_inverts_by_an_edit_that_changes_nothing() -> None:
    generator = tiny_generator()
    method, x = sfe(start=Fixed(generator)), photographs()
    with torch.no_grad():
        inversion = method.invert(x)
        assert inversion.kept is not None and method.edits_with_networks
        assert inversion.kept[START_CODES].equal(method.start.network.w)
        torch.testing.assert_close(method.edit(inversion, lambda w: w), inversion.image)
        # w and the codes of the start are edited; the sign of the change is that of the official code.
        change = method.map_of(method.start.network.w) - method.map_of(moved(method.start.network.w))
        features = method.editor(inversion.kept[FUSED], change)
        expected = generator.synthesis(moved(inversion.w), features={"b8": features})
        torch.testing.assert_close(method.edit(inversion, moved), expected)
        torch.testing.assert_close(method.render_edited(inversion, moved(inversion.w)), expected)
        keep_all = torch.ones(2, 1, 16, 16).double()
        kept = method.edited(inversion, inversion.w, moved(method.start.network.w), keep=keep_all)
        torch.testing.assert_close(kept, inversion.image)


def test_sfe_with_codes_of_the_start() -> None:
    method = sfe(start=Fixed(tiny_generator()), codes="start")
    assert method.invert(photographs()).w.equal(method.start.network.w)
    with pytest.raises(UserError, match="method.codes=start"):
        sfe(codes="start")


def test_before_the_second_phase_edits_keep_the_difference() -> None:
    method, x = sfe(editor_first_step=10), photographs()
    with torch.no_grad():
        inversion = method.invert(x)
        assert inversion.kept is None and not method.edits_with_networks
        w, _, _, own, fused = method.encode(x)
        torch.testing.assert_close(inversion.image, method.generator.synthesis(w, features={"b8": fused}))
        changed = fused + method.map_of(moved(w)) - own
        expected = method.generator.synthesis(moved(w), features={"b8": changed})
        torch.testing.assert_close(method.edit(inversion, moved), expected)


def test_only_the_part_of_the_phase_learns() -> None:
    method = sfe(editor_first_step=10, training_noise="const", start=Fixed(tiny_generator())).train()
    for step, learns in ((9, ("encoder", "fuser")), (10, ("editor",))):
        method.on_step(step)
        method.zero_grad(set_to_none=True)
        before = {name: value.clone() for name, value in method.state_dict().items()}
        batch = {"image": photographs()}
        losses = method.inverter_losses(batch) if step == 9 else method.editor_losses(batch, moved)
        losses["total"].backward()
        for part in ("encoder", "fuser", "editor"):
            has = any(p.grad is not None for p in method.get_submodule(part).parameters())
            assert has is (part in learns), (step, part)
        moved_statistics = {name.split(".")[0] for name, v in method.state_dict().items() if not v.equal(before[name])}
        assert moved_statistics <= {*learns, "encoder", "fuser"}


def test_the_frozen_inverter_keeps_its_statistics(monkeypatch: pytest.MonkeyPatch) -> None:
    for everywhere in (False, True):
        method = sfe(start=Fixed(tiny_generator()), train_mode_everywhere=everywhere).train()
        monkeypatch.setattr(method, "directions", [type("Direction", (), {"apply": lambda self, w, s: w + s})()])
        before = method.fuser.body[0].body[5].running_mean.clone()
        method.training_losses({"image": photographs()})
        assert torch.equal(before, method.fuser.body[0].body[5].running_mean) is not everywhere


def test_the_editor_needs_edits_to_learn_from() -> None:
    method = sfe().train()
    with pytest.raises(UserError, match="method.directions"):
        method.training_losses({"image": photographs()})
    with pytest.raises(UserError, match="smile"):
        sfe(directions=["smile"])  # of another generator


# -- starts and networks -----------------------------------------------------------------------------------------------


def test_codes_of_any_embedder_but_no_features_or_weights() -> None:
    generator = tiny_generator()
    method, x = fse(start=Fixed(generator)), photographs()
    assert method.invert(x).w.equal(method.start.network.w) and method.starting_methods() == [method.start.network]
    for more in ({"features": {"b8": torch.zeros(2, 8, 8, 8)}}, {"weights": {}}, {"kept": {}}):
        method.start_from(Fixed(generator, **more))
        with pytest.raises(UserError, match="method.start"):
            method.invert(x)
    other = tiny_generator()
    other.source_hash = "other"
    with torch.no_grad():
        other.synthesis.b4.const.add_(1)
    for wrong in ("average", Fixed(other)):
        with pytest.raises(UserError, match="method.start"):
            method.start_from(wrong)


def test_encoders_refuse_what_they_were_not_made_for() -> None:
    with pytest.raises(UserError, match="feature maps of 2, 4, 8 px, expected 16"):
        ENCODER(6, 8, feature_channels=8, feature_size=16)
    with pytest.raises(UserError, match="expected \\(B, 3, 32, 32\\)"):
        ENCODER(6, 8, feature_channels=8, feature_size=8)(photographs(1, 16).float())
    with pytest.raises(UserError, match="feature maps"):
        SmallFeatureStyleEncoder(6, 8, feature_channels=5, feature_size=64)
    with pytest.raises(UserError, match="expected two"):
        SmallFeatureFusion(4, (1, 0))(torch.zeros(1, 4, 8, 8), torch.zeros(1, 4, 4, 4))


def test_small_networks_start_at_what_they_are_given() -> None:
    first, second = torch.randn(2, 1, 4, 8, 8)
    assert SmallFeatureFusion(4, (1.0, -1.0))(first, second).equal(first - second)
    codes, features = SmallFeatureStyleEncoder(6, 8, width=4, feature_channels=5, feature_size=32)(
        torch.zeros(1, 3, 64, 64)
    )
    assert codes.shape == (1, 6, 8) and features.shape == (1, 5, 32, 32) and not features.any() and not codes.any()


@pytest.mark.parametrize("refiner", [PTI, Image2StyleGAN])
def test_refiners_of_codes_refuse_starts_that_find_features(refiner: type) -> None:
    method = tiny(refiner, start=fse(), steps=1)
    with pytest.raises(UserError, match="inverts by feature maps"):
        method.invert(photographs())
