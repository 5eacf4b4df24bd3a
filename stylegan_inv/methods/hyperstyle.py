"""HyperStyle: StyleGAN Inversion with HyperNetworks for Real Image Editing.

Yuval Alaluf, Omer Tov, Ron Mokady, Rinon Gal, Amit H. Bermano, CVPR 2022, arXiv 2111.15666.
Official code: yuval-alaluf/hyperstyle, commit a723c73.

Differences: The codes come from any method, in W or W+; the official code takes them from an encoder into W. Only the
hypernetwork that is used is built. The channels of the second image in the pretrained first convolution start at 0;
``hypernetwork.backbone.extra_channels=normal`` leaves them at N(0, 1), as the official code does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.hypernetworks.weight_factors import Factors, accumulated, with_gradient
from stylegan_inv.methods.common.base import Inversion, Step, pool
from stylegan_inv.methods.common.weight_prediction import WeightPrediction
from stylegan_inv.utils.checks import whole_number


@dataclass
class WeightStep(Step):
    """One iteration of the refinement.

    Attributes:
        weights: Sum of the predictions so far, as factors without a history; None before the first.
    """

    weights: Factors | None = None


class HyperStyle(WeightPrediction):
    """Refines the weights of the generator iteratively, and keeps the codes.

    With codes w and their image ``y_0 = G(w)`` (section 3.3):

        D_t = D_{t-1} + H(x, y_{t-1}),    y_t = G(w, W (1 + D_t)).

    Args:
        hypernetwork: Called with the synthesis network and ``in_channels=6``; returns a module (B, 6, H, W) -> factors,
            see `hypernetworks`.
        iterations: Number N of predictions. Official code: 5 in training and inversion.
        **kwargs: Arguments of `WeightPrediction`.
    """

    def __init__(self, *, hypernetwork: Callable[..., nn.Module], iterations: int = 5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.iterations = whole_number("method.iterations", iterations)
        self.hypernetwork = hypernetwork(self.generator.synthesis, in_channels=6)

    def default_input_size(self) -> int:
        """Returns the resolution of the generator, at most 256."""
        return min(self.generator.resolution, 256)

    def refine(self, images: Tensor) -> Iterator[tuple[WeightStep, Inversion]]:
        """Yields each step, the start first, with the start's inversion; no gradient flows between steps."""
        start = self.embed(images)
        total: Factors | None = None
        image = start.image
        yield WeightStep(start.w, image, "start"), start
        for number in range(1, self.iterations + 1):
            predicted = self.hypernetwork(torch.cat([images, pool(image.detach(), images.shape[-1])], dim=1))
            if torch.is_grad_enabled():
                weights, total = with_gradient(total, predicted), accumulated(total, predicted)
            else:
                weights = total = accumulated(total, predicted)
            image = self.render(start, weights)
            yield WeightStep(start.w, image, f"iteration {number}", total), start

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        found = list(self.refine(images))
        (last, start), steps = found[-1], [step for step, _ in found]
        return Inversion(last.w, last.image, steps=list(steps), noise=start.noise, weights=last.weights)

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yields the losses of each iteration, whose gradients are accumulated, as in the official code."""
        for step, _ in self.refine(self.source(batch)):
            if step.weights is not None:
                yield self.losses(step, batch)

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        return [{"params": list(self.hypernetwork.parameters()), "name": "hypernetwork"}]
