"""Noise inputs on chosen layers, and what noise changes in a picture (Karras et al. 2019, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator


def noise_layers(generator: Generator, which: str | Sequence[int]) -> list[int]:
    """Numbers of the noise inputs: ``all``, ``none``, ``coarse`` (up to 32 px), ``fine`` (above), or the given ones.

    The paper's figure 5 counts 64-1024 px as fine, for a generator of 1024 px. Smaller ones have fewer layers above
    32 px; one of up to 32 px halves at a quarter of its own side.
    """
    sides = [layer.resolution for layer in generator.synthesis.layers()]
    border = min(32, generator.resolution // 4)
    named = {
        "all": list(range(len(sides))),
        "none": [],
        "coarse": [k for k, side in enumerate(sides) if side <= border],
        "fine": [k for k, side in enumerate(sides) if side > border],
    }
    if isinstance(which, str):
        if which not in named:
            raise UserError(f"noise on {which!r}: expected {', '.join(named)} or a list of layers")
        return named[which]
    wrong = [k for k in which if not isinstance(k, int) or not 0 <= k < len(sides)]
    if wrong:
        raise UserError(f"noise on layer {wrong[0]!r}: expected whole numbers from 0 to {len(sides) - 1}")
    return list(which)


def noise_on(generator: Generator, which: str | Sequence[int], seed: int = 0, batch: int = 1) -> list[Tensor]:
    """Fresh noise maps on some layers and zeros on the others, for ``generator.synthesis(w, noise=...)``.

    Returns:
        One (batch, 1, r, r) map a layer.
    """
    chosen = set(noise_layers(generator, which))
    source = torch.Generator().manual_seed(seed)
    maps = []
    for k, stored in enumerate(generator.synthesis.noise_maps()):
        # Drawn for every layer, so that a layer's noise does not depend on which others are on.
        drawn = torch.randn((batch, *stored.shape[1:]), generator=source)
        maps.append((drawn if k in chosen else torch.zeros_like(drawn)).to(stored))
    return maps


@torch.no_grad()
def noise_deviation(
    generator: Generator, w: Tensor, which: str | Sequence[int] = "all", samples: int = 100, seed: int = 0
) -> Tensor:
    """Standard deviation of each pixel over ``samples`` draws of noise, mean of the channels: (B, 1, R, R).

    Args:
        generator: its pictures have values in [-1, 1].
        w: (B, L, D).
        which: see `noise_layers`.
        samples: at least 2.
        seed: of the first draw.
    """
    if samples < 2:
        raise UserError(f"noise deviation over {samples} draws: expected at least 2")
    mean = torch.zeros((), device=w.device)
    squares = torch.zeros((), device=w.device)
    for count in range(1, samples + 1):  # Welford's update: no cancellation, no list of pictures
        image = generator.synthesis(w, noise=noise_on(generator, which, seed + count - 1, len(w)))
        delta = image - mean
        mean = mean + delta / count
        squares = squares + delta * (image - mean)
    return (squares / (samples - 1)).sqrt().mean(1, keepdim=True)
