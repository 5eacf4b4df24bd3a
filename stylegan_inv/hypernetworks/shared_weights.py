"""HyperStyle's hypernetworks: relative changes of the generator's weights from an image and its reconstruction.

Yuval Alaluf, Omer Tov, Ron Mokady, Rinon Gal, Amit H. Bermano, CVPR 2022, arXiv 2111.15666. Official classes:
``SharedWeightsHyperNetResNet`` and ``SharedWeightsHyperNetResNetSeparable`` (yuval-alaluf/hyperstyle, commit a723c73,
models/hypernetworks/), whose keys the state dict has, each shared tensor once.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.encoders.resnet_backbone import resnet34
from stylegan_inv.generators.layers import FullyConnected, normal
from stylegan_inv.generators.variants.low_rank_difference import LEFT, SCALE, SHARED_RIGHT
from stylegan_inv.hypernetworks.tuned_layers import TunedLayer, tuned_layers
from stylegan_inv.hypernetworks.weight_factors import Factors, with_bias, with_constant

#: Standard deviation of the initial weights and biases of the shared layer.
INITIAL_STD = 1 / 40


class SharedWeightsHypernetwork(Backbone):
    """Maps an image and its reconstruction to ``delta`` for each layer, which is used as ``W (1 + delta)``.

    The 3x3 convolutions with the most channels, of which most blocks consist, share the map from a code z to all their
    numbers. For the other convolutions one number is predicted for each kernel, and repeated over its nine taps; with
    ``separable`` the taps differ.

    Paper: numbers of each channel are repeated over the kernel; official code: the shared layers get whole kernels. We
    follow the code.

    Args:
        synthesis: Synthesis network of the generator.
        in_channels: Channels of the input: 6 for two RGB images.
        layers: Layers that are changed, see `tuned_layers.tuned_layers`. Official code: all 3x3 convolutions.
        separable: Whether kernels of the other convolutions are sums of separable ones.
        backbone: Builds the layers of the backbone, called with ``in_channels``.
    """

    def __init__(
        self,
        synthesis: nn.Module,
        in_channels: int = 6,
        *,
        layers: str | Sequence[int] = "convolutions",
        separable: bool = False,
        backbone: Callable[..., Layers] = resnet34,
    ) -> None:
        super().__init__(backbone(in_channels))
        self.layers = tuned_layers(synthesis, layers)
        features = self.channels[-1]
        # Of the whole generator, so that the choice of layers does not change which of them share.
        shapes = [layer.shape for layer in tuned_layers(synthesis, "convolutions")]
        self.shared_shape = max(shapes, key=lambda shape: shape[0] * shape[1])
        blocks: dict[str, nn.Module] = {}
        for layer in self.layers:
            kind: Callable[[TunedLayer, int], nn.Module] = _DirectBlock
            if layer.shape == self.shared_shape:
                kind = _CodeBlock
            elif separable and layer.is_convolution:
                kind = _SeparableBlock
            blocks[str(layer.number)] = kind(layer, features)
        if any(isinstance(block, _CodeBlock) for block in blocks.values()):
            self.shared_weight_hypernet = SharedWeights(features, self.shared_shape)
        self.refinement_blocks = nn.ModuleDict(blocks)

    def forward(self, x: Tensor) -> Factors:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1] to factors of ``W * delta``, see `low_rank_difference`."""
        features = self.maps(x)[-1]
        found: Factors = {}
        for layer in self.layers:
            block = self.refinement_blocks[str(layer.number)]
            if isinstance(block, _CodeBlock):
                left, right = self.shared_weight_hypernet(block(features))
                found[layer.name + SCALE + LEFT], found[SHARED_RIGHT] = left, right
            else:
                found[layer.name + SCALE] = block(features)
        return found


class SharedWeights(nn.Module):
    """Maps a code z ``(B, Z)`` to a kernel: ``h = z w2 + b2`` ``(B, O, Z)``, ``h w1 + b1`` ``(B, O, I, 3, 3)``.

    Official class: ``SharedWeightsHypernet``, whose names "in" and "out" of the channels are swapped: row i of h gives
    the kernels of output channel i.

    Args:
        z_dim: Size Z of the code.
        shape: (O, I, 3, 3).
        rank: Number of columns of h; None for Z.
        initial_std: Standard deviation of the initial weights and biases; None keeps the scale of the code, without
            biases.
    """

    def __init__(
        self, z_dim: int, shape: tuple[int, ...], rank: int | None = None, initial_std: float | None = INITIAL_STD
    ) -> None:
        super().__init__()
        out, inputs, *kernel = shape
        rank = z_dim if rank is None else rank
        self.rows = (out, rank)
        numbers, bias = inputs * kernel[0] * kernel[1], initial_std or 0.0
        self.w1, self.b1 = _normal(initial_std or rank**-0.5, rank, numbers), _normal(bias, numbers)
        self.w2, self.b2 = _normal(initial_std or z_dim**-0.5, z_dim, out * rank), _normal(bias, out * rank)

    def forward(self, z: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the kernel of codes ``(B, Z)`` as factors ``(B, O, rank + 1)`` and ``(B, rank + 1, 9 I)``."""
        h = torch.addmm(self.b2, z, self.w2).view(len(z), *self.rows)
        return with_constant(h), with_bias(self.w1, self.b1, len(z))


class _CodeBlock(nn.Module):
    """Maps the feature map to the code z of a layer (official class: ``HyperRefinementBlock``)."""

    def __init__(self, layer: TunedLayer, features: int) -> None:
        super().__init__()
        inner = features // 4
        self.convs = _convolutions([features, inner, inner, inner, inner, features], first_stride=1)
        self.linear = FullyConnected(features, features)

    def forward(self, x: Tensor) -> Tensor:
        z: Tensor = self.linear(self.convs(x).flatten(1))
        return z


class _DirectBlock(nn.Module):
    """Maps the feature map to one number for each kernel (official class: ``RefinementBlock``)."""

    def __init__(self, layer: TunedLayer, features: int) -> None:
        super().__init__()
        inner, (out, inputs) = features // 2, layer.shape[:2]
        self.shape = (out, inputs, 1, 1)
        pooled = layer.is_convolution
        self.convs = _convolutions([features, inner, inner, features] if pooled else _longer(features))
        last = nn.Conv2d(features, out * inputs, 1)
        self.output = nn.Sequential(nn.AdaptiveAvgPool2d(1), last) if pooled else nn.Sequential(last)

    def forward(self, x: Tensor) -> Tensor:
        delta: Tensor = self.output(self.convs(x))
        return delta.view(len(x), *self.shape)


class _SeparableBlock(nn.Module):
    """Maps the feature map to sums of separable kernels (official class: ``RefinementBlockSeparable``)."""

    def __init__(self, layer: TunedLayer, features: int) -> None:
        super().__init__()
        self.convs = _convolutions(_longer(features))
        self.output = nn.Sequential(_SeparableKernel(layer, features))

    def forward(self, x: Tensor) -> Tensor:
        delta: Tensor = self.output(self.convs(x).flatten(1))
        return delta


class _SeparableKernel(nn.Module):
    """At each tap, the outer product of one vector of each side, then a linear map over either side."""

    def __init__(self, layer: TunedLayer, features: int) -> None:
        super().__init__()
        self.shape = layer.shape
        out, inputs, rows, columns = layer.shape
        self.make_kernel_in = nn.Linear(features, rows * columns * inputs)
        self.make_kernel_out = nn.Linear(features, rows * columns * out)
        self.kernel_linear_in = nn.Linear(inputs, inputs)
        self.kernel_linear_out = nn.Linear(out, out)

    def forward(self, z: Tensor) -> Tensor:
        out, inputs, rows, columns = self.shape
        of_inputs = self.make_kernel_in(z).view(len(z), rows, columns, 1, inputs)
        of_outputs = self.make_kernel_out(z).view(len(z), rows, columns, out, 1)
        kernel = self.kernel_linear_in(of_outputs * of_inputs)
        kernel = self.kernel_linear_out(kernel.transpose(3, 4)).transpose(3, 4)
        delta: Tensor = kernel.permute(0, 3, 4, 1, 2)
        return delta


def _longer(features: int) -> list[int]:
    inner = features // 2
    return [features, inner, inner, inner, features]


def _convolutions(channels: Sequence[int], first_stride: int = 2) -> nn.Sequential:
    """Returns 3x3 convolutions of stride 2, each followed by a leaky ReLU."""
    layers: list[nn.Module] = []
    for k, (i, o) in enumerate(zip(channels, channels[1:], strict=False)):
        layers += [nn.Conv2d(i, o, 3, 2 if k else first_stride, 1), nn.LeakyReLU(0.01, inplace=True)]
    return nn.Sequential(*layers)


def _normal(std: float, *shape: int) -> nn.Parameter:
    return nn.Parameter(normal(*shape, std=std))
