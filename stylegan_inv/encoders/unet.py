"""A small U-Net: image -> map of the same size (Ronneberger, Fischer, Brox, MICCAI 2015, arXiv 1505.04597)."""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError


class UNet(nn.Module):
    """Halves the image ``depth`` times and comes back up, each level seeing its own map again.

    Args:
        in_channels: of the image.
        out_channels: of the result.
        width: channels of the finest level; twice as many at each coarser one, at most eight times.
        depth: number of halvings.
    """

    def __init__(self, in_channels: int = 3, out_channels: int = 1, width: int = 16, depth: int = 3) -> None:
        super().__init__()
        if width < 1 or depth < 1:
            raise UserError(f"UNet: width={width}, depth={depth}; expected at least 1")
        self.depth = depth
        channels = [width * min(2**level, 8) for level in range(depth + 1)]
        self.down = nn.ModuleList(_pair(i, o) for i, o in zip([in_channels, *channels], channels, strict=False))
        self.up = nn.ModuleList(_pair(a + b, a) for a, b in zip(channels, channels[1:], strict=False))
        self.last = nn.Conv2d(width, out_channels, 1)

    def forward(self, image: Tensor) -> Tensor:
        """(B, in_channels, H, W), H and W multiples of ``2 ** depth``, -> (B, out_channels, H, W)."""
        step = 2**self.depth
        if image.ndim != 4 or image.shape[2] % step or image.shape[3] % step:
            raise UserError(f"UNet got {tuple(image.shape)}, expected (B, C, H, W) with multiples of {step}")
        maps = [self.down[0](image)]
        for block in list(self.down)[1:]:
            maps.append(block(F.avg_pool2d(maps[-1], 2)))
        x = maps.pop()
        for block, own in zip(reversed(self.up), reversed(maps), strict=True):
            x = block(torch.cat([own, F.interpolate(x, scale_factor=2, mode="nearest")], dim=1))
        return self.last(x)


def _pair(in_channels: int, out_channels: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(in_channels, out_channels, 3, 1, 1),
        nn.ReLU(),
        nn.Conv2d(out_channels, out_channels, 3, 1, 1),
        nn.ReLU(),
    )
