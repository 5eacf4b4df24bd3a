"""Restoration of a degraded face: super-resolution, colorization and denoising."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.tasks.base import Generators, Task, choose, grey
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number, whole_number


class SuperResolution(Task):
    """Face from a low-resolution image: downsampled (antialiased bicubic, a = -0.5), then upsampled (bilinear).

    Args:
        factors: Downsampling factors, of which each training image gets a random one. The default is
            ``resize_factors`` of pSp, for 256 px.
        evaluation_factor: Downsampling factor in validation and test.
    """

    def __init__(self, factors: Sequence[int] = (1, 2, 4, 8, 16, 32), evaluation_factor: int = 8) -> None:
        if not factors:
            raise UserError("dataset.task.factors=[]: expected at least one whole number")
        self.factors = tuple(whole_number("dataset.task.factors", factor) for factor in factors)
        self.evaluation_factor = whole_number("dataset.task.evaluation_factor", evaluation_factor)

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        image = batch["image"]
        chosen = [choose(g, self.factors) if training else self.evaluation_factor for g in generators]
        source = image.clone()
        for factor in set(chosen) - {1}:
            rows = [row for row, of_row in enumerate(chosen) if of_row == factor]
            source[rows] = _downsample_and_restore(image[rows], factor)
        return {"source": source}


class Colorization(Task):
    """Colour image from a grey one; the grey levels are in all three channels (E2Style)."""

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        return {"source": grey(batch["image"]).expand_as(batch["image"]).clone()}


class Denoising(Task):
    """Clean image from one with noise: Gaussian, or salt and pepper, drawn for each image (E2Style).

    Args:
        variance: Variance of the Gaussian noise, for levels in [0, 1].
        fraction: Fraction of the pixels that salt and pepper turns white or black.
    """

    def __init__(self, variance: float = 0.01, fraction: float = 0.05) -> None:
        self.variance = real_number("dataset.task.variance", variance, 0)
        self.fraction = real_number("dataset.task.fraction", fraction, 0, 1)

    def translate(self, batch: Mapping[str, Any], generators: Generators, training: bool) -> dict[str, Tensor]:  # noqa: D102
        noisy = [self._add_noise(image.cpu(), g) for image, g in zip(batch["image"], generators, strict=True)]
        return {"source": torch.stack(noisy).to(batch["image"])}

    def _add_noise(self, image: Tensor, generator: np.random.Generator) -> Tensor:
        if generator.random() < 0.5:
            # The factor 2: the range [-1, 1] is twice as wide as [0, 1], to which the variance refers.
            noise = torch.from_numpy(generator.standard_normal(tuple(image.shape), dtype=np.float32))
            return (image + 2 * self.variance**0.5 * noise).clamp(-1, 1)
        level = torch.from_numpy(generator.random(tuple(image.shape[-2:]), dtype=np.float32))
        return image.masked_fill(level < self.fraction / 2, -1.0).masked_fill(level >= 1 - self.fraction / 2, 1.0)


def _downsample_and_restore(image: Tensor, factor: int) -> Tensor:
    """Downsamples (B, 3, H, W) in [-1, 1] by a factor and upsamples the result to (B, 3, H, W)."""
    height, width = image.shape[-2:]
    size = max(1, height // factor), max(1, width // factor)
    # Bicubic interpolation overshoots the range; an image file cannot, so the small image is clamped.
    small = F.interpolate(image, size, mode="bicubic", antialias=True).clamp(-1, 1)
    return F.interpolate(small, (height, width), mode="bilinear")
