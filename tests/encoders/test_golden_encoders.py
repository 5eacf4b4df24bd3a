"""The encoders against the official implementations: key names, and codes in double precision.

Training mode and gradients: see `tests/methods/test_golden_steps.py`.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.backbone import Backbone
from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.irse import FaceRecognition
from stylegan_inv.encoders.last_layer import LastLayerEncoder
from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.encoders.single_level import SingleLevelEncoder
from stylegan_inv.encoders.single_w import SingleWEncoder
from tests.golden import arrays, check, fill, golden_dir, key_shapes, needs_golden, reference_state, tensor

pytestmark = needs_golden
slow = pytest.mark.slow  # IR-SE50 takes 6 s for an image of 256 px in double precision
ResNetFPN = partial(FPNEncoder, backbone=resnet34)
ResNetSingleLevel = partial(SingleLevelEncoder, backbone=resnet34)


@functools.cache
def all_images() -> Tensor:
    with np.load(golden_dir() / "images.npz") as file:
        return fill().image(file["img256"]).double()


def images(first: int, last: int) -> Tensor:
    return all_images()[first:last]


def pairs() -> Tensor:
    """ReStyle's input: two concatenated images."""
    return torch.cat([images(0, 2), images(2, 4)], dim=1)


def official(build: Callable[[], nn.Module], keys: str) -> Any:
    """Returns a network in double precision with the reference's weights, loaded like a published file.

    The weights follow from the names, so that those of e4e are those of pSp.
    """
    with torch.device("meta"):
        network = build()
    network.load_state_dict(reference_state(keys), strict=True, assign=True)
    return network.double().eval()


@pytest.fixture(scope="module", autouse=True)
def remembered_maps() -> Iterator[None]:
    """Computes the maps once for several encoders with the same backbone weights and images."""
    maps, memory = Backbone.maps, {}

    def remember(self: Backbone, x: Tensor) -> list[Tensor]:
        names = ("body", *self.stem_names)
        weights = [float(v.double().sum()) for k, v in self.state_dict().items() if k.startswith(names)]
        key = (tuple(x.shape), float(x.sum()), *weights)
        if key not in memory:
            memory[key] = maps(self, x)
        return list(memory[key])

    with pytest.MonkeyPatch.context() as patch, torch.no_grad():
        patch.setattr(Backbone, "maps", remember)
        yield


@pytest.mark.parametrize(
    ("build", "keys"),
    [
        (partial(FPNEncoder, 10, 512), "psp_gradual_n10"),
        (partial(FPNEncoder, 18, 512), "psp_gradual_n18"),
        (partial(FPNEncoder, 10, 512, progressive=True), "e4e_n10"),
        (partial(FPNEncoder, 18, 512, 6), "restyle_gradual_n18"),
        (partial(ResNetFPN, 10, 512, 6), "restyle_resnet_gradual_n10"),
        (partial(SingleLevelEncoder, 10, 512), "restyle_backbone_n10"),
        (partial(SingleLevelEncoder, 18, 512, 6, progressive=True), "restyle_backbone_n18"),
        (partial(ResNetSingleLevel, 10, 512), "restyle_resnet_n10"),
        (partial(ResNetSingleLevel, 16, 512, 6, progressive=True), "restyle_resnet_n16"),
        (partial(SingleWEncoder, 10, 512), "psp_into_w"),
        (partial(LastLayerEncoder, 10, 512), "psp_into_wplus_n10"),
        (FaceRecognition, "ir_se50_arcface"),
    ],
)
def test_keys_and_shapes(build: Callable[[], nn.Module], keys: str) -> None:
    with torch.device("meta"):
        state = build().state_dict()
    assert {key: tuple(value.shape) for key, value in state.items()} == key_shapes(keys)


@slow
def test_psp_fpn() -> None:
    encoder, x = official(lambda: FPNEncoder(10, 512), "psp_gradual_n10"), images(0, 2)
    codes = encoder(x)
    check("psp_gradual_n10", "codes", codes)
    check("psp_forward64", "latents", codes + tensor("psp_forward64", "latent_avg"))
    for name, level in zip(("c1", "c2", "c3"), encoder.maps(x)[1:], strict=True):
        check("psp_gradual_n10", f"{name}_mean", level.mean(dim=(2, 3)))
    check("psp_gradual_n10", "c3_sample0_ch0_7", level[0, :8])
    check("psp_gradual_n10", "codes_192x256", encoder(x[:1, :, 32:224]))


@pytest.mark.parametrize(
    ("golden", "encoder", "keys", "in_channels"),
    [
        pytest.param("e4e_encoder_n10", FPNEncoder, "psp_gradual_n10", 3, marks=slow),
        pytest.param("restyle_progressive_n10", SingleLevelEncoder, "restyle_backbone_n10", 6, marks=slow),
        ("restyle_resnet_progressive_n10", ResNetSingleLevel, "restyle_resnet_n10", 6),
    ],
)
def test_progressive(golden: str, encoder: Callable[..., nn.Module], keys: str, in_channels: int) -> None:
    network = official(lambda: encoder(10, 512, in_channels, progressive=True), keys)
    x = pairs()[:, :in_channels]
    stages = sorted(int(key.removeprefix("codes_stage")) for key in arrays(golden))
    assert stages[-2:] == [3, 18]
    for stage in stages:
        network.set_stage(stage)
        check(golden, f"codes_stage{stage}", network(x))


@pytest.mark.parametrize(
    ("golden", "encoder"),
    [
        pytest.param("restyle_backbone_n10", SingleLevelEncoder, marks=slow),
        ("restyle_resnet_n10", ResNetSingleLevel),
        ("restyle_resnet_gradual_n10", ResNetFPN),
    ],
)
def test_restyle(golden: str, encoder: Callable[..., nn.Module]) -> None:
    network = official(lambda: encoder(10, 512, 6), golden)
    check(golden, "codes", network(pairs()))
    check(golden, "codes_192x256", network(pairs()[:1, :, 32:224]))


@slow
def test_psp_fpn_of_18_styles() -> None:
    encoder = official(lambda: FPNEncoder(18, 512), "psp_gradual_n18")
    check("psp_gradual_n18", "codes", encoder(images(0, 2))[:1])


@slow
def test_psp_into_w_and_naive_w_plus() -> None:
    x = images(0, 2)
    codes = official(lambda: SingleWEncoder(10, 512), "psp_into_w")(x)
    check("psp_into_w", "w", codes[:, 0])
    check("psp_into_w", "w_plus", official(lambda: LastLayerEncoder(10, 512), "psp_into_wplus_n10")(x))


@slow
def test_e4e_single_w() -> None:
    codes = official(lambda: SingleWEncoder(10, 512), "psp_into_w")(images(0, 2))
    assert codes.shape == (2, 10, 512)
    for layer in (0, 9):
        check("e4e_single_w_n10", "w", codes[:, layer])


def test_arcface() -> None:
    network = official(FaceRecognition, "ir_se50_arcface")
    faces = F.adaptive_avg_pool2d(images(0, 4)[:, :, 35:223, 32:220], 112)
    check("loss_id", "embedding", network(faces))
