"""StyleFeatureEditor against the official code in double precision: inversion, edits, losses, discriminator step."""

from __future__ import annotations

import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.feature_space.feature_fusion import FeatureFusion
from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.generators import Discriminator, from_nvidia
from stylegan_inv.losses.arcface import ArcFaceLoss, load_arcface
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.lpips import LPIPS
from stylegan_inv.losses.pixel import L2
from stylegan_inv.methods.common.discriminators.image_discriminator_training import ImageDiscriminatorTraining
from stylegan_inv.methods.common.feature_layers import FeatureLayer, resized
from stylegan_inv.methods.feature_space.sfe import FUSED, SFE, START_CODES
from stylegan_inv.methods.psp import PSP
from tests.feature_golden import channel_norms, feature_state, golden_generator, images, latent_avg, official, rnd
from tests.golden import check, needs_golden, reference_state

pytestmark = needs_golden
long = pytest.mark.long  # feature maps of 512 channels and 64 px in double precision


def built(kind: type, keys: str, *sizes: int, **arguments: Any) -> Any:
    with torch.device("meta"):
        network = kind(*sizes, **arguments)
    return official(network, keys)


def inverter() -> tuple[Any, Any]:
    """The encoder and the fuser, which are one network in the official code."""
    state = feature_state("sfe_inverter_n12")
    with torch.device("meta"):
        encoder, fuser = FeatureStyleEncoder(12, 512, feature_channels=512, feature_size=64), FeatureFusion(512)
    for network, prefix in ((encoder, "fs_backbone."), (fuser, "fuser.")):
        own = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        network.load_state_dict(own, assign=True)
    return encoder.double().eval(), fuser.double().eval()


def build(**arguments: Any) -> SFE:
    encoder, fuser = inverter()
    return SFE(
        generator=golden_generator("rosinality_g128_cm2"),
        encoder=lambda **_: encoder, fuser=lambda **_: fuser, **arguments,
    ).double()  # fmt: skip


@long
@torch.no_grad()
def test_inversion_and_edits() -> None:
    name, generator = "sfe_inference", golden_generator("rosinality_g128_cm2")
    e4e = built(FPNEncoder, "e4e_n12", 12, 512, progressive=True)
    start = PSP(generator=generator, encoder=lambda **_: e4e).double().eval()
    method = build(editor=lambda **_: built(FeatureFusion, "sfe_editor", 512), start=start, editor_first_step=0).eval()
    assert method.edits_with_networks and method.layer == FeatureLayer(9, "b64", "b64.conv1", 512, 64)
    x = images(0, 1, every=2)
    inversion = method.invert(x)
    kept = inversion.kept
    check(name, "inversion", inversion.image[..., ::2, ::2])
    check(name, "latents", inversion.w)
    check(name, "w_e4e", kept[START_CODES])
    check(name, "fused_chan_norm", channel_norms(kept[FUSED]))
    check(name, "fused_slice", kept[FUSED][:, ::32, ::4, ::4])
    nothing = torch.zeros_like(kept[FUSED])
    check(name, "edited_feature_inversion_chan_norm", channel_norms(method.editor(kept[FUSED], nothing)))

    direction = rnd("sfe.n", (1, 12 * 512), 0, 0.02).view(1, 12, 512)
    edited, changes, features = [], [], []
    for factor in (-3, 5):
        edited.append(method.edit(inversion, lambda w, factor=factor: w + factor * direction))
        change = method.map_of(kept[START_CODES]) - method.map_of(kept[START_CODES] + factor * direction)
        changes.append(change), features.append(method.editor(kept[FUSED], change))
    check(name, "edit_fs", torch.cat(edited)[..., ::2, ::2])
    check(name, "delta_chan_norm", channel_norms(torch.cat(changes)))
    check(name, "delta_slice", torch.cat(changes)[:, ::64, ::4, ::4])
    check(name, "edit_fs_feature_chan_norm", channel_norms(torch.cat(features)))
    assert torch.allclose(method.render_edited(inversion, inversion.w + 5 * direction), edited[1], atol=1e-9)
    keep = torch.zeros(1, 1, 128, 128, dtype=torch.float64)
    keep[:, :, :49] = 1
    w, v = inversion.w + 5 * direction, kept[START_CODES] + 5 * direction
    check(name, "edit_masked", method.edited(inversion, w, v, keep=keep)[..., ::2, ::2])

    # An edit of StyleSpace: the networks are the same, the styles are given.
    synthesis, channels = method.generator.synthesis, {"b8.conv1": 17, "b16.conv1": 300, "b32.conv1": 40}
    layers, rows = synthesis.named_layers(), list(synthesis.named_layers())

    def styles(codes: Tensor) -> dict[str, Tensor]:
        found = {layer: layers[layer].affine(codes[:, rows.index(layer)]) for layer in channels}
        for layer, channel in channels.items():
            found[layer][:, channel] += 3 * 2
        return found

    e4e_codes = kept[START_CODES]
    edited_map = synthesis(e4e_codes, styles=styles(e4e_codes), upto=method.layer.output)
    change = method.map_of(e4e_codes) - edited_map
    check(name, "delta_stylespace_chan_norm", channel_norms(change))
    features_at = method.layer.replaced(method.editor(kept[FUSED], change))
    image = synthesis(inversion.w, styles=styles(inversion.w), features=features_at)
    check(name, "edit_stylespace", image[..., ::2, ::2])


@functools.cache
def discriminator() -> Discriminator:
    network = Discriminator(128)
    network.load_state_dict(from_nvidia(reference_state("nvidia_d128")))
    return network.double()


@long
def test_inverter_losses(tmp_path: Path) -> None:
    name = "sfe_losses"
    for file, keys in (("arcface.pth", "ir_se50_arcface"), ("vgg.pth", "torchvision_vgg16_features")):
        torch.save(reference_state(keys), tmp_path / file)
    terms = {"l2": L2(), "lpips": LPIPS("vgg", tmp_path / "vgg.pth"), "id": ArcFaceLoss(tmp_path / "arcface.pth")}
    loss = LossTerms(terms, {"l2": 1.0, "lpips": 0.8, "id": 0.1}).double()
    load_arcface.cache_clear()
    method = build(
        editor=lambda **_: torch.nn.Identity(), loss=loss, loss_size=256, training_noise="const",
        adversary=lambda: ImageDiscriminatorTraining(discriminator(), first_step=0).double(),
    ).train()  # fmt: skip
    method.on_step(4000)
    seen: list[Tensor] = []
    found: list[tuple[Tensor, ...]] = []
    losses, encode = method.losses, method.encode
    method.losses = lambda i, b: (seen.append(i.image.detach()), losses(i, b))[1]  # type: ignore[method-assign]
    method.encode = lambda x, **k: (found.append(encode(x, **k)), found[-1])[1]  # type: ignore[method-assign]
    with torch.no_grad():
        result = method.inverter_losses({"image": images(0, 1, every=2)})
        w, _, _, _, fused = found[0]
        for key, golden in {
            "total": "loss", "l2": "l2", "lpips": "lpips", "id": "id", "adversarial": "adv", "features": "feat_rec",
        }.items():  # fmt: skip
            check(name, f"p1_{golden}", result[key][None])
        fakes = torch.cat(seen)
        check(name, "p1_fake_preds", discriminator()(fakes))
        check(name, "p1_y_hat", torch.nn.functional.adaptive_avg_pool2d(fakes, 256)[..., ::4, ::4])
    check(name, "p1_codes", w - latent_avg())
    check(name, "p1_fused_chan_norm", channel_norms(fused))
    check(name, "p1_fused_slice", fused[:, ::64, ::4, ::4])
    check(name, "p1_running_mean_after", method.fuser.body[4].body[5].running_mean)
    method.encoder.load_state_dict(inverter()[0].state_dict())
    with torch.no_grad():
        predicted = method.encoder(resized(images(0, 1, every=2), 256))[1]
    check(name, "p1_F_pred_chan_norm", channel_norms(predicted))


@long
def test_discriminator_step() -> None:
    name = "sfe_disc"
    training = ImageDiscriminatorTraining(discriminator()).double()
    real, fake = images(0, 1, every=2), images(1, 3, every=2)
    with torch.no_grad():
        check(name, "real_preds", discriminator()(real))
        check(name, "fake_preds", discriminator()(fake))
    total, values = torch.zeros((), dtype=torch.float64), []
    for loss in training.learning_losses(real, fake):
        value = loss.weight * loss.value
        value.backward()
        values.append(value.detach())
        total = total + value.detach()
    check(name, "disc_main", values[0][None])
    check(name, "disc_r1", values[1][None])
    check(name, "disc_loss", total[None])
    network = discriminator()
    blocks = [network.get_submodule(f"b{size}") for size in (128, 64, 32, 16, 8, 4)]
    sums = [
        torch.stack([p.grad.abs().sum() for p in block.parameters() if p.grad is not None]).sum() for block in blocks
    ]
    check(name, "grad_disc_abs_sum", torch.stack(sums))
    check(name, "grad_disc.b128.fromrgb.weight", network.b128.fromrgb.weight.grad)
    assert int(training.steps) == 1 and not any(p.requires_grad for p in network.parameters())
