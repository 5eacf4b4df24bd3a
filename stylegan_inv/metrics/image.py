"""Distances of two images, from their pixels alone. Images are (B, 3, H, W) in [-1, 1]; values are (B,)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.metrics.base import PerImageMetric

DATA_RANGE = 2.0
MS_SSIM_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)
"""Weights of the five scales (Wang, Simoncelli and Bovik 2003, section 3.2)."""


def mse(image: Tensor, target: Tensor) -> Tensor:
    """Mean squared error in squared units of [-1, 1], as the papers' "L2" (4 times that of [0, 1])."""
    return (image - target).square().flatten(1).mean(dim=1)


def psnr(image: Tensor, target: Tensor) -> Tensor:
    """Peak signal-to-noise ratio in dB; at most 106, so that one perfect copy does not make a mean infinite."""
    return 10 * torch.log10(DATA_RANGE**2 / mse(image, target).clamp_min(1e-10))


def ssim(image: Tensor, target: Tensor) -> Tensor:
    """Structural similarity: Gaussian window of 11 px, sigma 1.5, only where the window fits, mean over channels."""
    return _ssim_parts(image, target)[0].mean(dim=(1, 2, 3))


def ms_ssim(image: Tensor, target: Tensor, weights: Sequence[float] = MS_SSIM_WEIGHTS) -> Tensor:
    """Multi-scale SSIM; the default five scales need images of at least 176 px.

    Raises:
        UserError: the window of 11 px does not fit the coarsest scale.
    """
    smallest = 11 * 2 ** (len(weights) - 1)
    if min(image.shape[-2:]) < smallest:
        raise UserError(
            f"MS-SSIM with {len(weights)} scales got images of {image.shape[-2]}x{image.shape[-1]}, expected at least "
            f"{smallest} px; use fewer weights, or SSIM"
        )
    product = torch.ones(image.shape[:2], dtype=image.dtype, device=image.device)
    for scale, weight in enumerate(weights):
        whole, contrast = _ssim_parts(image, target)
        part = whole if scale == len(weights) - 1 else contrast
        # Negative covariance has no fractional power; the reference implementations clip as well.
        product = product * part.mean(dim=(2, 3)).clamp_min(0) ** weight
        image, target = F.avg_pool2d(image, 2), F.avg_pool2d(target, 2)
    return product.mean(dim=1)


def _ssim_parts(x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
    """SSIM and its contrast-structure part at each position (B, C, H - 10, W - 10)."""
    if min(x.shape[-2:]) < 11:
        raise UserError(f"SSIM got images of {x.shape[-2]}x{x.shape[-1]}, expected at least 11 px")
    offsets = torch.arange(-5, 6, dtype=torch.float64, device=x.device)
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = (window / window.sum()).to(x.dtype)
    channels = x.shape[1]

    def blur(t: Tensor) -> Tensor:
        t = F.conv2d(t, window.view(1, 1, 11, 1).expand(channels, 1, 11, 1), groups=channels)
        return F.conv2d(t, window.view(1, 1, 1, 11).expand(channels, 1, 1, 11), groups=channels)

    c1, c2 = (0.01 * DATA_RANGE) ** 2, (0.03 * DATA_RANGE) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * contrast, contrast


def average_image_ratio(image: Tensor, target: Tensor, average: Tensor) -> Tensor:
    """Squared error divided by that of the average image: 1 means nothing was learnt, 0 a perfect copy."""
    return mse(image, target) / mse(average.expand_as(target), target).clamp_min(1e-10)


class _Pixels(PerImageMetric):
    """Images are clamped to [-1, 1] first, as they are when they are shown or saved."""

    higher_is_better = False

    def __init__(self, clamp: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clamp = clamp

    def update(self, image: Tensor, target: Tensor, index: Tensor | None = None) -> None:
        """Adds a batch; see `PerImageMetric`."""
        super().update(image.clamp(-1, 1) if self.clamp else image, target, index)


class MSE(_Pixels):
    """See `mse`."""

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`mse`."""
        return mse(image, target)


class PSNR(_Pixels):
    """See `psnr`; the mean of the images' values, not the PSNR of the mean error."""

    higher_is_better = True

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`psnr`."""
        return psnr(image, target)


class SSIM(_Pixels):
    """See `ssim`."""

    higher_is_better = True

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`ssim`."""
        return ssim(image, target)


class MSSSIM(_Pixels):
    """See `ms_ssim`."""

    higher_is_better = True

    def __init__(self, weights: Sequence[float] = MS_SSIM_WEIGHTS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights = tuple(weights)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`ms_ssim`."""
        return ms_ssim(image, target, self.weights)


class AverageImageRatio(_Pixels):
    """See `average_image_ratio`.

    Args:
        average: the generator's average image, (3, H, W) or (1, 3, H, W).
        **kwargs: of `PerImageMetric`.
    """

    def __init__(self, average: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("average", average.detach(), persistent=False)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`average_image_ratio`."""
        return average_image_ratio(image, target, self.average)  # type: ignore[arg-type]
