"""Mixing regularisation: the codes of an image must bear having some of their layers exchanged."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs


def mix_layers(w: Tensor, probability: float = 0.5, first_layer: int = 0) -> Tensor:
    """Codes (B, L, D) with random layers drawn from another image of the batch.

    Each image takes from its neighbour (cyclic; a batch of one from itself), each layer from ``first_layer`` on with
    ``probability``.
    """
    drawn = torch.rand(w.shape[:2], device=w.device) < probability
    drawn[:, :first_layer] = False
    return torch.where(drawn[..., None], w.roll(1, dims=0), w)


class StyleMixing(nn.Module):
    """A loss term on the picture of mixed codes instead of the reconstruction.

    StyleGAN's mixing regularisation (Karras et al. 2019, section 3.1) keeps a generator from relying on layers going
    together; here an encoder learns to put into each layer what belongs to it: the picture of its codes with random
    layers of another image must still satisfy ``term``, say, show the same person. Not in the pSp paper.

    Args:
        term: what must hold; any loss term.
        probability: of a layer to be exchanged.
        first_layer: layers before this one are never exchanged; what ``term`` is about should be in these. By default
            the layers from 64 px on are, which pSp exchanges to show variants (``latent_mask`` 8-17).
    """

    def __init__(self, term: nn.Module, probability: float = 0.5, first_layer: int = 8) -> None:
        super().__init__()
        if not 0 < probability <= 1 or first_layer < 0:
            raise UserError(
                f"mixing: probability={probability}, first_layer={first_layer}; expected a number in (0, 1], and at "
                f"least 0"
            )
        self.term, self.probability, self.first_layer = term, probability, first_layer

    def forward(self, inputs: LossInputs) -> Tensor:
        """The term's value for the mixed codes."""
        if inputs.w is None or inputs.synthesis is None:
            raise UserError("mixing: got no codes or no synthesis to make pictures of them; set weight=0")
        if self.first_layer >= inputs.w.shape[1]:
            raise UserError(f"mixing: first_layer={self.first_layer}, expected less than {inputs.w.shape[1]} layers")
        mixed = mix_layers(inputs.w, self.probability, self.first_layer)
        return self.term(inputs.with_image(inputs.synthesis(mixed), mixed))
