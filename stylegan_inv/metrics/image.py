"""Pixel-wise metrics. Images are (B, 3, H, W) in [-1, 1]; the functions return one value per image, (B,).

torchmetrics has the same functions without masks; the tests compare both.
"""

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
    """Returns the mean squared error for the range [-1, 1], the papers' "L2" (4 times that of the range [0, 1])."""
    return (image - target).square().flatten(1).mean(dim=1)


def masked_mse(image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
    """Returns the error inside a mask (B, 1, H, W) in [0, 1], ``sum m (x - y)^2 / (3 sum m)``; NaN if it is empty."""
    return _masked_mean((image - target).square(), mask).mean(dim=1)


def psnr(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the peak signal-to-noise ratio in dB.

    It is at most 106, so that one perfect reconstruction does not make a mean infinite.

    Args:
        image: (B, 3, H, W).
        target: (B, 3, H, W).
        mask: Region to compare, (B, 1, H, W) in [0, 1].
    """
    error = mse(image, target) if mask is None else masked_mse(image, target, mask)
    return 10 * torch.log10(DATA_RANGE**2 / error.clamp_min(1e-10))


def ssim(image: Tensor, target: Tensor, mask: Tensor | None = None) -> Tensor:
    """Returns the structural similarity (Wang et al. 2004), averaged over channels and valid positions.

    The window is Gaussian with 11 px and sigma 1.5.

    Args:
        image: (B, 3, H, W), at least 11 px.
        target: (B, 3, H, W).
        mask: Weights (B, 1, H, W) in [0, 1] of the positions, taken at the centre of each window.

    Raises:
        UserError: The images are smaller than the window.
    """
    whole = _ssim_parts(image, target)[0]
    return (whole.mean(dim=(2, 3)) if mask is None else _masked_mean(whole, _centres(mask))).mean(dim=1)


def scales_that_fit(size: int) -> tuple[float, ...]:
    """Returns the weights of the scales of MS-SSIM that an image of ``size`` px allows, normalised to a sum of 1."""
    count = sum(size >= 11 * 2**scale for scale in range(len(MS_SSIM_WEIGHTS)))
    return tuple(weight / sum(MS_SSIM_WEIGHTS[:count]) for weight in MS_SSIM_WEIGHTS[:count])


def ms_ssim(
    image: Tensor,
    target: Tensor,
    weights: Sequence[float] = MS_SSIM_WEIGHTS,
    mask: Tensor | None = None,
    guess_range: bool = False,
) -> Tensor:
    """Returns the multi-scale structural similarity (Wang, Simoncelli and Bovik 2003).

    Args:
        image: (B, 3, H, W); the five default scales need at least 176 px.
        target: (B, 3, H, W).
        weights: Weights of the scales, finest first.
        mask: Weights (B, 1, H, W) in [0, 1] of the positions; it is averaged down with the images.
        guess_range: As HyperStyle's script (criteria/ms_ssim.py): at each scale, the range is 2 if the image has values
            below -0.5, otherwise 1; and a negative mean gives NaN. By default the range is 2 and the mean is clipped.

    Raises:
        UserError: The window of 11 px does not fit into the coarsest scale.
    """
    smallest = 11 * 2 ** (len(weights) - 1)
    if min(image.shape[-2:]) < smallest:
        raise UserError(
            f"MS-SSIM with {len(weights)} scales got images of {image.shape[-2]}x{image.shape[-1]}, expected at least "
            f"{smallest} px; use fewer weights, or SSIM"
        )
    means: list[Tensor] = []
    for scale in range(len(weights)):
        data_range: Tensor | float = DATA_RANGE
        if guess_range:
            data_range = torch.where(image.amin(dim=(1, 2, 3), keepdim=True) < -0.5, 2.0, 1.0)
        whole, contrast = _ssim_parts(image, target, data_range)
        part = whole if scale == len(weights) - 1 else contrast
        # A negative mean has no real fractional power; other implementations clip as well.
        mean = part.mean(dim=(2, 3)) if mask is None else _masked_mean(part, _centres(mask))
        means.append(mean if guess_range else mean.clamp_min(0))
        image, target = F.avg_pool2d(image, 2), F.avg_pool2d(target, 2)
        mask = None if mask is None else F.avg_pool2d(mask, 2)
    if guess_range:  # of the means over the channels too
        means = [mean.mean(dim=1, keepdim=True) for mean in means]
    product = torch.ones_like(means[0])
    for mean, weight in zip(means, weights, strict=True):
        product = product * mean**weight
    return product.mean(dim=1)


def _masked_mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean (B, C) of maps (B, C, H, W), weighted by a mask (B, 1, H, W); NaN for an empty mask."""
    return (values * mask).sum(dim=(2, 3)) / mask.sum(dim=(2, 3))


def _centres(mask: Tensor) -> Tensor:
    """Returns the part of a mask at the centres of valid windows of 11 px."""
    return mask[..., 5:-5, 5:-5]


def _ssim_parts(x: Tensor, y: Tensor, data_range: Tensor | float = DATA_RANGE) -> tuple[Tensor, Tensor]:
    """Returns SSIM and its contrast-structure part at each position, (B, C, H - 10, W - 10)."""
    if min(x.shape[-2:]) < 11:
        raise UserError(f"SSIM got images of {x.shape[-2]}x{x.shape[-1]}, expected at least 11 px")
    offsets = torch.arange(-5, 6, dtype=torch.float64, device=x.device)
    window = torch.exp(-offsets.square() / (2 * 1.5**2))
    window = (window / window.sum()).to(x.dtype)
    channels = x.shape[1]

    def blur(t: Tensor) -> Tensor:
        t = F.conv2d(t, window.view(1, 1, 11, 1).expand(channels, 1, 11, 1), groups=channels)
        return F.conv2d(t, window.view(1, 1, 1, 11).expand(channels, 1, 1, 11), groups=channels)

    c1, c2 = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    mean_x, mean_y = blur(x), blur(y)
    var_x, var_y = blur(x * x) - mean_x**2, blur(y * y) - mean_y**2
    covariance = blur(x * y) - mean_x * mean_y
    contrast = (2 * covariance + c2) / (var_x + var_y + c2)
    return (2 * mean_x * mean_y + c1) / (mean_x**2 + mean_y**2 + c1) * contrast, contrast


def average_image_ratio(image: Tensor, target: Tensor, average: Tensor) -> Tensor:
    """Returns the squared error divided by that of the average image: 1 means nothing was learnt, 0 is perfect."""
    return mse(image, target) / mse(average.expand_as(target), target).clamp_min(1e-10)


class _PixelMetric(PerImageMetric):
    """Base class that clamps reconstructions to [-1, 1], as is done when they are displayed or saved.

    Args:
        clamp: Whether to clamp.
        **kwargs: Arguments of `PerImageMetric`.
    """

    higher_is_better = False

    def __init__(self, clamp: bool = True, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.clamp = clamp

    def update(self, image: Tensor, target: Tensor, index: Tensor | None = None, mask: Tensor | None = None) -> None:
        """Adds a batch; see `PerImageMetric.update`."""
        super().update(image.clamp(-1, 1) if self.clamp else image, target, index, mask)


class MSE(_PixelMetric):
    """Mean squared error; see `mse` and `masked_mse`."""

    domain: str | None = None
    unit = "squared units of [-1, 1]"

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns `mse`."""
        return mse(image, target)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns `masked_mse`."""
        return masked_mse(image, target, mask)


class PSNR(_PixelMetric):
    """Peak signal-to-noise ratio, averaged over images (it is not the PSNR of the mean error); see `psnr`."""

    domain: str | None = None
    unit = "dB for a range of 2, of each image"
    higher_is_better = True

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns `psnr`."""
        return psnr(image, target)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns `psnr` inside the mask."""
        return psnr(image, target, mask)


class SSIM(_PixelMetric):
    """Structural similarity; see `ssim`."""

    domain: str | None = None
    unit = "Gaussian window of 11 px, sigma 1.5, valid positions, RGB"
    higher_is_better = True

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns `ssim`."""
        return ssim(image, target)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns `ssim`, weighted by the mask."""
        return ssim(image, target, mask)


class MSSSIM(_PixelMetric):
    """Multi-scale structural similarity; see `ms_ssim`.

    Args:
        weights: Weights of the scales; None uses the scales that the size of the first images allows, see
            `scales_that_fit`.
        guess_range: As HyperStyle's script, see `ms_ssim`.
        **kwargs: Arguments of `PerImageMetric`.
    """

    domain: str | None = None
    higher_is_better = True

    def __init__(
        self, weights: Sequence[float] | None = MS_SSIM_WEIGHTS, guess_range: bool = False, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.weights, self.guess_range = None if weights is None else tuple(weights), guess_range

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns `ms_ssim`."""
        return ms_ssim(image, target, self._weights(image), guess_range=self.guess_range)

    def score_interest(self, image: Tensor, target: Tensor, mask: Tensor) -> Tensor:
        """Returns `ms_ssim`, weighted by the mask."""
        return ms_ssim(image, target, self._weights(image), mask, self.guess_range)

    def describe(self) -> str:
        """Returns the weights of the scales."""
        weights = self.weights or ()
        text = f"{len(weights)} scales with weights {', '.join(f'{weight:.4g}' for weight in weights)}"
        return f"{text}, guessed range" if self.guess_range else text

    def _weights(self, image: Tensor) -> tuple[float, ...]:
        if self.weights is None:
            self.weights = scales_that_fit(min(image.shape[-2:]))
        return self.weights


class AverageImageRatio(_PixelMetric):
    """Squared error relative to that of the average image; see `average_image_ratio`.

    Args:
        average: Average image of the generator, (3, H, W) or (1, 3, H, W).
        **kwargs: Arguments of `PerImageMetric`.
    """

    domain: str | None = None
    average: Tensor

    def __init__(self, average: Tensor, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.register_buffer("average", average.detach(), persistent=False)

    def score(self, image: Tensor, target: Tensor) -> Tensor:
        """Returns `average_image_ratio`."""
        return average_image_ratio(image, target, self.average)
