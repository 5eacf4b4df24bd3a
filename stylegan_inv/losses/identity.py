"""Identity loss: cosine distance of embeddings.

`arcface` and `moco` hold the networks that the papers use for faces and for other domains; both use this formula.
"""

from __future__ import annotations

from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.losses.compose import ImageName, LossInputs, check_region
from stylegan_inv.losses.feature_networks import FeatureEmbeddingNetwork, as_network
from stylegan_inv.utils.domains import domain_of
from stylegan_inv.utils.frozen_module import Frozen


class IdentityLoss(nn.Module):
    """Batch mean of ``1 - <f(image), f(target)>`` (pSp, equation 4); the target receives no gradient.

    Args:
        network: An `EmbeddingNetwork` or a `FeatureEmbeddingNetwork`, or the name or file of a face network.
        region: ``whole`` or ``interest`` (both images are multiplied by the mask).
    """

    compares = "faces"

    def __init__(self, network: nn.Module | str | Path = "face_train", region: str = "whole") -> None:
        super().__init__()
        self.frozen = Frozen(as_network(network))
        self.region = check_region(region, ("whole", "interest"))

    @property
    def domain(self) -> str | None:
        """Domain of the network; None for any."""
        return domain_of(self.frozen.network)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean cosine distance."""
        return (1 - self._cosine(inputs, "image", "target")).mean()

    def improvement(self, inputs: LossInputs) -> Tensor:
        """Returns how much closer the target's identity is to the reconstruction than to the encoder's input.

        This is the batch mean of ``<f(image), f(target)> - <f(target), f(source)>``: a value for the log, not a loss
        (``id_improve`` of the official code). It is informative if the source differs from the target.
        """
        source: ImageName = "target" if inputs.source is inputs.target else "source"
        return (self._cosine(inputs, "image", "target") - self._cosine(inputs, "target", source)).mean()

    def _cosine(self, inputs: LossInputs, a: ImageName, b: ImageName) -> Tensor:
        return (self._embed(inputs, a) * self._embed(inputs, b)).sum(dim=1)

    def _embed(self, inputs: LossInputs, name: ImageName) -> Tensor:
        network = self.frozen.network
        if isinstance(network, FeatureEmbeddingNetwork):  # shares the forward pass with the perceptual term
            assert isinstance(network, nn.Module)
            return network.embed_features(inputs.compute_once(name, self.region, network, network.features))
        embedding: Tensor = inputs.compute_once(name, self.region, network, network.embed)
        return embedding
