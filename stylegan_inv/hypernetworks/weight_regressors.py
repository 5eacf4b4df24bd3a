"""HyperInverter's hypernetwork: changes of the generator's weights from features of an image and of its W image.

Tan M. Dinh, Anh Tuan Tran, Rang Nguyen, Binh-Son Hua, CVPR 2022, arXiv 2112.00719. Official class: ``HyperNetwork``
(VinAIResearch/HyperInverter, commit 3966220, models/hypernetwork.py), whose keys the state dict has.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.generators.layers import normal
from stylegan_inv.generators.variants.low_rank_difference import LEFT, RIGHT
from stylegan_inv.hypernetworks.tuned_layers import TunedLayer, tuned_layers
from stylegan_inv.hypernetworks.weight_factors import Factors, with_bias, with_constant
from stylegan_inv.utils.checks import whole_number


class WeightRegressors(nn.Module):
    """Predicts ``dW`` for each layer, which is used as ``W + dW``, by one regressor for each layer.

    Args:
        synthesis: Synthesis network of the generator.
        layers: Layers that are changed, see `tuned_layers.tuned_layers`. Official checkpoints: ``with_colours``.
        hidden: Size of the hidden vector. Official checkpoints: 128 and 256; paper: 256.
        features: Channels of the feature maps.
        inner: Channels of the regressors' convolutions.
    """

    def __init__(
        self,
        synthesis: nn.Module,
        *,
        layers: str | Sequence[int] = "with_colours",
        hidden: int = 128,
        features: int = 512,
        inner: int = 64,
    ) -> None:
        super().__init__()
        for name, value in (("hidden", hidden), ("features", features), ("inner", inner)):
            whole_number(f"hypernetwork.{name}", value)
        self.layers = tuned_layers(synthesis, layers)
        self.weight_regressors = nn.ModuleDict(
            {layer.key: WeightRegressor(layer, hidden, features, inner) for layer in self.layers}
        )

    def forward(self, of_w: Tensor, of_image: Tensor) -> Factors:
        """Returns the factors of dW, see `generators.variants.low_rank_difference`.

        Args:
            of_w: Features of the W images, ``(B, L, C, 8, 8)``.
            of_image: Features of the images, of the same shape.
        """
        found: Factors = {}
        for layer in self.layers:
            regressor = self.weight_regressors[layer.key]
            left, right = regressor(of_w[:, layer.feature], of_image[:, layer.feature])
            if left.shape[1:].numel() + right.shape[1:].numel() < math.prod(layer.shape):
                found[layer.name + LEFT], found[layer.name + RIGHT] = left, right
            else:
                found[layer.name] = (left @ right).reshape(-1, *layer.shape)
        return found


class WeightRegressor(nn.Module):
    """Predicts ``dW`` of one layer from a feature map of 8x8.

    With the hidden vector a: ``h = a w1 + b1`` ``(B, I, H)``; ``h w2 + b2`` ``(B, I, O k k)`` is read as
    ``(B, O, I, k, k)`` without a transposition, as in the official code.

    Args:
        layer: The layer.
        hidden: Size H of the hidden vector.
        features: Channels of a feature map.
        inner: Channels of the convolutions.
    """

    def __init__(self, layer: TunedLayer, hidden: int, features: int, inner: int) -> None:
        super().__init__()
        inputs = layer.shape[1]
        numbers = math.prod(layer.shape) // inputs
        self.rows = (inputs, hidden)
        # A bias of the fusion has no effect, as the normalisation follows; official files have one.
        self.fusion = nn.Sequential(nn.Conv2d(2 * features, features, 1), nn.InstanceNorm2d(features), nn.ReLU())
        convolutions: list[nn.Module] = [nn.Conv2d(features, inner, 3, padding=1), nn.ReLU()]
        for channels in (inner, inner, hidden):
            convolutions += [nn.Conv2d(inner, channels, 4, 2, 1), nn.ReLU()]
        self.feature_extractor = nn.Sequential(*convolutions)
        # The official initialisation, kaiming_normal_, takes the second axis as the fan-in of matrices that multiply
        # from the right.
        self.w1, self.b1 = _he(hidden, inputs * hidden), nn.Parameter(torch.zeros(inputs * hidden))
        self.w2, self.b2 = _he(hidden, numbers), nn.Parameter(torch.zeros(numbers))

    def forward(self, of_w: Tensor, of_image: Tensor) -> tuple[Tensor, Tensor]:
        """Returns dW as factors ``(B, I, H + 1)`` and ``(B, H + 1, O k k)``."""
        fused = self.fusion(torch.cat([of_w, of_image], dim=1))
        a = self.feature_extractor(fused).flatten(1)
        h = torch.addmm(self.b1, a, self.w1).view(len(a), *self.rows)
        return with_constant(h), with_bias(self.w2, self.b2, len(a))


def _he(rows: int, columns: int) -> nn.Parameter:
    return nn.Parameter(normal(rows, columns, std=math.sqrt(2 / columns)))
