"""Image2StyleGAN: How to Embed Images Into the StyleGAN Latent Space?

Rameen Abdal, Yipeng Qin, Peter Wonka, ICCV 2019, arXiv 1904.03189. No official code.

Differences: many images at once, each with its own early stop; the config for the embedded world takes fewer and
larger steps than the paper.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.per_image import PerImageMethod
from stylegan_inv.optim.descent import EarlyStop, Stage, Variables


class Image2StyleGAN(PerImageMethod):
    """Descend in W+ on perceptual distance and mean squared error (equations 1 and 2).

    Args:
        steps: Steps (the paper: 5,000).
        rate: Learning rate of Adam with betas (0.9, 0.999).
        pixel: Weight of the mean squared error (the paper: 1).
        perceptual: Weight of the perceptual distance (the paper: 1 for each of four VGG-16 layers).
        stop: When an image is done early.
        **kwargs: See :class:`PerImageMethod`.
    """

    def __init__(
        self,
        *,
        steps: int = 5000,
        rate: float = 0.01,
        pixel: float = 1.0,
        perceptual: float = 1.0,
        stop: EarlyStop | None = None,
        **kwargs: Any,
    ) -> None:
        if steps < 1:
            raise UserError(f"method.steps={steps}: expected a whole number of at least 1")
        super().__init__(**kwargs)
        self.steps, self.rate, self.stop = steps, rate, stop or EarlyStop()
        self.pixel, self.perceptual = pixel, perceptual

    def stage(self, number: int, given: Mapping[str, Any], before: Tensor) -> Stage:  # noqa: D102
        return Stage("W+", self.steps, ("w",), self._loss, given, lambda step: self.rate, stop=self.stop)

    def _loss(self, variables: Variables, given: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        picture, network = self.render(variables, given["target"].shape[-1]), self.features.network
        pixel = (picture - given["target"]).square().mean((1, 2, 3))
        perceptual = network.distance(network.maps(picture), given["features"])
        total = self.pixel * pixel + self.perceptual * perceptual
        return {"pixel": pixel, "perceptual": perceptual, "total": total}
