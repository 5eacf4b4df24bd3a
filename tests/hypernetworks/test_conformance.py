"""What HyperStyle's and HyperInverter's networks and methods must do beyond the reference numbers, at 16 px."""

from __future__ import annotations

from functools import partial
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.variants.low_rank_difference import SCALE, LowRankDifference
from stylegan_inv.hypernetworks.shared_weights import SharedWeightsHypernetwork
from stylegan_inv.hypernetworks.tuned_layers import tuned_layers
from stylegan_inv.hypernetworks.weight_factors import accumulated, with_gradient
from stylegan_inv.hypernetworks.weight_regressors import WeightRegressor, WeightRegressors
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.base import Inversion, InversionMethod, pool
from stylegan_inv.methods.common.starting_points import check_same_generator
from stylegan_inv.methods.hyperinverter import HyperInverter
from stylegan_inv.methods.hyperstyle import HyperStyle
from stylegan_inv.methods.image2stylegan import Image2StyleGAN
from stylegan_inv.methods.pti import PTI
from stylegan_inv.methods.restyle import ReStyle
from tests.methods.tiny import tiny, tiny_generator, tiny_images

RESNET = partial(resnet34, channels=(4, 8, 12, 16), units=(1, 1, 1, 1))


class Average(InversionMethod):
    """The start of the tests: the same code for every image."""

    def invert(self, images: Tensor) -> Inversion:
        w = self.average_codes(len(images)) + 0.1
        return Inversion(w, self.generator.synthesis(w))


def hyperstyle(generator: Generator, iterations: int = 2, **options: Any) -> HyperStyle:
    torch.manual_seed(0)
    return HyperStyle(
        generator=generator,
        start=Average(generator),
        hypernetwork=partial(SharedWeightsHypernetwork, backbone=RESNET, **options),
        iterations=iterations,
        loss=LossTerms({"l2": L2()}, {"l2": 1.0}),
    ).double()


class TinyLayerwise(nn.Module):
    def __init__(self, num_maps: int, in_channels: int) -> None:
        super().__init__()
        self.image_size, self.features, self.num_maps = 16, 2, num_maps
        self.conv = nn.Conv2d(in_channels, 2 * num_maps, 2, 2)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x).unflatten(1, (self.num_maps, 2))


def hyperinverter(generator: Generator) -> HyperInverter:
    torch.manual_seed(0)
    return HyperInverter(
        generator=generator,
        start=Average(generator),
        encoder=TinyLayerwise,
        hypernetwork=partial(WeightRegressors, hidden=3, inner=2),
        loss=LossTerms({"l2": L2()}, {"l2": 1.0}),
    ).double()


@pytest.mark.parametrize(("size", "outputs"), [(1024, 26), (512, 23), (256, 20), (64, 14)])
def test_layers_and_feature_maps(size: int, outputs: int) -> None:
    with torch.device("meta"):
        synthesis = Generator(size).synthesis
    layers = tuned_layers(synthesis, "with_colours")
    assert [layer.number for layer in layers] == list(range(outputs))
    colours = [layer.number for layer in layers if not layer.is_convolution]
    assert colours == [1, *range(4, outputs, 3)]
    assert len(tuned_layers(synthesis, "convolutions")) == outputs - len(colours)
    assert len(tuned_layers(synthesis, "with_affines")) == 2 * outputs
    by_name = {layer.name: layer.feature for layer in layers}
    assert [by_name[f"b4.{k}.weight"] for k in ("conv1", "torgb")] == [0, 1]
    for number, r in enumerate(synthesis.resolutions[1:]):
        found = [by_name[f"b{r}.{k}.weight"] for k in ("conv0", "conv1", "torgb")]
        assert found == [2 + 2 * number, 3 + 2 * number, 3 + 2 * number]
    with pytest.raises(UserError, match="the generator has no others"):
        tuned_layers(synthesis, [outputs])
    with pytest.raises(UserError, match="has no modulated weights"):
        tuned_layers(Generator(8, style="adain", channel_max=4).synthesis, "convolutions")


@pytest.mark.parametrize(
    ("size", "options", "count"),
    [
        (1024, {}, 332_664_896), (512, {}, 325_188_672), (256, {}, 312_984_640),
        (1024, {"layers": "with_colours"}, 369_205_472), (512, {"layers": "with_colours"}, 358_139_776),
        (256, {"layers": "with_colours"}, 342_297_024),
        (1024, {"separable": True}, 215_123_456), (512, {"separable": True}, 207_296_960),
        (256, {"separable": True}, 198_710_080), (1024, {"separable": True, "layers": "with_colours"}, 251_664_032),
    ],
)  # fmt: skip
def test_weights_of_hyperstyle(size: int, options: dict[str, Any], count: int) -> None:
    with torch.device("meta"):
        network = SharedWeightsHypernetwork(Generator(size).synthesis, **options)
    assert sum(p.numel() for p in network.parameters()) == count


@pytest.mark.parametrize(
    ("size", "hidden", "layers", "count"),
    [
        (1024, 64, "with_colours", 67_496_091), (1024, 128, "with_colours", 184_665_563),
        (1024, 256, "with_colours", 642_351_195), (1024, 64, "convolutions", 45_698_752),
        (256, 128, "with_colours", 171_608_213), (64, 256, "with_colours", 499_246_479),
    ],
)  # fmt: skip
def test_weights_of_hyperinverter(size: int, hidden: int, layers: str, count: int) -> None:
    with torch.device("meta"):
        network = WeightRegressors(Generator(size).synthesis, hidden=hidden, layers=layers)
    assert sum(p.numel() for p in network.parameters()) == count


def test_shared_kernels_and_repeated_ones() -> None:
    """Row i of h gives output channel i, the first columns of w1 the first input channel; other layers repeat taps."""
    generator = tiny_generator()
    network = hyperstyle(generator).hypernetwork
    synthesis, x = generator.synthesis, torch.randn(1, 6, 32, 32, dtype=torch.float64)

    def deltas() -> dict[str, Tensor]:
        with torch.no_grad():
            changes = LowRankDifference(network(x), synthesis)
        return {layer.name: changes[layer.name] / synthesis.get_parameter(layer.name) for layer in network.layers}

    network.eval()
    before = deltas()
    shared = [layer.name for layer in network.layers if layer.shape == network.shared_shape]
    for name, delta in before.items():
        assert bool((delta - delta[..., :1, :1]).abs().max() < 1e-9) == (name not in shared)
    out, rank = network.shared_weight_hypernet.rows
    with torch.no_grad():
        network.shared_weight_hypernet.w1[:, 0] += 1.0
    moved = (deltas()[shared[0]] - before[shared[0]]).abs() > 1e-9
    assert bool(moved[0, :, 0, 0, 0].all()) and int(moved.sum()) == out
    with torch.no_grad():
        network.shared_weight_hypernet.w1[:, 0] -= 1.0
        network.shared_weight_hypernet.w2[:, 2 * rank : 3 * rank] += 1.0
    moved = ((deltas()[shared[0]] - before[shared[0]]).abs() > 1e-9).flatten(2).any(2)[0]
    assert moved.tolist() == [k == 2 for k in range(out)]


def test_relative_changes_of_the_generator() -> None:
    """Zero changes nothing, a constant cancels in demodulated layers, and scales the colours."""
    generator = tiny_generator()
    synthesis, w = generator.synthesis, torch.randn(2, 6, 8, dtype=torch.float64)
    plain = synthesis(w)

    def changed(name: str, value: float) -> Tensor:
        shape = [1] * synthesis.get_parameter(name).ndim
        scale = torch.full((2, *shape), value, dtype=torch.float64)
        return synthesis(w, weights=LowRankDifference({name + SCALE: scale}, synthesis))

    torch.testing.assert_close(changed("b8.conv0.weight", 0.0), plain, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(changed("b8.conv0.weight", 0.5), plain, rtol=0, atol=1e-6)
    bias = synthesis.b16.torgb.bias.detach()[:, None, None]
    last = [synthesis(w, return_features=["b16.conv1"]).features["b16.conv1"], w[:, -1]]
    own = synthesis.b16.torgb(*last).detach() - bias
    torch.testing.assert_close(changed("b16.torgb.weight", 0.5), plain + 0.5 * own, rtol=1e-9, atol=1e-9)
    # One difference for the batch and the same for each image agree.
    shared = torch.rand(1, *synthesis.b8.conv0.weight.shape, dtype=torch.float64)
    both = [
        LowRankDifference({"b8.conv0.weight" + SCALE: t}, synthesis) for t in (shared, shared.repeat(2, 1, 1, 1, 1))
    ]
    torch.testing.assert_close(synthesis(w, weights=both[0]), synthesis(w, weights=both[1]))
    with pytest.raises(UserError, match="differences of 2 images, expected 1 or 3"):
        synthesis(w.repeat(2, 1, 1)[:3], weights=both[1])


def test_gradient_of_the_iterations_is_the_sum_of_single_ones() -> None:
    method, images = hyperstyle(tiny_generator()), tiny_images(2)
    method.eval()  # the same batch norm in each call
    for terms in method.training_losses({"image": images}):
        terms["total"].backward()
    got = {name: p.grad.clone() for name, p in method.hypernetwork.named_parameters()}
    method.zero_grad()
    with torch.no_grad():
        steps = [step for step, _ in method.refine(images)]
    synthesis = method.generator.synthesis
    for before, _ in zip(steps, range(2), strict=False):
        predicted = method.hypernetwork(torch.cat([images, pool(before.image, 16)], dim=1))
        previous = before.weights and LowRankDifference(before.weights, synthesis)
        own = LowRankDifference(predicted, synthesis)
        weights = {name: own[name] + (previous[name].detach() if previous else 0) for name in own}
        (synthesis(before.w, weights=weights) - images).square().mean().backward()
    for name, p in method.hypernetwork.named_parameters():
        torch.testing.assert_close(got[name], p.grad, rtol=1e-7, atol=1e-12)


def test_sums_of_factors() -> None:
    a, b = ({"x.left": torch.rand(1, 3, 2), "x.right": torch.ones(1, 2, 4), "y": torch.rand(1, 2)} for _ in range(2))
    total, graph = accumulated(a, b), with_gradient(a, b)
    want = a["x.left"] @ a["x.right"] + b["x.left"] @ b["x.right"]
    torch.testing.assert_close(total["x.left"] @ total["x.right"], want)
    torch.testing.assert_close(graph["x.left"] @ graph["x.right"], want)
    torch.testing.assert_close(graph["y"], a["y"] + b["y"])


def test_view_rule_and_order_of_the_features() -> None:
    """With 3 inputs and 2 outputs, the rows of the product straddle the output channels."""
    generator = Generator(8, channels={4: 3, 8: 2}, w_dim=4, z_dim=4, mapping_layers=1)
    (layer,) = (one for one in tuned_layers(generator.synthesis, "with_colours") if one.name == "b8.conv0.weight")
    assert layer.shape == (2, 3, 3, 3)
    regressor = WeightRegressor(layer, hidden=3, features=2, inner=2)
    f_w, f_x = torch.randn(2, 1, 2, 8, 8)
    left, right = regressor(f_w, f_x)
    assert (left.shape, right.shape) == ((1, 3, 4), (1, 4, 18))
    factors = {layer.name + ".left": left, layer.name + ".right": right}
    change = LowRankDifference(factors, generator.synthesis)[layer.name]
    assert torch.equal(change.flatten(), (left @ right).flatten())
    assert not torch.allclose(regressor(f_x, f_w)[0], left)


def test_no_change_of_weights_is_the_plain_generator_bit_for_bit() -> None:
    method = hyperinverter(tiny_generator()).eval()
    method.generator.synthesis.fused.enabled = False  # both by the modules
    with torch.no_grad():
        for one in method.hypernetwork.weight_regressors.values():
            one.w2.zero_()
        found = method.invert(tiny_images(1))
    assert torch.equal(found.image, found.steps[0].image)


@pytest.mark.parametrize("make", [hyperstyle, hyperinverter])
def test_edits_keep_the_weights_and_the_start_stays(make: Any) -> None:
    generator = tiny_generator()
    method, images = make(generator).eval(), tiny_images(3)
    before = [p.clone() for p in generator.parameters()]
    with torch.no_grad():
        found = method.invert(images)
        torch.testing.assert_close(method.edit(found, lambda w: w), found.image)
        moved = method.edit(found, lambda w: w + 0.3)
        plain = generator.synthesis(found.w + 0.3)
        alone = method.invert(images[1:2])
    assert not torch.allclose(moved, plain) and not torch.allclose(found.image, found.steps[0].image)
    torch.testing.assert_close(alone.image, found.image[1:2])
    assert all(torch.equal(a, b) for a, b in zip(before, generator.parameters(), strict=True))
    with torch.inference_mode():
        torch.testing.assert_close(method.invert(images).image, found.image)
    assert not any("start" in name or "generator" in name for name in method.state_dict())


@pytest.mark.parametrize("make", [hyperstyle, hyperinverter])
def test_starts_that_make_no_sense_are_refused(make: Any) -> None:
    generator = tiny_generator()
    method = make(generator)
    pti = tiny(PTI, start=tiny(Image2StyleGAN, steps=1), steps=1)
    for start in (pti, make(generator)):
        with pytest.raises(UserError, match="tunes the generator itself"):
            method.start_from(start)
        with pytest.raises(UserError, match="tunes the generator itself"):
            ReStyle(generator=generator, encoder=lambda **_: nn.Identity(), start=start)
    with pytest.raises(UserError, match="method.start='average': expected a method"):
        method.start_from("average")
    other = Generator(8, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8).double().freeze()
    with pytest.raises(UserError, match=r"its generator is None \(8 px\), expected tiny \(16 px\)"):
        method.start_from(Average(other))
    twin = tiny_generator()
    twin.source_hash = "another file of the same weights"
    check_same_generator(method, Average(twin))
    twin.synthesis.b4.conv1.weight.data += 1
    with pytest.raises(UserError, match="its generator is another file"):
        check_same_generator(method, Average(twin))
    per_image = tiny(Image2StyleGAN, steps=2, lr=0.05)
    method.start_from(per_image)  # an optimisation finds the codes
    with torch.no_grad():
        assert method.eval().invert(tiny_images(1)).weights
