"""Maps feature maps to styles, with the progressive rule of e4e; the common part of `fpn` and `single_level`.

Paper: pSp (Richardson et al., CVPR 2021, arXiv 2008.00951), "map2style"; official class of the block:
``GradualStyleBlock`` (eladrich/pixel2style2pixel, models/encoders/psp_encoders.py).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from stylegan_inv.encoders.backbone import Backbone, Layers
from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import FullyConnected
from stylegan_inv.utils.checks import whole_number


class MapToStyle(nn.Module):
    """Maps a feature map to a style by convolutions that halve it, and a linear layer with equalised learning rate.

    Args:
        in_channels: Channels C of the map.
        w_dim: Size D of the style.
        size: Largest side of the map; there are ceil(log2(size)) convolutions.
    """

    def __init__(self, in_channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for i in range((size - 1).bit_length()):  # a stride of 2 rounds up
            # In place, because the gradient of a convolution does not need its output; saves half of the memory.
            convs += [nn.Conv2d(w_dim if i else in_channels, w_dim, 3, 2, 1), nn.LeakyReLU(0.01, inplace=True)]
        self.convs = nn.Sequential(*convs)
        self.linear = FullyConnected(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """Maps ``(B, C, h, w)`` to ``(B, D)``."""
        style: Tensor = self.linear(self.convs(x).flatten(1))
        return style


class StyleEncoder(Backbone):
    """A backbone with one map2style block for each style. Subclasses choose the map of each block (`levels`).

    With ``progressive`` (e4e, arXiv 2102.02766) the first block gives w0, the code of all layers, and block i gives the
    offset of layer i: w_i = w0 + delta_i. Offsets above ``stage`` are neither computed nor added: these layers use w0,
    and their blocks get no gradient, so that DDP needs ``find_unused_parameters``. The stage is not in the state dict,
    because it follows from the training step.

    Args:
        num_ws: Number L of styles of the generator.
        w_dim: Size D of a style.
        in_channels: Channels of the input.
        backbone: Builds the layers, called with ``in_channels``.
        strides: Image size divided by the size of the map, for each style.
        resolution: Longest side of the images, in pixels.
        progressive: Whether blocks give offsets, see above. Otherwise each block gives the style of its layer.

    Raises:
        UserError: ``num_ws`` or ``resolution`` out of range.
    """

    def __init__(
        self,
        num_ws: int,
        w_dim: int,
        in_channels: int,
        backbone: Callable[..., Layers],
        strides: Sequence[int],
        resolution: int,
        progressive: bool,
    ) -> None:
        whole_number("encoder.resolution", resolution, least=32, hint="the last map is 1/16 of it")
        whole_number("num_ws", num_ws, hint="give the number of styles of the generator")
        super().__init__(backbone(in_channels))
        self.num_ws, self.w_dim, self.resolution, self.progressive = num_ws, w_dim, resolution, progressive
        self.styles = nn.ModuleList(
            MapToStyle(self.channels[-1], w_dim, -(-resolution // stride)) for stride in strides[:num_ws]
        )
        self.stage = num_ws - 1

    def set_stage(self, stage: int) -> None:
        """Activates the offsets of layers 1 to ``stage``, see :class:`.ProgressiveEncoder`. Initially all are active.

        Raises:
            UserError: The encoder is not progressive, or the stage is negative.
        """
        if not self.progressive:
            raise UserError("this encoder has no stages; set encoder.progressive=true")
        whole_number("stage", stage, least=0)
        self.stage = min(stage, self.num_ws - 1)

    def levels(self, x: Tensor, count: int) -> list[Tensor]:
        """Returns the feature maps of the first ``count`` styles."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Maps images ``(B, in_channels, H, W)`` in [-1, 1], longest side ``resolution``, to codes ``(B, L, D)``."""
        if max(x.shape[2:], default=0) != self.resolution:
            raise UserError(
                f"the encoder got an input of shape {tuple(x.shape)}, expected {self.resolution} as its longest side; "
                f"resize the images or set encoder.resolution"
            )
        maps = self.levels(x, self.stage + 1)
        # Not strict, because blocks above the stage are not used.
        codes = [style(level) for style, level in zip(self.styles, maps, strict=False)]
        if self.progressive:
            w0, *offsets = codes
            codes = [w0, *(w0 + offset for offset in offsets)]
            codes += [w0] * (self.num_ws - len(codes))
        return torch.stack(codes, dim=1)
