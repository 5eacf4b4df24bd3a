"""HyperInverter's networks and generator with changed weights against the official code, in double precision."""

from __future__ import annotations

from functools import partial

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.generators import Generator
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference
from stylegan_inv.hypernetworks.layerwise_encoder import LayerwiseEncoder
from stylegan_inv.hypernetworks.tuned_layers import tuned_layers
from stylegan_inv.hypernetworks.weight_regressors import WeightRegressor, WeightRegressors
from stylegan_inv.methods.common.weight_prediction import resized
from stylegan_inv.methods.hyperinverter import HyperInverter
from stylegan_inv.methods.psp import PSP
from tests.golden import check, entry, needs_golden, reference_state
from tests.hypernetworks.reference import array, check_offsets, nvidia_64, photographs, state, stats, sub

pytestmark = [needs_golden, pytest.mark.slow]  # IR-SE50 in double precision


def w_method(generator: Generator, keys: str = "psp_into_w", **encoder: object) -> PSP:
    method = PSP(generator=generator, encoder=partial(SingleWEncoder, **encoder)).double().eval()
    method.encoder.load_state_dict(state(keys))
    method.input_size = 256
    return method


def build_hyperinverter(generator: Generator, **kwargs: object) -> HyperInverter:
    with torch.device("meta"):
        encoder, network = LayerwiseEncoder(10), WeightRegressors(generator.synthesis, hidden=32)
    encoder.load_state_dict(state("hyperinverter_layerwise_n10"), assign=True)
    network.load_state_dict(state("hyperinverter_hypernet_g64_h32"), assign=True)
    return HyperInverter(
        generator=generator,
        start=w_method(generator),
        encoder=lambda **_: encoder,
        hypernetwork=lambda *_, **__: network,
        **kwargs,
    ).double()


@torch.no_grad()
def test_w_encoders() -> None:
    name, generator, x = "hyperinverter_w", nvidia_64(), photographs(slice(0, 2))
    method = w_method(generator)
    check(name, "w_avg", generator.w_avg)
    check(name, "w_irse50", method.encoder(x)[:, 0])
    small = photographs(slice(0, 2), 4)
    found = method.invert(resized(small, 256, antialias=False))
    check(name, "w_irse50_from_64", found.w[:, 0] - generator.w_avg)
    check(name, "w_image", found.image)
    check(name, "w_resnet34", w_method(generator, "hyperinverter_resnet_into_w", backbone=resnet34).encoder(x)[:, 0])


@torch.no_grad()
def test_layerwise_encoders() -> None:
    name, x = "hyperinverter_layerwise", photographs(slice(0, 2))
    for label, keys, options in (
        ("irse50", "hyperinverter_layerwise_n10", {}),
        ("resnet34", "hyperinverter_resnet_layerwise_n10", {"backbone": resnet34}),
    ):
        with torch.device("meta"):
            encoder = LayerwiseEncoder(10, **options)
        encoder.load_state_dict(state(keys), assign=True)
        features = encoder.double().eval()(x)
        check(name, f"features_{label}_sub", features.reshape(-1)[::161])
        check(name, f"features_{label}_mean", features.mean((3, 4)))
        check(name, f"features_{label}_stats", torch.stack([stats(features[:, k]) for k in range(10)]))


def test_regressors() -> None:
    name = "hyperinverter_regressors_h32"
    tensors, name = state(name), "hyperinverter_regressor"
    layers = {layer.name: layer for layer in tuned_layers(Generator(1024).synthesis, "with_affines")}
    f_w, f_x = (array(f"hyperinverter.{key}", (2, 18, 512, 8, 8)).requires_grad_() for key in ("f_w", "f_x"))
    total = torch.zeros((), dtype=torch.float64)
    gradients: dict[str, Tensor] = {}
    regressors = {}
    for parameter in ("b4.torgb.weight", "b64.conv0.affine.weight", "b128.conv0.weight", "b256.conv1.weight"):
        layer = layers[parameter]
        regressor = WeightRegressor(layer, 32, 512, 64).double()
        prefix = f"weight_regressors.{layer.key}."
        regressor.load_state_dict({k.removeprefix(prefix): v for k, v in tensors.items() if k.startswith(prefix)})
        left, right = regressor(f_w[:, layer.feature], f_x[:, layer.feature])
        change = (left @ right).reshape(2, *layer.shape)
        change4 = change if change.ndim == 5 else change[..., None, None]
        check_offsets(name, f"dw_{layer.key}", change4, 3000)
        total = total + (change * array(f"hyperinverter.probe.{parameter}", tuple(change.shape))).sum()
        regressors[prefix] = regressor
    total.backward()
    for prefix, regressor in regressors.items():
        gradients |= {prefix + key: p.grad for key, p in regressor.named_parameters()}
    used = torch.tensor([float(bool(f_w.grad[:, k].abs().sum())) for k in range(18)])
    check(name, "grad_f_w_used", used)
    check(name, "grad_f_w_sub", f_w.grad[:, 10].reshape(-1)[::97])
    check(name, "grad_f_x_sub", f_x.grad[:, 10].reshape(-1)[::97])
    sums = torch.stack([gradients[key].abs().sum() for key in entry(name)["param_names"]])
    check(name, "grad_abs_sum", sums)
    prefix = "weight_regressors.b128_conv0_weight."
    check(name, "grad.b128_conv0_weight.w1_sub", gradients[prefix + "w1"].reshape(-1)[::131])
    check(name, "grad.b128_conv0_weight.w2_sub", gradients[prefix + "w2"].reshape(-1)[::31])
    # What an instance norm does not see: the bias before it, and the mean of each map.
    largest = max(float(g.abs().max()) for g in gradients.values())
    for key, gradient in gradients.items():
        assert "fusion.0.bias" not in key or float(gradient.abs().max()) < 1e-10 * largest
    for grad in (f_w.grad, f_x.grad):
        assert float(grad.sum((3, 4)).abs().max()) < 1e-9 * float(grad.abs().max())


CHANGES = {
    "b4.conv1.weight": ((512, 512, 3, 3), 0.2), "b8.conv0.weight": ((512, 512, 3, 3), 0.2),
    "b16.torgb.weight": ((3, 512, 1, 1), 0.1), "b64.conv1.weight": ((512, 512, 3, 3), 0.2),
    "b8.conv1.affine.weight": ((512, 512), 0.3), "b64.torgb.weight": ((3, 512, 1, 1), 0.1),
    "b32.torgb.affine.weight": ((512, 512), 0.3),
}  # fmt: skip


def test_generator_with_changes() -> None:
    name, synthesis = "hyperinverter_generator", nvidia_64().synthesis
    w = array("hyperinverter.ws", (1, 10, 512)).requires_grad_()
    check(name, "image_plain", synthesis(w))
    changes = {
        key: array(f"hyperinverter.dw.{key}", shape, std)[None].requires_grad_()
        for key, (shape, std) in CHANGES.items()
    }
    image = synthesis(w, weights=changes)
    check(name, "image", image)
    (image * array("hyperinverter.probe_image", (1, 3, 64, 64))).sum().backward()
    check(name, "grad_ws", w.grad)
    for key, change in changes.items():
        label, gradient = f"grad_dw_{key.replace('.', '_')}", change.grad[0]
        check(name, f"{label}_sub", sub(gradient, 1500))
        check(name, f"{label}_stats", stats(gradient))
        check(name, f"{label}_sum_out", gradient.flatten(1).sum(1))


def changes_of(method: HyperInverter, factors: dict[str, Tensor]) -> list[tuple[str, Tensor]]:
    changes = LowRankDifference(factors, method.generator.synthesis)
    return [(layer.key, changes[layer.name].detach()) for layer in method.hypernetwork.layers]


@pytest.mark.long  # the parts are checked by the tests above
@torch.no_grad()
def test_forward() -> None:
    name, method = "hyperinverter_forward", build_hyperinverter(nvidia_64()).eval()
    found = method.invert(photographs(slice(0, 2), 4))
    check(name, "w", found.w[:, 0])
    check(name, "w_image", found.steps[0].image)
    check(name, "image", found.image)
    changes = changes_of(method, found.weights)
    check(name, "dw_stats", torch.stack([torch.stack([stats(one) for one in value]) for _, value in changes]))
    for key in ("b4_conv1_weight", "b4_torgb_weight", "b16_conv0_weight", "b64_conv1_weight", "b64_torgb_weight"):
        check_offsets(name, f"dw_{key}", dict(changes)[key], 1536 if "torgb" in key else 1200)


@pytest.mark.long  # minutes; the parts are checked by the tests above
def test_step(tmp_path) -> None:
    """The loss of the encoder with the adversarial term, the discriminator's and R1, with their gradients."""
    from stylegan_inv.generators.discriminator import Discriminator
    from stylegan_inv.methods.common.discriminators.image_discriminator_training import ImageDiscriminatorTraining
    from tests.hypernetworks.test_golden_hyperstyle_steps import losses

    name = "hyperinverter_step"
    discriminator = Discriminator(64)
    discriminator.load_state_dict(discriminator_state(discriminator))
    adversary = ImageDiscriminatorTraining(discriminator.double(), weight=0.005)
    method = build_hyperinverter(nvidia_64(), loss=losses(tmp_path), adversary=adversary, loss_resolution=256).train()
    x = photographs(slice(0, 1), 4)
    seen = []
    invert = method.invert
    method.invert = lambda images: seen.append(invert(images)) or seen[-1]
    terms = next(method.training_losses({"image": x}))
    terms["total"].backward()
    for key, golden in {"adversarial": "G_adv", "l2": "l2", "lpips": "lpips", "id": "id"}.items():
        check(name, f"term_loss_{golden}", terms[key])
    check(name, "term_loss", terms["total"])
    (found,) = seen
    check(name, "image", found.image)
    check(name, "w_image_mean", found.steps[0].image.mean((2, 3)))
    changes = changes_of(method, found.weights)
    check(name, "dw_stats", torch.stack([torch.stack([stats(one) for one in value]) for _, value in changes]))

    encoder, network = method.encoder, method.hypernetwork

    def sums(module: torch.nn.Module) -> Tensor:
        zero = torch.zeros((), dtype=torch.float64)
        return sum((p.grad.abs().sum() for p in module.parameters() if p.grad is not None), zero)

    top = ("input_layer", "body", "styles", "latlayer1", "latlayer2")
    check(name, "grad_abs_sum_top", torch.stack([sums(getattr(encoder, part)) for part in top]))
    check(name, "grad_abs_sum_body", torch.stack([sums(unit) for unit in encoder.body]))
    check(name, "grad_abs_sum_styles", torch.stack([sums(head) for head in encoder.styles]))
    rows = []
    for layer in network.layers:
        one = network.weight_regressors[layer.key]
        parts = [one.w1, one.b1, one.w2, one.b2, one.fusion[0].weight]
        rows.append([p.grad.abs().sum() for p in parts] + [sums(one.feature_extractor[k]) for k in (0, 6)])
    check(name, "grad_abs_sum_hypernet", torch.stack([torch.stack(row) for row in rows]))
    for key in ("input_layer.0.weight", "styles.4.convs.0.bias"):
        check(name, f"grad.w_bar_encoder.{key}", encoder.get_parameter(key).grad)
    for layer, part, stride in (("b64_conv1", "w2", 73), ("b4_torgb", "w1", 257), ("b16_conv0", "b1", 17)):
        gradient = network.get_parameter(f"weight_regressors.{layer}_weight.{part}").grad
        check(name, f"grad.hypernet.{layer}_weight.{part}_sub", gradient.reshape(-1)[::stride])
    norm = encoder.get_submodule("body.23.res_layer.4")
    check(name, "running_mean_after", norm.running_mean)
    check(name, "running_var_after", norm.running_var)
    check(name, "batches_tracked", norm.num_batches_tracked.double())
    assert all(p.grad is None for p in (*discriminator.parameters(), *method.start.network.parameters()))

    real, fake = photographs(slice(0, 2), 4), photographs(slice(2, 4), 4)
    check(name, "logits_fake", discriminator(fake))
    check(name, "logits_real", discriminator(real))
    for label, loss in zip(("D", "D_r1"), adversary.learning_losses(real, fake), strict=True):
        value = loss.value * loss.weight
        check(name, f"term_loss_{'D' if label == 'D' else 'D_r1_reg'}", value)
        discriminator.zero_grad(set_to_none=True)
        value.backward()
        groups = ("b64.fromrgb", "b64.conv0", "b64.conv1", "b64.skip", "b32", "b16", "b8", "b4.conv", "b4.fc", "b4.out")
        check(name, f"grad_abs_sum_{label}", torch.stack([sums(discriminator.get_submodule(g)) for g in groups]))
        for key in ("b64.fromrgb.weight", "b4.out.weight"):
            check(name, f"grad_{label}.{key}", discriminator.get_parameter(key).grad)


def discriminator_state(discriminator: torch.nn.Module) -> dict[str, Tensor]:
    filled = reference_state("nvidia_d64")
    return {key: filled.get(key, value) for key, value in discriminator.state_dict().items()}
