"""Image2StyleGAN: How to Embed Images Into the StyleGAN Latent Space?

Rameen Abdal, Yipeng Qin, Peter Wonka, ICCV 2019, arXiv 1904.03189. No official code.

Differences: optimises a batch of images at once, each with its own early stop; the config of the embedded world takes
fewer and larger steps than the paper.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.methods.common.latent_optimization import LatentOptimization
from stylegan_inv.methods.common.per_image import InputImages
from stylegan_inv.optim.optimization_state import Variables
from stylegan_inv.optim.per_image_optimization import EarlyStop, Stage
from stylegan_inv.utils.checks import whole_number


@dataclass
class EmbeddingTargets:
    """What Image2StyleGAN compares with.

    Attributes:
        image: Target images (B, 3, H, W).
        features: Their feature maps.
    """

    image: Tensor
    features: list[Tensor]


class Image2StyleGAN(LatentOptimization):
    """Minimises the perceptual distance and the mean squared error in W+ (equations 1 and 2).

    Args:
        steps: Number of steps. Paper: 5000.
        lr: Learning rate of Adam with betas (0.9, 0.999).
        pixel: Weight of the mean squared error. Paper: 1.
        perceptual: Weight of the perceptual distance. Paper: 1 for each of four layers of VGG-16.
        early_stop: When an image stops before the last step.
        **kwargs: See :class:`LatentOptimization`.
    """

    def __init__(
        self,
        *,
        steps: int = 5000,
        lr: float = 0.01,
        pixel: float = 1.0,
        perceptual: float = 1.0,
        early_stop: EarlyStop | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.steps = whole_number("method.steps", steps)
        self.lr, self.early_stop = lr, early_stop or EarlyStop()
        self.pixel, self.perceptual = pixel, perceptual

    def stage_names(self) -> list[str]:
        """Returns the name of the only stage."""
        return ["W+"]

    def stage(self, index: int, inputs: InputImages, initial_image: Tensor) -> Stage[EmbeddingTargets]:
        """Returns the only stage."""
        with torch.no_grad():
            targets = EmbeddingTargets(inputs.image, self.features.network.maps(inputs.image))
        return Stage("W+", self.steps, ("w",), self._loss, targets, lambda step: self.lr, early_stop=self.early_stop)

    def _loss(self, variables: Variables, targets: EmbeddingTargets, step: int) -> dict[str, Tensor]:
        image, network = self.render(variables, targets.image.shape[-1]), self.features.network
        pixel = (image - targets.image).square().mean((1, 2, 3))
        perceptual = network.distance(network.maps(image), targets.features)
        total = self.pixel * pixel + self.perceptual * perceptual
        return {"pixel": pixel, "perceptual": perceptual, "total": total}
