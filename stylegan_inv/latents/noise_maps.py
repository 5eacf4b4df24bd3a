"""Noise inputs of selected layers, and the variation that they cause (Karras et al. 2019, figures 4 and 5)."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.utils.checks import whole_number


def noise_layers(generator: Generator, which: str | Sequence[int]) -> list[int]:
    """Returns the indices of noise inputs.

    The paper's figure 5 calls 64-1024 px fine, for a generator of 1024 px. For small generators the limit of coarse
    layers is a quarter of the resolution instead of 32 px.

    Args:
        generator: The generator.
        which: ``all``, ``none``, ``coarse`` (up to 32 px), ``fine`` (above), or a list of indices.

    Raises:
        UserError: The name is unknown, or a layer does not exist.
    """
    resolutions = [layer.resolution for layer in generator.synthesis.layers()]
    limit = min(32, generator.resolution // 4)
    named = {
        "all": list(range(len(resolutions))),
        "none": [],
        "coarse": [k for k, resolution in enumerate(resolutions) if resolution <= limit],
        "fine": [k for k, resolution in enumerate(resolutions) if resolution > limit],
    }
    if isinstance(which, str):
        if which not in named:
            raise UserError(f"noise on {which!r}: expected {', '.join(named)} or a list of layers")
        return named[which]
    wrong = [k for k in which if not isinstance(k, int) or not 0 <= k < len(resolutions)]
    if wrong:
        raise UserError(f"noise on layer {wrong[0]!r}: expected whole numbers from 0 to {len(resolutions) - 1}")
    return list(which)


def noise_on(generator: Generator, which: str | Sequence[int], seed: int = 0, batch: int = 1) -> list[Tensor]:
    """Returns random noise maps for some layers and zeros for the others, for ``generator.synthesis(w, noise=...)``.

    Args:
        generator: The generator.
        which: See `noise_layers`.
        seed: Seed of the noise.
        batch: Number of images.

    Returns:
        A map (batch, 1, r, r) for each layer.
    """
    selected = set(noise_layers(generator, which))
    source = torch.Generator().manual_seed(seed)
    maps = []
    for k, stored in enumerate(generator.synthesis.noise_maps()):
        # Noise is drawn for every layer, so that it does not depend on the selection.
        noise = torch.randn((batch, *stored.shape[1:]), generator=source)
        maps.append((noise if k in selected else torch.zeros_like(noise)).to(stored))
    return maps


@torch.no_grad()
def noise_deviation(
    generator: Generator, w: Tensor, which: str | Sequence[int] = "all", samples: int = 100, seed: int = 0
) -> Tensor:
    """Returns the standard deviation of each pixel over random noise, averaged over channels: (B, 1, R, R).

    Args:
        generator: The generator.
        w: Codes (B, L, D).
        which: See `noise_layers`.
        samples: Number of noise samples, at least 2.
        seed: Seed of the first sample.

    Raises:
        UserError: There are fewer than two samples.
    """
    whole_number("noise deviation: samples", samples, least=2)
    mean = torch.zeros((), device=w.device)
    squares = torch.zeros((), device=w.device)
    for count in range(1, samples + 1):  # Welford's algorithm: numerically stable, stores no images
        image = generator.synthesis(w, noise=noise_on(generator, which, seed + count - 1, len(w)))
        delta = image - mean
        mean = mean + delta / count
        squares = squares + delta * (image - mean)
    return (squares / (samples - 1)).sqrt().mean(1, keepdim=True)
