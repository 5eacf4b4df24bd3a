"""Builds small networks in files with the structure of official checkpoints."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.fpn import FPNEncoder
from stylegan_inv.encoders.irse import ir_se
from stylegan_inv.encoders.last_layer import LastLayerEncoder
from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.encoders.single_level import SingleLevelEncoder
from stylegan_inv.encoders.single_w import SingleWEncoder
from stylegan_inv.generators import Generator, to_rosinality

W_DIM, NUM_WS = 7, 6
SIZES: dict[str, Any] = {"channels": (4, 8, 12, 16), "units": (2, 1, 3, 1)}
IR, RESNET = partial(ir_se, **SIZES), partial(resnet34, **SIZES)
ENCODERS = {
    "GradualStyleEncoder": partial(FPNEncoder, in_channels=3, backbone=IR, resolution=64),
    "Encoder4Editing": partial(FPNEncoder, in_channels=3, backbone=IR, resolution=64, progressive=True),
    "BackboneEncoder": partial(SingleLevelEncoder, in_channels=6, backbone=IR, resolution=64),
    "ResNetBackboneEncoder": partial(SingleLevelEncoder, in_channels=6, backbone=RESNET, resolution=64),
    "ResNetGradualStyleEncoder": partial(FPNEncoder, in_channels=6, backbone=RESNET, resolution=128),
    "SingleStyleCodeEncoder": partial(SingleWEncoder, in_channels=3, backbone=IR),
    "BackboneEncoderUsingLastLayerIntoWPlus": partial(LastLayerEncoder, in_channels=19, backbone=IR),
}


def small_encoder(name: str) -> nn.Module:
    torch.manual_seed(1)
    return ENCODERS[name](NUM_WS, W_DIM).eval()


def small_generator() -> Generator:
    torch.manual_seed(0)
    generator = Generator(16, z_dim=W_DIM, w_dim=W_DIM, mapping_layers=2, channels={4: 8, 8: 6, 16: 4})
    generator.w_avg.normal_()
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.normal_()
    return generator


def decoder_state(generator: Generator) -> dict[str, Tensor]:
    return to_rosinality(generator.state_dict())


def psp_file(name: str, **more: Any) -> dict[str, Any]:
    """Returns a checkpoint of pSp, e4e or ReStyle."""
    generator, encoder = small_generator(), small_encoder(name)
    state = {f"encoder.{key}": value for key, value in encoder.state_dict().items()}
    state |= {f"decoder.{key}": value for key, value in decoder_state(generator).items()}
    return {
        "state_dict": state,
        "latent_avg": generator.w_avg.repeat(NUM_WS, 1),
        "opts": {"encoder_type": name, "output_size": 16, "resize_factors": None},
        **more,
    }
