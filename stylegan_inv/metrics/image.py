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


def masked_mse(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """``sum m (x - y)^2 / (3 sum m)``: the error inside a mask (B, 1, H, W) in [0, 1]; NaN where it is empty."""
    return _masked_mean((image - target).square(), mask).mean(dim=1)


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Peak signal-to-noise ratio in dB; at most 106, so that one perfect copy does not make a mean infinite."""
    error = mse(image, target) if mask is None else masked_mse(image, target, mask)
    return 10 * torch.log10(DATA_RANGE**2 / error.clamp_min(1e-10))


def ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Structural similarity: Gaussian window of 11 px, sigma 1.5, only where the window fits, mean over channels.

    With a mask (B, 1, H, W) the mean is weighted by it, at the windows' centres.
    """
    whole = _ssim_parts(image, target)[0]
    return (whole.mean(dim=(2, 3)) if mask is None else _masked_mean(whole, _centres(mask))).mean(dim=1)


def scales_that_fit(size: int) -> tuple[float, ...]:
    """As many of MS-SSIM's five scales as an image of ``size`` px has room for, weights scaled to a sum of 1."""
    count = sum(size >= 11 * 2**scale for scale in range(len(MS_SSIM_WEIGHTS)))
    return tuple(weight / sum(MS_SSIM_WEIGHTS[:count]) for weight in MS_SSIM_WEIGHTS[:count])


def ms_ssim(
    image: Tensor, target: Tensor, weights: Sequence[float] = MS_SSIM_WEIGHTS, mask: Tensor | None = None
) -> Tensor:
    """Multi-scale SSIM; the default five scales need images of at least 176 px.

    With a mask the mean of each scale is weighted by it, averaged down with the images.

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
        mean = part.mean(dim=(2, 3)) if mask is None else _masked_mean(part, _centres(mask))
        product = product * mean.clamp_min(0) ** weight
        image, target = F.avg_pool2d(image, 2), F.avg_pool2d(target, 2)
        mask = None if mask is None else F.avg_pool2d(mask, 2)
    return product.mean(dim=1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Mean (B, C) of maps (B, C, H, W) weighted by a mask (B, 1, H, W); NaN where the mask is empty."""
    return (values * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))


def _centres(mask: Tensor) -> Tensor:
    """The part of a mask where windows of 11 px have their centres."""
    return mask[..., 5:-5, 5:-5]


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

    def update(self, image: Tensor, target: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Adds a batch; see `PerImageMetric`."""
        super().update(image.clamp(-1, 1) if self.clamp else image, target, index, mask)


class MSE(_Pixels):
    """See `mse` and `masked_mse`."""

    unit = "squared units of [-1, 1]"

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`mse`."""
        return mse(image, target)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """`masked_mse`."""
        return masked_mse(image, target, mask)


class PSNR(_Pixels):
    """See `psnr`; the mean of the images' values, not the PSNR of the mean error."""

    unit = "dB for a range of 2, of each image"
    higher_is_better = True

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`psnr`."""
        return psnr(image, target)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """`psnr` of `masked_mse`."""
        return psnr(image, target, mask)


class SSIM(_Pixels):
    """See `ssim`."""

    unit = "Gaussian window of 11 px, sigma 1.5, valid positions, RGB"
    higher_is_better = True

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`ssim`."""
        return ssim(image, target)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """`ssim`, weighted by the mask."""
        return ssim(image, target, mask)


class MSSSIM(_Pixels):
    """See `ms_ssim`.

    Args:
        weights: Of the scales; None takes as many of the five as the first images have room for, see `scales_that_fit`.
        **kwargs: See `PerImageMetric`.
    """

    higher_is_better = True

    def __init__(self, weights: Sequence[float] | None = MS_SSIM_WEIGHTS, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.weights = None if weights is None else tuple(weights)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """`ms_ssim`."""
        return ms_ssim(image, target, self._weights(image))

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """`ms_ssim`, weighted by the mask."""
        return ms_ssim(image, target, self._weights(image), mask)

    def describe(self) -> str:
        """The scales."""
        weights = self.weights or ()
        return f"{len(weights)} scales with weights {', '.join(f'{weight:.4g}' for weight in weights)}"

    def _weights(self, image: Tensor) -> tuple[float, ...]:
        if self.weights is None:
            self.weights = scales_that_fit(min(image.shape[-2:]))
        return self.weights


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
