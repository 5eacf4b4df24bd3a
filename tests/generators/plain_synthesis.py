"""StyleGAN2's synthesis network written out from the paper, image by image, without any code under test."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F


def plain_synthesis(
    network: Any,
    w: Tensor | None,
    noise: Sequence[Tensor],
    *,
    features: Mapping[str, Any] | None = None,
    styles: Mapping[str, Tensor] | None = None,
    weights: Mapping[str, Tensor] | None = None,
) -> tuple[Tensor, dict[str, Tensor]]:
    """The image and all feature maps; arguments as those of the network."""
    batch = len(w) if w is not None else len(next(iter((styles or {}).values())))
    images, maps = zip(
        *(_one(network, i, w, noise, features or {}, styles or {}, weights or {}) for i in range(batch)), strict=True
    )
    return torch.cat(images), {name: torch.cat([m[name] for m in maps]) for name in maps[0]}


def _one(
    network: Any,
    i: int,
    w: Tensor | None,
    noise: Sequence[Tensor],
    features: Mapping[str, Any],
    styles: Mapping[str, Tensor],
    weights: Mapping[str, Tensor],
) -> tuple[Tensor, dict[str, Tensor]]:
    def own(t: Any) -> Any:
        return t[i : i + 1] if isinstance(t, Tensor) and len(t) > 1 else t

    parameters = dict(network.named_parameters())
    parameters = {name: p + own(weights[name])[0] if name in weights else p for name, p in parameters.items()}
    found: dict[str, Tensor] = {}

    def style_of(name: str, row: int) -> Tensor:
        if name in styles:
            return own(styles[name])[0]
        assert w is not None
        affine = parameters[f"{name}.affine.weight"] / math.sqrt(w.shape[2])
        return affine @ w[i, row] + parameters[f"{name}.affine.bias"]

    def changed(name: str, x: Tensor) -> Tensor:
        change = features.get(name)
        if isinstance(change, tuple):
            x = x * own(change[0]) + own(change[1])
        elif change is not None:
            x = own(change)
        found[name] = x
        return x

    def clamped(x: Tensor, limit: float | None) -> Tensor:
        return x if limit is None else x.clamp(-limit, limit)

    taps = torch.tensor([1.0, 3.0, 3.0, 1.0], dtype=torch.float64).to(parameters["b4.const"])
    fir = torch.outer(taps, taps) / 16  # gain 4 makes up for the inserted zeros
    x, image, k = parameters["b4.const"][None], None, 0
    for r in network.resolutions:
        block = network.get_submodule(f"b{r}")
        for name in (f"b{r}.conv1",) if r == 4 else (f"b{r}.conv0", f"b{r}.conv1"):
            layer = network.get_submodule(name)
            weight = parameters[f"{name}.weight"] * style_of(name, k)[:, None, None]
            norm = weight.square().sum(dim=(1, 2, 3), keepdim=True) + layer.demod_eps
            weight = weight / norm.sqrt()
            if name.endswith("conv0"):
                x = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
                x = F.conv2d(x, fir.expand(x.shape[1], 1, -1, -1), padding=1, groups=x.shape[1])
            else:
                x = F.conv2d(x, weight, padding=1)
            x = x + own(noise[k]) * parameters[f"{name}.noise_strength"]
            x = x + parameters[f"{name}.bias"][:, None, None]
            x = changed(name, clamped(torch.where(x > 0, x, 0.2 * x) * math.sqrt(2), layer.conv_clamp))
            k += 1
        weight = parameters[f"b{r}.torgb.weight"] * style_of(f"b{r}.torgb", k)[:, None, None] / math.sqrt(x.shape[1])
        rgb = F.conv2d(x, weight) + parameters[f"b{r}.torgb.bias"][:, None, None]
        rgb = clamped(rgb, block.torgb.conv_clamp)
        if image is not None:
            large = F.conv_transpose2d(image, fir.expand(image.shape[1], 1, -1, -1), stride=2, padding=1, groups=3)
            rgb = rgb + large
        image = rgb
        x = changed(f"b{r}", x)
    assert image is not None
    return image, found
