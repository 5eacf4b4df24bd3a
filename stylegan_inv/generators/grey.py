"""Grey generators as generators of RGB images with equal channels."""

from __future__ import annotations

import torch
from torch import nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.adain import PlainToRGB
from stylegan_inv.generators.generator import Generator
from stylegan_inv.generators.synthesis import ToRGB

GREY, RGB = 1, 3


def check_picture_channels(channels: int, where: str = "") -> None:
    """Checks that a generator makes pictures.

    Args:
        channels: Channels of its images.
        where: Start of the message.

    Raises:
        UserError: Neither RGB nor grey, e.g. the planes of EG3D.
    """
    if channels == 4:
        raise UserError(
            f"{where}makes images of 4 channels (RGBA), expected 3 (RGB) or 1 (grey); give another generator"
        )
    if channels not in (GREY, RGB):
        planes = " (EG3D's tri-planes?)" if channels == 96 else ""
        raise UserError(
            f"{where}makes maps of {channels} channels{planes} and is not a picture generator; expected 3 (RGB) or 1 "
            "(grey)"
        )


@torch.no_grad()
def as_rgb(generator: Generator) -> Generator:
    """Returns the generator with RGB images; a grey one is changed in place so that it repeats its channel.

    Networks of losses and metrics take RGB, and a grey image is shown to them as an RGB image with equal channels. The
    weights of the channels stay equal when they are tuned.

    Args:
        generator: A generator of RGB or of grey images.

    Raises:
        UserError: See :func:`check_picture_channels`.
    """
    check_picture_channels(generator.img_channels)
    if generator.img_channels == RGB:
        return generator
    for module in generator.synthesis.modules():
        if isinstance(module, ToRGB | PlainToRGB):
            module.weight = nn.Parameter(module.weight.repeat(RGB, 1, 1, 1), module.weight.requires_grad)
            module.bias = nn.Parameter(module.bias.repeat(RGB), module.bias.requires_grad)
            module.grey = True
    generator.img_channels = generator.config["img_channels"] = RGB
    generator.grey = True
    return generator
