"""A compact residual backbone for 64-px images.

For the embedded data and generator (SynthFaces at 64 px), where training should give results within minutes on two CPU
cores. It takes about 33 million multiply-adds at 64 px with ``width=24``.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError

#: Channels of the four stages, in multiples of ``width``.
MULTIPLIERS = (1, 2, 4, 6)
#: Channels to which the last map (4x4) is reduced before the linear layers.
NECK_CHANNELS = 64
#: Channels to which the second to last map (8x8) is reduced, which only the encoder uses.
FINE_CHANNELS = 24


def _conv(in_channels: int, out_channels: int, stride: int, norm: bool) -> nn.Sequential:
    conv = nn.Conv2d(in_channels, out_channels, 3, stride, 1, bias=not norm)
    return nn.Sequential(conv, nn.BatchNorm2d(out_channels)) if norm else nn.Sequential(conv)


class _Block(nn.Module):
    """Two 3x3 convolutions with a shortcut; the shortcut of a strided block is a 2x2 mean and a 1x1 convolution."""

    def __init__(self, in_channels: int, out_channels: int, stride: int, norm: bool) -> None:
        super().__init__()
        self.conv0 = _conv(in_channels, out_channels, stride, norm)
        self.conv1 = _conv(out_channels, out_channels, 1, norm)
        self.skip = nn.Conv2d(in_channels, out_channels, 1, bias=False) if stride > 1 else None
        if not norm:
            # Without normalisation, residual branches that start at zero bound the variance of the sum (Fixup, arXiv
            # 1901.09321, section 3).
            nn.init.zeros_(self.conv1.get_parameter("0.weight"))

    def forward(self, x: Tensor) -> Tensor:
        shortcut = x if self.skip is None else self.skip(F.avg_pool2d(x, 2))
        return F.relu(self.conv1(F.relu(self.conv0(x))) + shortcut)


class SmallBackbone(nn.Module):
    """Maps images to four feature maps of 1/2, 1/4, 1/8 and 1/16 of their size.

    Args:
        in_channels: Channels of the input.
        width: Channels of the first map; the maps have 1, 2, 4 and 6 times as many.
        norm: Use batch norm after each 3x3 convolution. Without it the convolutions have a bias, as after
            `fold_batch_norm`.
    """

    def __init__(self, in_channels: int = 3, width: int = 32, norm: bool = True) -> None:
        super().__init__()
        self.in_channels, self.width, self.norm = in_channels, width, norm
        self.channels = tuple(width * m for m in MULTIPLIERS)
        self.stem = _conv(in_channels, self.channels[0], 2, norm)
        inputs = (self.channels[0], *self.channels[:-1])
        strides = (1, 2, 2, 2)
        self.blocks = nn.ModuleList(
            _Block(i, o, s, norm) for i, o, s in zip(inputs, self.channels, strides, strict=True)
        )
        # In NCHW, convolutions with so few channels are 1.5 times slower on a CPU (torch 2.15, Zen 3).
        self.to(memory_format=torch.channels_last)

    def forward(self, x: Tensor) -> list[Tensor]:
        """Maps ``(B, in_channels, H, W)``, H and W multiples of 16, to four feature maps, the finest first."""
        if x.ndim != 4 or x.shape[1] != self.in_channels or x.shape[2] % 16 or x.shape[3] % 16:
            raise UserError(
                f"got an input of shape {tuple(x.shape)}, expected (B, {self.in_channels}, H, W) with H and W "
                f"multiples of 16; give other images"
            )
        x = F.relu(self.stem(x.contiguous(memory_format=torch.channels_last)))
        maps = []
        for block in self.blocks:
            x = block(x)
            maps.append(x)
        return maps


def fold_conv(conv: nn.Conv2d, norm: nn.BatchNorm2d) -> tuple[Tensor, Tensor]:
    """Returns weight and bias of a convolution that equals ``norm(conv(x))`` in evaluation mode."""
    mean, variance = norm.get_buffer("running_mean"), norm.get_buffer("running_var")
    scale = norm.weight * torch.rsqrt(variance + norm.eps)
    bias = torch.zeros_like(scale) if conv.bias is None else conv.bias
    return conv.weight * scale[:, None, None, None], norm.bias + (bias - mean) * scale


def fold_batch_norm(backbone: SmallBackbone) -> SmallBackbone:
    """Returns a copy without batch norm, whose running statistics are folded into the convolutions.

    The copy computes the same as ``backbone.eval()``, is faster and can be fine-tuned with very small batches.
    """
    if not backbone.norm:
        return backbone
    like = next(backbone.parameters())
    folded = SmallBackbone(backbone.in_channels, backbone.width, norm=False).to(like.device, like.dtype)
    source = dict(backbone.named_modules())
    with torch.no_grad():
        for name, target in folded.named_modules():
            if not isinstance(target, nn.Conv2d):
                continue
            conv = source[name]
            assert isinstance(conv, nn.Conv2d)
            if target.bias is None:  # a 1x1 shortcut, which has no norm
                target.weight.copy_(conv.weight)
                continue
            norm = source[name.rsplit(".", 1)[0] + ".1"]
            assert isinstance(norm, nn.BatchNorm2d)
            weight, bias = fold_conv(conv, norm)
            target.weight.copy_(weight)
            target.bias.copy_(bias)
    return folded.train(backbone.training)


def to_input_size(image: Tensor, size: int = 64) -> Tensor:
    """Resizes ``(B, C, H, W)`` to ``(B, C, size, size)``, by box means for integer ratios, else bilinearly."""
    height, width = image.shape[-2:]
    if (height, width) == (size, size):
        return image
    if height % size == 0 and width % size == 0:
        return F.avg_pool2d(image, (height // size, width // size))
    return F.interpolate(image, (size, size), mode="bilinear", antialias=True, align_corners=False)
