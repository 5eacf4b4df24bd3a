"""A small U-Net (Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


class UNet(nn.Module):
    """A U-Net, whose output has the size of the image.

    Args:
        in_channels: Channels of the image.
        out_channels: Channels of the output.
        width: Channels of the finest level; they double at each coarser level, up to eight times.
        depth: Number of downsampling steps.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        whole_number("UNet.width", width)
        whole_number("UNet.depth", depth)
        self.depth = depth
        channels = [width * min(2**level, 8) for level in range(depth + 1)]
        self.down = nn.ModuleList(_pair(i, o) for i, o in zip([in_channels, *channels], channels, strict=False))
        self.up = nn.ModuleList(_pair(a + b, a) for a, b in zip(channels, channels[1:], strict=False))
        self.last = nn.Conv2d(width, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """Maps ``(B, in_channels, H, W)``, H and W multiples of ``2 ** depth``, to ``(B, out_channels, H, W)``."""
        step = 2**self.depth
        if image.ndim != 4 or image.shape[2] % step or image.shape[3] % step:
            raise UserError(f"UNet got {tuple(image.shape)}, expected (B, C, H, W) with H and W multiples of {step}")
        maps = [self.down[0](image)]
        for block in list(self.down)[1:]:
            maps.append(block(F.avg_pool2d(maps[-1], 2)))
        x = maps.pop()
        for block, skip in zip(reversed(self.up), reversed(maps), strict=True):
            x = block(torch.cat([skip, F.interpolate(x, scale_factor=2, mode="nearest")], dim=1))
        output: Tensor = self.last(x)
        return output


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, 1, 1),
        nn.ReLU(),
    )
