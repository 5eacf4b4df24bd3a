"""IntereStyle: Encoding an Interest Region for Robust StyleGAN Inversion.

Seung-Jun Moon, Gyeong-Moon Park, ECCV 2022, arXiv 2209.10811.
Official code: seungjun-moon/interestyle, commit d414b95 (a fork of ReStyle without weights, masks or training command).

Differences between paper and official code (training/coach_restyle_psp.py); the defaults follow the paper,
``method=interestyle_released`` the code. Inversion needs no mask.

* Filter: paper, the uninterest region only; code, the whole image (``filter_region``).
* Back-propagation: paper, every step as in ReStyle; code, the last step only (``backprop``).
* Interest disentanglement: paper, part of the loss; code, commented out (``disentanglement=0``).
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import Step
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.utils.checks import one_of


def low_pass(images: Tensor, sigma: float) -> Tensor:
    """Filters images (B, C, H, W) with a Gaussian of standard deviation ``sigma`` in pixels, truncated at 3 sigma."""
    size = 2 * min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1) + 1
    blurred: Tensor = gaussian_blur(images, [size, size], [sigma, sigma])
    return blurred


class IntereStyle(ReStyle):
    """ReStyle that is trained to use its codes for the interest region.

    Uninterest filter: at each step the uninterest region of the encoder's input is low-pass filtered, strongly at the
    first step and not at all at the last one.

    Interest disentanglement: let Delta_b be the residual that the encoder predicts for the image paired with its own
    interest region (the rest grey). It should change the uninterest region only, so the reconstruction of
    ``w_N + Delta_b`` is compared with the image in the interest region. Only the encoder gets a gradient from it.

    The loss terms should be restricted to the interest region (``region: interest``).

    Args:
        radii: Standard deviation of the filter at each step, in pixels of an image of 256; 0 for no filter.
        filter_region: Region that is filtered: ``uninterest`` (paper) or ``whole`` (official code).
        backprop: Steps that are back-propagated: ``all`` (paper) or ``last`` (official code).
        disentanglement: Weight of the interest disentanglement; 0 disables it.
        blur: Filter of images (B, 3, H, W), called with a standard deviation in pixels of these images.
        iterations: Number of steps; must be the number of radii. None for that number.
        **kwargs: Arguments of `ReStyle`.
    """

    required_entries = ("mask",)

    def __init__(
        self,
        *,
        radii: Sequence[float] = (16, 9, 4, 1, 0),
        filter_region: str = "uninterest",
        backprop: str = "all",
        disentanglement: float = 0.05,
        blur: Callable[[Tensor, float], Tensor] = low_pass,
        iterations: int | None = None,
        **kwargs: Any,
    ) -> None:
        if not radii or min(radii) < 0 or iterations not in (None, len(radii)):
            raise UserError(
                f"method.radii={list(radii)}, method.iterations={iterations}: expected radii of at least 0, one for "
                "each iteration"
            )
        super().__init__(iterations=len(radii), **kwargs)
        self.radii = tuple(radii)
        self.filter_region = one_of("method.filter_region", filter_region, ("uninterest", "whole"))
        self.backprop = one_of("method.backprop", backprop, ("all", "last"))
        self.disentanglement, self.blur = disentanglement, blur
        self._mask: Tensor | None = None  # of the current training batch

    def views(self, images: Tensor) -> Iterator[Tensor]:
        """Yields the filtered images in training, the images themselves in inversion."""
        if self._mask is None:
            yield from super().views(images)
            return
        for radius in self.radii:
            if radius == 0:
                yield images
                continue
            blurred = self.blur(images, radius * images.shape[-1] / 256)
            yield blurred if self.filter_region == "whole" else torch.lerp(blurred, images, self._mask)

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yields the losses of each step that is back-propagated; the last one includes the disentanglement."""
        if "mask" not in batch:
            raise UserError(
                f"interestyle: the data give {', '.join(batch)} but no mask of the interest region, which training "
                "needs; give dataset.mask_root=… or dataset=synthfaces"
            )
        images, self._mask = self.source(batch), batch["mask"]
        try:
            for number, step in enumerate(self._steps(images), start=1):
                last = number == self.iterations
                if not last and self.backprop == "last":
                    continue
                terms = self.losses(step, batch)
                if last and self.disentanglement:
                    terms = self._with_disentanglement(terms, step, images, batch)
                yield terms
        finally:
            self._mask = None

    def _steps(self, images: Tensor) -> Iterator[Step]:
        """Yields the steps of the refinement, without a graph for those that are not back-propagated."""
        steps = self.refine(images)
        for number in range(1, self.iterations + 1):
            with torch.set_grad_enabled(self.backprop == "all" or number == self.iterations):
                step = next(steps)
            yield step

    def _with_disentanglement(
        self, terms: dict[str, Tensor], step: Step, images: Tensor, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        w = step.w.detach() + self.encoder(torch.cat([images, images * batch["mask"]], dim=1))
        image = self.generator.synthesis(w, noise=self.training_noise)
        loss = self.losses(Step(w, image), batch)["total"]
        return {**terms, "disentanglement": loss, "total": terms["total"] + self.disentanglement * loss}
