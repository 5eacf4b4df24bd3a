"""Identity loss: cosine distance of face embeddings."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from torch import Tensor, nn

from stylegan_inv.encoders.frozen import Frozen
from stylegan_inv.losses.compose import LossInputs, as_network, check_region


class IdentityLoss(nn.Module):
    """Batch mean of ``1 - <f(image), f(target)>`` (pSp, equation 4).

    Args:
        network: anything with ``embed(image) -> (B, E)`` of unit length, or the name or file of a face network.
        region: ``whole`` or ``interest`` (both images multiplied by the mask).
    """

    def __init__(self, network: nn.Module | str | Path = "face_train", region: str = "whole") -> None:
        super().__init__()
        self.frozen = Frozen(as_network(network))
        self.region = check_region(region)

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean cosine distance."""
        similarity = (self._embed(inputs, "image") * self._embed(inputs, "target")).sum(dim=1)
        return (1 - similarity).mean()

    def _embed(self, inputs: LossInputs, which: str) -> Any:
        network = self.frozen.network
        if hasattr(network, "embed_features"):  # shares the backbone's pass with the perceptual term
            return network.embed_features(inputs.once(which, self.region, network, network.features))
        return inputs.once(which, self.region, network, network.embed)
