"""Identity loss: cosine distance of embeddings.

The papers' own choices of network are in `arcface` (faces) and `moco` (everything else); the formula is this one.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.losses.compose import LossInputs, as_network, check_region
from stylegan_inv.utils.frozen_module import Frozen


class IdentityLoss(nn.Module):
    """Batch mean of ``1 - <f(image), f(target)>`` (pSp, equation 4); no gradient through the target.

    Args:
        network: anything with ``embed(image) -> (B, E)`` of unit length, or the name or file of a face network.
        region: ``whole`` or ``interest`` (both images multiplied by the mask).
    """

    compares = "faces"

    def __init__(self, network: nn.Module | str | Path = "face_train", region: str = "whole") -> None:
        super().__init__()
        self.frozen = Frozen(as_network(network))
        self.region = check_region(region, ("whole", "interest"))

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean cosine distance."""
        return (1 - self._cosine(inputs, "image", "target")).mean()

    def improvement(self, inputs: LossInputs) -> Tensor:
        """How much nearer the target's identity is to the reconstruction than to the encoder's input.

        Batch mean of ``<f(image), f(target)> - <f(target), f(source)>``: a figure to log and not a loss
        (``id_improve`` of the official code). Of interest where the source is not the target.
        """
        source = "target" if inputs.source is inputs.target else "source"
        return (self._cosine(inputs, "image", "target") - self._cosine(inputs, "target", source)).mean()

    def _cosine(self, inputs: LossInputs, a: str, b: str) -> Tensor:
        return (self._embed(inputs, a) * self._embed(inputs, b)).sum(dim=1)

    def _embed(self, inputs: LossInputs, which: str) -> Tensor:
        network = self.frozen.network
        if hasattr(network, "embed_features"):  # shares the backbone's pass with the perceptual term
            return network.embed_features(inputs.once(which, self.region, network, network.features))
        return inputs.once(which, self.region, network, network.embed)
