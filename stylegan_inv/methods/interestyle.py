"""IntereStyle: Encoding an Interest Region for Robust StyleGAN Inversion.

Seung-Jun Moon, Gyeong-Moon Park, ECCV 2022, arXiv 2209.10811.
Official code: seungjun-moon/interestyle, commit d414b95 (a fork of ReStyle's; no weights, masks or training command).

Paper and code differ. The defaults follow the paper's description: only the uninteresting region is filtered, and as in
ReStyle every step is back-propagated. The code filters the whole image and back-propagates the last step alone, and its
released trainer has the disentanglement commented out: ``method=interestyle_released``. No mask is needed to invert.
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


def low_pass(images: Tensor, sigma: float) -> Tensor:
    """Images (B, C, H, W) under a Gaussian of standard deviation ``sigma`` pixels, cut at 3 sigma."""
    size = 2 * min(math.ceil(3 * sigma), min(images.shape[-2:]) - 1) + 1
    return gaussian_blur(images, [size, size], [sigma, sigma])


class IntereStyle(ReStyle):
    """ReStyle that is trained to spend its codes on the interest region.

    Uninterest filter: at step t the encoder sees the image with the uninteresting region low-pass filtered, first
    strongly and at last not at all. Interest disentanglement: what the encoder adds when it sees the image beside its
    own interest region (the rest grey), Delta_b, may only change the uninteresting region; the picture of
    ``w_N + Delta_b`` must still agree with the image inside the mask, and only the encoder learns from that.

    The loss terms should look at the interest region (``region: interest``).

    Args:
        radii: Standard deviation of the filter at each step, in pixels of an image of 256; 0 is no filter.
        filter_region: What is filtered: ``uninterest`` (paper) or ``whole`` (released code).
        backprop: Which steps are back-propagated: ``all`` (paper, as ReStyle) or ``last`` (released code).
        disentanglement: Weight of the interest disentanglement; 0 leaves it out.
        blur: Filter of (B, 3, H, W) images with a radius in their own pixels.
        **kwargs: See `ReStyle`; ``iterations`` is the number of radii.
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
        if filter_region not in ("uninterest", "whole") or backprop not in ("all", "last"):
            raise UserError(
                f"method.filter_region={filter_region!r}, method.backprop={backprop!r}: expected 'uninterest' or "
                "'whole', and 'all' or 'last'"
            )
        if not radii or min(radii) < 0 or iterations not in (None, len(radii)):
            raise UserError(
                f"method.radii={list(radii)}, method.iterations={iterations}: expected radii of at least 0, one for "
                "each iteration"
            )
        super().__init__(iterations=len(radii), **kwargs)
        self.radii, self.filter_region, self.backprop = tuple(radii), filter_region, backprop
        self.disentanglement, self.blur = disentanglement, blur
        self._mask: Tensor | None = None  # of the batch in training

    def views(self, images: Tensor) -> Iterator[Tensor]:
        """In training the filtered images, strongest first; else the images themselves."""
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
        """The losses of the steps that are back-propagated; the last of them with the disentanglement."""
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
                    terms = self._disentangle(terms, step, images, batch)
                yield terms
        finally:
            self._mask = None

    def _steps(self, images: Tensor) -> Iterator[Step]:
        """The refinement, without a graph for the steps that nothing is learnt from."""
        steps = self.refine(images)
        for number in range(1, self.iterations + 1):
            with torch.set_grad_enabled(self.backprop == "all" or number == self.iterations):
                step = next(steps)
            yield step

    def _disentangle(
        self, terms: dict[str, Tensor], step: Step, images: Tensor, batch: Mapping[str, Tensor]
    ) -> dict[str, Tensor]:
        w = step.w.detach() + self.encoder(torch.cat([images, images * batch["mask"]], dim=1))
        picture = self.generator.synthesis(w, noise=self.training_noise)
        extra = self.losses(Step(w, picture), batch)["total"]
        return {**terms, "disentanglement": extra, "total": terms["total"] + self.disentanglement * extra}
