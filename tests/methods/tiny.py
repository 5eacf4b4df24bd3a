"""A random 16-px generator and simple features, with which a step of per-image optimisation takes milliseconds."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.generators import Generator
from stylegan_inv.losses.features import Features


class Blurs(Features):
    """Features of a fixed random convolution, at two resolutions."""

    def __init__(self) -> None:
        super().__init__()
        weight = torch.randn(4, 3, 3, 3, generator=torch.Generator().manual_seed(1))
        self.register_buffer("weight", weight, persistent=False)

    def maps(self, image: Tensor) -> list[Tensor]:
        first = nn.functional.conv2d(image, self.weight, padding=1).relu()  # type: ignore[arg-type]
        return [first, nn.functional.avg_pool2d(image, 2)]

    def style(self, image: Tensor) -> Tensor:
        return self.maps(image)[0]


def tiny_generator(dtype: torch.dtype = torch.float64) -> Generator:
    torch.manual_seed(0)
    generator = Generator(16, z_dim=8, w_dim=8, mapping_layers=1, channel_base=64, channel_max=8)
    for layer in generator.synthesis.layers():
        layer.noise_strength.data.fill_(0.2)
    generator.source_hash = "tiny"
    return generator.to(dtype).freeze()


def tiny_images(count: int, dtype: torch.dtype = torch.float64) -> Tensor:
    """Returns images that the generator can make from random codes."""
    generator = tiny_generator(dtype)
    z = torch.randn(count, 8, generator=torch.Generator().manual_seed(5)).to(dtype)
    return generator.synthesis(generator.mapping(z), noise="const").detach()


def tiny(method: type, **settings: Any) -> Any:
    dtype = settings.pop("dtype", torch.float64)
    return method(generator=tiny_generator(dtype), features=Blurs().to(dtype), **settings)
