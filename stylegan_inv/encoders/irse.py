"""Improved residual networks with squeeze and excitation: pSp's backbone and face recognition networks.

Official classes: ``Backbone``, ``bottleneck_IR`` and ``bottleneck_IR_SE`` (eladrich/pixel2style2pixel,
models/encoders/model_irse.py, after TreB1eN/InsightFace_Pytorch). Papers: ArcFace (Deng et al., CVPR 2019, arXiv
1801.07698), squeeze and excitation (Hu et al., CVPR 2018, arXiv 1709.01507), CurricularFace (Huang et al., CVPR 2020,
arXiv 2004.00288).
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.backbone import Backbone, Layers, residual_groups, start_from
from stylegan_inv.errors import UserError

CHANNELS = (64, 128, 256, 512)
UNITS_50 = (3, 4, 14, 3)
UNITS_101 = (3, 13, 30, 3)
#: Side of the aligned faces of recognition networks, in pixels.
FACE_SIZE = 112
EMBEDDING_DIM = 512


def ir_se(
    in_channels: int = 3,
    *,
    channels: Sequence[int] = CHANNELS,
    units: Sequence[int] = UNITS_50,
    se: bool = True,
    pretrained: str | Path | None = None,
    extra_channels: str = "zero",
) -> Layers:
    """Builds the layers of IR-SE50, or of a similar network.

    Args:
        in_channels: Channels of the input.
        channels: Channels of the four groups; the stem has those of the first.
        units: Number of residual units in each group. A group starts with a stride of 2.
        se: Use squeeze and excitation in each unit.
        pretrained: Initial weights: the file of an ArcFace network of the same size (``model_ir_se50.pth``), or its
            name in the weights table, ``ir-se50``.
        extra_channels: Weights of further input images, see `backbone.start_from`.
    """
    groups = residual_groups(partial(ResidualUnit, se=se), channels[0], channels, units, first_stride=2)
    stem = nn.Sequential(
        nn.Conv2d(in_channels, channels[0], 3, 1, 1, bias=False), nn.BatchNorm2d(channels[0]), nn.PReLU(channels[0])
    )
    layers = Layers(in_channels, {"input_layer": stem}, groups, tuple(channels))
    if pretrained is not None:
        start_from(
            layers,
            pretrained,
            first_conv="input_layer.0.weight",
            ignored="output_layer.",
            extra_channels=extra_channels,
        )
    return layers


class FaceRecognition(Backbone):
    """A face recognition network.

    The default is the ArcFace network of pSp's identity loss (``model_ir_se50.pth``); see also `curricularface`.

    Args:
        units: Number of residual units in each group.
        se: Use squeeze and excitation in each unit.
        affine: Whether the last batch norm has weights.
        dropout: Probability of the dropout before the linear layer.
        channels: Channels of the four groups.
    """

    def __init__(
        self,
        units: Sequence[int] = UNITS_50,
        se: bool = True,
        affine: bool = True,
        dropout: float = 0.6,
        channels: Sequence[int] = CHANNELS,
    ) -> None:
        super().__init__(ir_se(3, channels=channels, units=units, se=se))
        last = self.channels[-1]
        self.output_layer = nn.Sequential(
            nn.BatchNorm2d(last),
            nn.Dropout(dropout),
            nn.Flatten(),
            nn.Linear(last * (FACE_SIZE // 16) ** 2, EMBEDDING_DIM),
            nn.BatchNorm1d(EMBEDDING_DIM, affine=affine),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps aligned RGB faces ``(B, 3, 112, 112)`` in [-1, 1] to embeddings ``(B, 512)`` of unit length."""
        if x.shape[-2:] != (FACE_SIZE, FACE_SIZE):
            raise UserError(
                f"got faces of shape {tuple(x.shape)}, expected (B, 3, {FACE_SIZE}, {FACE_SIZE}); crop and resize them"
            )
        return F.normalize(self.output_layer(self.maps(x)[-1]), dim=1)


def curricularface() -> FaceRecognition:
    """Builds CurricularFace's IR-101 (49 units without squeeze and excitation), the papers' metric of identity."""
    return FaceRecognition(UNITS_101, se=False, affine=False, dropout=0.4)


class ResidualUnit(nn.Module):
    """A residual unit: BN, 3x3, PReLU, strided 3x3, BN, squeeze and excitation, without an activation after the sum.

    Args:
        in_channels: I.
        out_channels: O; if it differs from I, the shortcut is a 1x1 convolution with BN.
        stride: Stride of the second convolution.
        se: Use squeeze and excitation.
    """

    def __init__(self, in_channels: int, out_channels: int, stride: int, se: bool) -> None:
        super().__init__()
        self.stride = stride
        self.shortcut_layer: nn.Module | None = None
        if in_channels != out_channels:
            self.shortcut_layer = nn.Sequential(
                nn.Conv2d(in_channels, out_channels, 1, stride, bias=False), nn.BatchNorm2d(out_channels)
            )
        self.res_layer = nn.Sequential(
            nn.BatchNorm2d(in_channels),
            nn.Conv2d(in_channels, out_channels, 3, 1, 1, bias=False),
            nn.PReLU(out_channels),
            nn.Conv2d(out_channels, out_channels, 3, stride, 1, bias=False),
            nn.BatchNorm2d(out_channels),
            *([_SqueezeExcite(out_channels)] if se else []),
        )

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, I, h, w)`` to ``(B, O, h / stride, w / stride)``."""
        # The official shortcut is a strided 1x1 max-pooling, which stores an 8-byte index for each value.
        shortcut = x[..., :: self.stride, :: self.stride] if self.shortcut_layer is None else self.shortcut_layer(x)
        residual: Tensor = self.res_layer(x)
        return residual + shortcut


class _SqueezeExcite(nn.Module):
    """Scales each channel by a factor in (0, 1) computed from the means of all channels (arXiv 1709.01507)."""

    def __init__(self, channels: int, reduction: int = 16) -> None:
        super().__init__()
        hidden = max(channels // reduction, 1)
        self.fc1 = nn.Conv2d(channels, hidden, 1, bias=False)
        self.fc2 = nn.Conv2d(hidden, channels, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return x * torch.sigmoid(self.fc2(F.relu(self.fc1(x.mean(dim=(2, 3), keepdim=True)))))
