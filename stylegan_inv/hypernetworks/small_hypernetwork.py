"""A hypernetwork for the embedded 64-px generator, which predicts relative changes of low rank as HyperStyle does."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from torch import Tensor, nn

from stylegan_inv.encoders.small import SmallEncoder
from stylegan_inv.generators.variants.low_rank_difference import LEFT, RIGHT, SCALE
from stylegan_inv.hypernetworks.shared_weights import SharedWeights
from stylegan_inv.hypernetworks.tuned_layers import tuned_layers
from stylegan_inv.hypernetworks.weight_factors import Factors
from stylegan_inv.utils.checks import whole_number


class SmallHypernetwork(nn.Module):
    """Maps an image and its reconstruction to ``delta`` for each layer, which is used as ``W (1 + delta)``.

    `SmallEncoder` maps the pair to one code for each layer. Layers of one shape share the map from codes to changes of
    rank ``rank``, as HyperStyle's layers of 512 channels do. The changes are zero before training.

    Args:
        synthesis: Synthesis network of the generator.
        in_channels: Channels of the input: 6 for two RGB images.
        layers: Layers that are changed, see `tuned_layers.tuned_layers`.
        code: Size of the code of a layer.
        rank: Rank of the changes.
        width: See `SmallEncoder`.
        pretrained: See `SmallEncoder`.
        fusion: See `SmallEncoder`.
        encoder_rank: Rank of the map to the codes, see `SmallEncoder`.
    """

    def __init__(
        self,
        synthesis: nn.Module,
        in_channels: int = 6,
        *,
        layers: str | Sequence[int] = "convolutions",
        code: int = 48,
        rank: int = 16,
        width: int = 24,
        pretrained: str | Path | None = None,
        fusion: str = "difference",
        encoder_rank: int | None = 96,
    ) -> None:
        super().__init__()
        whole_number("hypernetwork.code", code)
        whole_number("hypernetwork.rank", rank)
        self.layers = tuned_layers(synthesis, layers)
        self.encoder = SmallEncoder(
            len(self.layers), code, in_channels, width=width, pretrained=pretrained, fusion=fusion, rank=encoder_rank
        )
        shapes = {_group(layer.shape): layer.shape for layer in self.layers}
        self.groups = nn.ModuleDict(
            {name: SharedWeights(code, shape, rank, initial_std=None) for name, shape in shapes.items()}
        )

    def forward(self, x: Tensor) -> Factors:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to factors of ``W * delta``, see `low_rank_difference`."""
        codes = self.encoder(x)
        found: Factors = {}
        for k, layer in enumerate(self.layers):
            left, right = self.groups[_group(layer.shape)](codes[:, k])
            found[layer.name + SCALE + LEFT], found[layer.name + SCALE + RIGHT] = left, right
        return found


def _group(shape: tuple[int, ...]) -> str:
    return "x".join(map(str, shape))
