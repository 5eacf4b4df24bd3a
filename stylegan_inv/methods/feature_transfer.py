"""Attribute-level feature transfer of Image2StyleGAN++ (section 5.6): activations of a region from another image."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.generators.variants.feature_copy import transfer_features
from stylegan_inv.methods.common.base import Step
from stylegan_inv.methods.common.per_image import Optimised, take_rows
from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP
from stylegan_inv.optim.descent import State
from stylegan_inv.utils.frozen_module import Frozen


class FeatureTransfer(Image2StyleGANPP):
    """The image with the second image's activations inside the mask.

    Args:
        resolutions: Of the layers whose activations are copied.
        **kwargs: See :class:`Image2StyleGANPP`; the parts embed each image by itself.
    """

    def __init__(self, *, resolutions: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.generator.synthesis, SynthesisNetwork):
            raise UserError("feature transfer: expected a StyleGAN2 generator, got one of the first StyleGAN")
        self.synthesis, self.resolutions = Frozen(self.generator.synthesis), tuple(resolutions)
        if self.needs_second or self.needs_mask:
            raise UserError("feature transfer embeds both images alone first; expected parts without mask and second")
        self.needs_second = self.needs_mask = True

    def prepare(self, images: Tensor, second: Tensor | None, mask: Tensor | None) -> dict[str, Any]:  # noqa: D102
        given = super().prepare(images, second, mask)
        # Both are embedded in one batch.
        return {"target": torch.cat([images, given["second"]]), "second": None, "mask": given["mask"]}

    @torch.no_grad()
    def result(self, state: State, given: Mapping[str, Any]) -> Optimised:  # noqa: D102
        both = super().result(state, given)
        half = len(both.w) // 2
        noise = self.maps(state.variables)
        image = transfer_features(
            self.synthesis.network,
            both.w[:half],
            both.w[half:],
            given["mask"],
            self.resolutions,
            [m[:half] for m in noise],
            [m[half:] for m in noise],
        )
        first = take_rows(both, slice(0, half))
        first.steps = [*(first.steps or []), Step(first.w, image, name="transfer")]
        first.image = image
        return first
