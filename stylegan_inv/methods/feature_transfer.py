"""Attribute-level feature transfer of Image2StyleGAN++ (section 5.6): activations of a region from another image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators.synthesis import SynthesisNetwork
from stylegan_inv.generators.variants.feature_copy import transfer_features
from stylegan_inv.methods.common.base import Step
from stylegan_inv.methods.common.per_image import InputImages, OptimizedInversion
from stylegan_inv.methods.image2stylegan_pp import Image2StyleGANPP
from stylegan_inv.optim.optimization_state import OptimizationState
from stylegan_inv.utils.frozen_module import Frozen


class FeatureTransfer(Image2StyleGANPP):
    """Embeds the target and the reference, then copies activations of the reference inside the mask.

    Args:
        resolutions: Resolutions of the layers whose activations are copied.
        **kwargs: See :class:`Image2StyleGANPP`; the stages embed each image alone.
    """

    def __init__(self, *, resolutions: Sequence[int], **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if not isinstance(self.generator.synthesis, SynthesisNetwork):
            raise UserError("feature transfer: expected a StyleGAN2 generator, got one of the first StyleGAN")
        self.synthesis, self.resolutions = Frozen(self.generator.synthesis), tuple(resolutions)
        if any(stage.needs_reference or stage.needs_mask for stage in self.stages.values()):
            raise UserError("feature transfer embeds each image alone; expected stages without masks and references")

    @property
    def needs_reference(self) -> bool:
        """Always."""
        return True

    @property
    def needs_mask(self) -> bool:
        """Always."""
        return True

    def prepare(self, inputs: InputImages) -> InputImages:
        """Returns targets and references as one batch of 2 B images; the mask (B, 1, H, W) is for `result` alone."""
        assert inputs.reference is not None
        return InputImages(torch.cat([inputs.image, inputs.reference]), inputs.mask)

    @torch.no_grad()
    def result(self, state: OptimizationState, inputs: InputImages) -> OptimizedInversion:
        """Returns the inversion of the targets; its image has the activations of the references."""
        both = super().result(state, inputs)
        assert inputs.mask is not None
        half = len(both.w) // 2
        noise = self.noise_maps(state.variables)
        image = transfer_features(
            self.synthesis.network,
            both.w[:half],
            both.w[half:],
            inputs.mask,
            self.resolutions,
            [m[:half] for m in noise],
            [m[half:] for m in noise],
        )
        found = both.select(slice(0, half))
        found.steps = [*(found.steps or []), Step(found.w, image, name="transfer")]
        found.image = image
        return found
