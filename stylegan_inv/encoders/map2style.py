"""Feature maps -> styles, and the progressive rule of e4e: what `fpn` and `single_level` share.

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


class MapToStyle(nn.Module):
    """Map (B, C, h, w), sides of at most ``size``, -> style (B, D).

    log2(size) convolutions, each of which halves the map, and a linear layer with equalised learning rate.
    """

    def __init__(self, in_channels: int, w_dim: int, size: int) -> None:
        super().__init__()
        convs: list[nn.Module] = []
        for i in range((size - 1).bit_length()):  # ceil(log2(size)): a stride of 2 rounds up
            # A convolution's gradient does not need its output: in place saves half the memory of the block.
            convs += [nn.Conv2d(w_dim if i else in_channels, w_dim, 3, 2, 1), nn.LeakyReLU(0.01, inplace=True)]
        self.convs = nn.Sequential(*convs)
        self.linear = FullyConnected(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        """(B, C, h, w) -> (B, D)."""
        return self.linear(self.convs(x).flatten(1))


class StyleEncoder(Backbone):
    """A backbone with one map2style block for each style. A subclass says which map each block reads (`levels`).

    With ``progressive`` (e4e, arXiv 2102.02766) the first block gives w0, the code of all layers, and block i the
    offset of layer i from it: w_i = w0 + delta_i. Offsets above ``stage`` are neither added nor computed: those layers
    are w0 itself, and their blocks get no gradient (DDP then needs ``find_unused_parameters``). The stage is not in the
    state dict; it follows from the training step.

    Args:
        num_ws: Styles L of the generator.
        w_dim: Their size D.
        in_channels: Channels of the input.
        backbone: Called with ``in_channels``.
        strides: Image pixels for each pixel of the map that style i reads.
        resolution: Longest side of the images, in pixels.
        progressive: See above. False: each block gives the whole style of its layer.

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
        if resolution < 32:
            raise UserError(f"encoder.resolution={resolution}: expected at least 32 (the last map is 1/16 of it)")
        if num_ws < 1:
            raise UserError(f"num_ws={num_ws}: expected the number of styles of the generator, at least 1")
        super().__init__(backbone(in_channels))
        self.num_ws, self.w_dim, self.resolution, self.progressive = num_ws, w_dim, resolution, progressive
        self.styles = nn.ModuleList(
            MapToStyle(self.channels[-1], w_dim, -(-resolution // stride)) for stride in strides[:num_ws]
        )
        self.stage = num_ws - 1

    def set_stage(self, stage: int) -> None:
        """Activate the offsets of layers 1 ... ``stage``: 0 is a single w, L - 1 or more everything (the start).

        Raises:
            UserError: The encoder is not progressive, or the stage is negative.
        """
        if not self.progressive:
            raise UserError("this encoder has no stages; set encoder.progressive=true")
        if stage < 0:
            raise UserError(f"stage={stage}: expected 0 (w alone) to {self.num_ws - 1} (all offsets)")
        self.stage = min(stage, self.num_ws - 1)

    def levels(self, x: Tensor, count: int) -> list[Tensor]:
        """The maps that the first ``count`` styles read, one for each."""
        raise NotImplementedError

    def forward(self, x: Tensor) -> Tensor:
        """Maps (B, in_channels, H, W) in [-1, 1], longest side ``resolution``, to (B, L, D)."""
        if max(x.shape[2:], default=0) != self.resolution:
            raise UserError(
                f"the encoder got an input of shape {tuple(x.shape)}, expected {self.resolution} as its longest side; "
                f"resize the images or set encoder.resolution"
            )
        maps = self.levels(x, self.stage + 1)
        # Not strict: the blocks above the stage stay idle.
        codes = [style(level) for style, level in zip(self.styles, maps, strict=False)]
        if self.progressive:
            w0, *offsets = codes
            codes = [w0, *(w0 + offset for offset in offsets)]
            codes += [w0] * (self.num_ws - len(codes))
        return torch.stack(codes, dim=1)
