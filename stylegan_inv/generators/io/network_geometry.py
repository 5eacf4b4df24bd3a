"""The configuration of a network, as far as the shapes of its state dict tell it."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import resolutions


def infer_generator_config(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns arguments of :class:`.Generator` for a state dict in the project's layout.

    Arguments that the shapes do not tell keep their defaults, e.g. ``conv_clamp`` None, ``mapping_lr_multiplier`` 0.01.

    Raises:
        UserError: A key that determines the geometry is missing or has the wrong number of axes.
    """
    sizes = {int(m[1]) for key in sd if (m := re.match(r"synthesis\.b(\d{1,5})\.", key))}
    resolution = max(sizes, default=0)
    adain = any(re.match(r"synthesis\.b\d+\.layer[01]\.", key) for key in sd)
    last = "layer1" if adain else "conv1"
    channels = {r: _shape(sd, f"synthesis.b{r}.{last}.weight", 4)[0] for r in resolutions(resolution)}
    img_channels = _shape(sd, f"synthesis.b{resolution}.torgb.weight", 4)[0]
    w_dim = _shape(sd, f"synthesis.b4.{last}.affine.weight", 2)[1]
    depth = len({m[1] for key in sd if (m := re.match(r"mapping\.fc(\d+)\.", key))})
    inputs = _shape(sd, "mapping.fc0.weight", 2)[1]
    c_dim = _shape(sd, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in sd else 0
    # Only a progressive network has a torgb layer at 4 px.
    kind = {"style": "adain", "progressive": "synthesis.b4.torgb.weight" in sd} if adain else {}
    return {
        **kind,
        "resolution": resolution,
        "z_dim": inputs - (w_dim if c_dim else 0),
        "w_dim": w_dim,
        "mapping_layers": depth,
        "channels": channels,
        "c_dim": c_dim,
        "img_channels": img_channels,
    }


def infer_discriminator_config(sd: Mapping[str, Tensor]) -> dict[str, Any]:
    """Returns arguments of :class:`.Discriminator` for a state dict in the project's layout.

    The group size of the minibatch standard deviation keeps its default, 4.

    Raises:
        UserError: A key that determines the geometry is missing or has the wrong number of axes.
    """
    resolution = max((int(m[1]) for key in sd if (m := re.match(r"b(\d{1,5})\.", key))), default=0)
    channels = {r: _shape(sd, f"b{r}.conv0.weight", 4)[0] for r in resolutions(resolution)[1:]}
    channels[4], last = _shape(sd, "b4.conv.weight", 4)[:2]
    config: dict[str, Any] = {
        "resolution": resolution,
        "channels": channels,
        "c_dim": _shape(sd, "mapping.embed.weight", 2)[1] if "mapping.embed.weight" in sd else 0,
        "img_channels": _shape(sd, f"b{resolution}.fromrgb.weight", 4)[1],
        "mbstd_features": last - channels[4],
        "progressive": resolution > 4 and "b4.fromrgb.weight" in sd,
    }
    if config["c_dim"]:
        config["mapping_layers"] = len({m[1] for key in sd if (m := re.match(r"mapping\.fc(\d+)\.", key))})
    return config


def _shape(sd: Mapping[str, Tensor], key: str, ndim: int) -> tuple[int, ...]:
    if key not in sd:
        raise UserError(f"missing key {key}")
    shape = tuple(sd[key].shape)
    if len(shape) != ndim:
        raise UserError(f"{key} has shape {shape}, expected {ndim} axes")
    return shape
