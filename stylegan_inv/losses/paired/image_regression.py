"""Multi-scale regression to known target images, for generators trained on images whose latent code is known.

It is not part of StyleGAN2; `methods.generator.paired_stylegan2` describes what it is used for.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.losses.feature_networks import FeatureNetwork
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen


def pyramid_l1(prediction: Tensor, target: Tensor, levels: int = 3, weight: Tensor | None = None) -> Tensor:
    """Returns the mean absolute error, averaged over the levels of an image pyramid.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        levels: Number of levels; the first has full size, each next one the means of 2x2 pixels.
        weight: Multiplies the errors at full size, (B, 1, H, W).
    """
    total = prediction.new_zeros(())
    for level in range(levels):
        if level:
            prediction, target = F.avg_pool2d(prediction, 2), F.avg_pool2d(target, 2)
        error = (prediction - target).abs()
        total = total + (error if level or weight is None else error * weight).mean()
    return total / levels


def difference_l1(prediction: Tensor, target: Tensor, weight: Tensor | None = None) -> Tensor:
    """Returns the mean absolute error of horizontal and vertical first differences, which measures errors at edges.

    A constant offset of an image does not change it.

    Args:
        prediction: (B, C, H, W).
        target: (B, C, H, W).
        weight: Multiplies the errors, (B, 1, H, W).
    """
    error = prediction - target
    across, down = (error[..., 1:] - error[..., :-1]).abs(), (error[..., 1:, :] - error[..., :-1, :]).abs()
    if weight is not None:
        across, down = across * weight[..., 1:], down * weight[..., 1:, :]
    return across.mean() + down.mean()


def local_contrast(image: Tensor) -> Tensor:
    """Returns the distance of each pixel to the mean of its 5x5 neighbourhood, averaged over channels: (B, 1, H, W)."""
    padded = F.pad(image, (2, 2, 2, 2), mode="replicate")
    return (image - F.avg_pool2d(padded, 5, stride=1)).abs().mean(1, keepdim=True)


class PairedRegression(nn.Module):
    """Pyramid L1, edges and optionally a perceptual term between G(z) and the target image of z.

    Args:
        edge: Weight of the finite-difference term.
        levels: Levels of the pyramid.
        perceptual: Weight of the perceptual term.
        network: A `FeatureNetwork`, which is frozen; needed if ``perceptual`` is not 0.
        detail: Pixels are weighted by ``1 + detail * local_contrast`` of the target. An absolute error is minimised by
            the median of the possible values, which omits thin structures of uncertain position: rims of glasses,
            window bars, strands of hair.
    """

    def __init__(
        self,
        edge: float = 1.0,
        levels: int = 3,
        perceptual: float = 0.0,
        network: nn.Module | None = None,
        detail: float = 0.0,
    ) -> None:
        super().__init__()
        self.edge, self.levels, self.perceptual, self.detail = edge, levels, perceptual, detail
        self.frozen = None if network is None else Frozen(network)

    @property
    def domain(self) -> str | None:
        """Domain of the network of the perceptual term; None for any."""
        return None if self.frozen is None else domain_of(self.frozen.network)

    def forward(self, prediction: Tensor, target: Tensor) -> Tensor:
        """Returns the loss, a scalar, of images (B, 3, H, W) and targets (B, 3, H, W)."""
        weight = 1 + self.detail * local_contrast(target) if self.detail else None
        total = pyramid_l1(prediction, target, self.levels, weight)
        total = total + self.edge * difference_l1(prediction, target, weight)
        if self.perceptual and self.frozen is not None:
            distances = _feature_distances(self.frozen.network, prediction, target)
            total = total + self.perceptual * sum(distances, prediction.new_zeros(())) / len(distances)
        return total


def _feature_distances(network: FeatureNetwork, prediction: Tensor, target: Tensor) -> list[Tensor]:
    pairs = zip(network.features(prediction), network.features(target.detach()), strict=True)
    return [(F.normalize(a, dim=1) - F.normalize(b, dim=1)).square().sum(1).mean() for a, b in pairs]
