"""Mixing regularisation: a loss on images whose latent codes exchange some layers within the batch."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.utils.checks import real_number, whole_number
from stylegan_inv.utils.domains import domain_of


def mix_layers(w: Tensor, probability: float = 0.5, first_layer: int = 0) -> Tensor:
    """Returns codes in which random layers are replaced by those of another image of the batch.

    Image ``i`` takes layers from image ``i - 1`` (cyclic, so a batch of one is unchanged).

    Args:
        w: (B, L, D).
        probability: Probability of each layer to be replaced.
        first_layer: Earlier layers are never replaced.

    Returns:
        (B, L, D).
    """
    replaced = torch.rand(w.shape[:2], device=w.device) < probability
    replaced[:, :first_layer] = False
    return torch.where(replaced[..., None], w.roll(1, dims=0), w)


class StyleMixing(nn.Module):
    """A loss term evaluated on images of mixed codes instead of the reconstructions.

    StyleGAN's mixing regularisation (Karras et al. 2019, section 3.1) decorrelates the layers of a generator. Here it
    makes an encoder put into each layer what that layer controls: after random layers are replaced by those of another
    image, the result must still satisfy ``term``, for example show the same person. It is not part of the pSp paper.

    Args:
        term: Any loss term.
        probability: Probability of each layer to be replaced, in (0, 1].
        first_layer: Earlier layers are never replaced; they should contain what ``term`` depends on. The default
            replaces layers from 64 px on, those that pSp replaces to show variants (``latent_mask`` 8-17).
    """

    def __init__(self, term: nn.Module, probability: float = 0.5, first_layer: int = 8) -> None:
        super().__init__()
        self.term = term
        self.probability = real_number("mixing: probability", probability, above=0, most=1)
        self.first_layer = whole_number("mixing: first_layer", first_layer, least=0)

    @property
    def domain(self) -> str | None:
        """Domain of the term; None for any."""
        return domain_of(self.term)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the value of the term for the mixed codes.

        Raises:
            UserError: The inputs have no codes or no synthesis, or the codes have too few layers.
        """
        if inputs.w is None or inputs.synthesis is None:
            raise UserError("mixing: got no codes or no synthesis to render them; give loss.mixing.weight=0")
        if self.first_layer >= inputs.w.shape[1]:
            raise UserError(
                f"loss.mixing.first_layer={self.first_layer}, expected less than {inputs.w.shape[1]} layers"
            )
        mixed = mix_layers(inputs.w, self.probability, self.first_layer)
        value: Tensor = self.term(inputs.with_image(inputs.synthesis(mixed), mixed))
        return value
