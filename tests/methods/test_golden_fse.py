"""The Feature-Style encoder's insertion, edit rule and training step against the official code, in double precision."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from stylegan_inv.encoders.feature_space.feature_style import FeatureStyleEncoder
from stylegan_inv.losses.compose import LossTerms
from stylegan_inv.losses.faces.feature_cosines import FeatureIdentity, ParsingSimilarity
from stylegan_inv.losses.lpips import LPIPS
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.methods.common.feature_layers import FeatureLayer, rendered
from stylegan_inv.methods.feature_space.fse import FSE
from tests.feature_golden import channel_norms, feature_state, golden_generator, images, official, rnd
from tests.golden import check, needs_golden

pytestmark = needs_golden


class Given(torch.nn.Module):
    """An encoder that returns given codes and features."""

    num_ws, w_dim, in_channels, input_size = 10, 512, 3, 64

    def __init__(self, codes: Tensor, features: Tensor, **_: Any) -> None:
        super().__init__()
        self.result = codes, features

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        return self.result


def test_insertion_and_edit() -> None:
    name, generator = "fse_generator_insert", golden_generator("rosinality_g64_cm2")
    layer = FeatureLayer.of(generator, 5, 5)
    assert (layer.block, layer.output, layer.channels, layer.size) == ("b16", "b16.conv1", 512, 16)
    w, features, probe = (
        rnd(f"fse.{key}", shape, 0, std)
        for key, shape, std in (("w", (1, 10, 512), 0.5), ("F", (1, 512, 16, 16), 2), ("probe", (1, 3, 64, 64), 1))
    )
    check(name, "image_plain", generator.synthesis(w))
    names = ["b4.conv1"] + [f"b{r}.conv{i}" for r in (8, 16, 32, 64) for i in (0, 1)]
    for scale, image_key, norms_key, w_key, f_key in (
        (0.0, "image_0", "outs_norm_0", "", ""),
        (0.3, "image_0.3", "outs_norm", "grad_w", "grad_F_abs_sum"),
        (1.0, "image_1", "", "grad_w_1", "grad_F_1_abs_sum"),
    ):
        inputs = [w.clone().requires_grad_(), features.clone().requires_grad_()]
        image, own = rendered(generator, layer, inputs[0], features=layer.replaced(inputs[1], scale))
        check(name, image_key, image)
        if norms_key:
            maps = generator.synthesis(w, features=layer.replaced(features, scale), return_features=names).features
            const = generator.synthesis.const
            check(name, norms_key, torch.stack([const.norm(), *(maps[key].norm() for key in names)]))
            assert torch.allclose(maps[layer.output], own)
        if scale == 0.3:
            check(name, "outs5_chan_norm", channel_norms(own))
        if w_key:
            of_w, of_f = torch.autograd.grad((image * probe).sum(), inputs)
            check(name, w_key, of_w)
            check(name, f_key, of_f.abs().sum(dim=(0, 2, 3)))
        if scale == 0.3:
            check(name, "grad_F_slice", of_f[:, ::8])
    method = FSE(generator=generator, encoder=partial(Given, w - generator.w_avg, features))
    inversion = method.invert(torch.zeros(1, 3, 64, 64))
    check(name, "image_1", inversion.image)
    edited = w + 15 * rnd("fse.n", (1, 10, 512), 0, 0.02)
    shift = inversion.features["b16"][1]
    check(name, "edit_F_slice", (shift + generator.synthesis(edited, upto="b16"))[:, ::8])
    check(name, "edit_image", method.edit(inversion, lambda _: edited))


@pytest.mark.long  # IResNet-50 twice and BiSeNet at 512 px, with gradients
def test_step(tmp_path: Path) -> None:
    """Config 001 at 256 px: a synthetic and a real image, iteration 4000."""
    name, generator = "fse_step", golden_generator("rosinality_g256_cm1")
    files = {key: tmp_path / f"{key}.pth" for key in ("iresnet50", "bisenet19", "torchvision_alexnet_features")}
    for key, path in files.items():
        torch.save(feature_state(key), path)
    terms = {
        "lpips": LPIPS(trunk=files["torchvision_alexnet_features"], scales=3),
        "id": FeatureIdentity(files["iresnet50"]),
        "landmark": ParsingSimilarity(files["bisenet19"]),
    }
    loss = LossTerms(terms, {"lpips": 0.2, "id": 0.1, "landmark": 0.1}).double()
    with torch.device("meta"):
        encoder = FeatureStyleEncoder(14, 512, feature_channels=512, feature_size=16)
    encoder = official(encoder, "fse_encoder_n14")
    method = FSE(generator=generator, encoder=lambda **_: encoder, loss=loss).double().train()
    assert method.layer.index == 5
    method.on_step(4000)
    assert method.scale == pytest.approx(0.4)
    seen: dict[str, Any] = {"each": [], "images": []}
    losses, encode = method.losses, method.encode

    def watch_losses(inversion: Inversion, batch: Any) -> dict[str, Tensor]:
        seen["images"].append(inversion.image.detach())
        seen["each"].append(losses(inversion, batch))
        return seen["each"][-1]

    def watch_encode(x: Tensor) -> tuple[Tensor, Tensor]:
        seen["codes"], seen["features"] = encode(x)
        seen["codes"].retain_grad(), seen["features"].retain_grad()
        return seen["codes"], seen["features"]

    method.losses, method.encode = watch_losses, watch_encode  # type: ignore[method-assign]
    sizes = [4] + [size for size in (8, 16, 32, 64, 128, 256) for _ in range(2)]
    noise = [rnd(f"fse.noise_{i}", (1, 1, size, size)) for i, size in enumerate(sizes)]
    result = method.reconstruction_losses({"image": images(0, 2)}, "const", noise, 1)
    result["total"].backward()
    check(name, "loss", result["total"][None])
    check(name, "l2", result["pixel"][None])
    check(name, "f_recon", result["features"][None])
    for key in ("lpips", "id", "landmark"):
        check(name, key, torch.stack([one[key] for one in seen["each"]]))
    codes, features = seen["codes"], seen["features"]
    check(name, "codes", (codes - generator.w_avg)[:, ::4])
    check(name, "F_chan_norm", channel_norms(features))
    for key, image in zip(("r1_slice", "r2_slice"), seen["images"], strict=True):
        check(name, key, image[..., ::4, ::4])
    check(name, "grad_codes", codes.grad[:, ::4])
    check(name, "grad_F_slice", features.grad[:, ::32])
    check(name, "grad_F_abs_sum", features.grad.abs().sum(dim=(0, 2, 3)))
    groups = ["conv", "block_1", "block_2", "block_3", "block_4", "content_layer", "styles"]
    check(name, "grad_abs_sum_groups", torch.stack([_sum(encoder.get_submodule(group)) for group in groups]))
    check(name, "grad_abs_sum_styles", torch.stack([_sum(style) for style in encoder.styles]))
    for key in ("conv.0.weight", "content_layer.3.weight", "styles.3.bias"):
        check(name, f"grad.{key}", encoder.get_parameter(key).grad)
    check(name, "running_mean_after", encoder.content_layer[5].running_mean)
    check(name, "running_var_after", encoder.content_layer[5].running_var)


def _sum(network: torch.nn.Module) -> Tensor:
    return torch.stack([p.grad.abs().sum() for p in network.parameters() if p.grad is not None]).sum()
