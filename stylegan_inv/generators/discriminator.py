"""StyleGAN2's residual discriminator (Karras et al. 2020, section 4)."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import (
    FullyConnected,
    normal,
    resolutions,
    resolve_channels,
)
from stylegan_inv.generators.mapping import MappingNetwork
from stylegan_inv.generators.ops import FILTER_TAPS, bias_act, conv2d_resample, dispatch, setup_filter


class ConvLayer(nn.Module):
    """Convolution with equalised learning rate, optional 2x downsampling, bias and activation.

    The weight is initialised from ``N(0, 1)`` and divided by ``sqrt(in_channels * k * k)`` when it is used.
    """

    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        bias: bool = True,
        activation: str = "linear",
        down: int = 1,
        conv_clamp: float | None = None,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.down = down
        self.padding = kernel_size // 2
        self.conv_clamp = conv_clamp
        self.ops = ops
        self.weight_gain = 1 / math.sqrt(in_channels * kernel_size**2)
        self.weight = nn.Parameter(normal(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(FILTER_TAPS), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """Returns ``(B, O, H / down, W / down)``, multiplied by ``gain``, for ``x`` ``(B, I, H, W)``."""
        act_gain = (math.sqrt(2.0) if self.activation == "lrelu" else 1.0) * gain
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        # The leaky ReLU is positively homogeneous: the gain is part of the weight and the bias.
        y = conv2d_resample(
            x,
            self.weight * (self.weight_gain * act_gain),
            self.resample_filter,
            down=self.down,
            padding=self.padding,
            bias=None if self.bias is None else self.bias * act_gain,
            impl=self.ops,
        )
        return bias_act(y, act=self.activation, gain=1.0, clamp=clamp, impl=self.ops)


class DiscriminatorBlock(nn.Module):
    """Residual block that halves the resolution; with ``img_channels`` it also has a ``fromrgb`` layer."""

    def __init__(
        self, in_channels: int, out_channels: int, img_channels: int | None, conv_clamp: float | None, ops: str
    ) -> None:
        super().__init__()
        if img_channels is not None:
            self.fromrgb = ConvLayer(img_channels, in_channels, 1, activation="lrelu", conv_clamp=conv_clamp, ops=ops)
        self.conv0 = ConvLayer(in_channels, in_channels, 3, activation="lrelu", conv_clamp=conv_clamp, ops=ops)
        self.conv1 = ConvLayer(in_channels, out_channels, 3, activation="lrelu", down=2, conv_clamp=conv_clamp, ops=ops)
        self.skip = ConvLayer(in_channels, out_channels, 1, bias=False, down=2, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, O, r/2, r/2)`` for ``x`` ``(B, I, r, r)``."""
        skipped: Tensor = self.skip(x, gain=math.sqrt(0.5))
        main: Tensor = self.conv1(self.conv0(x), gain=math.sqrt(0.5))
        return main + skipped


def minibatch_stddev(x: Tensor, group_size: int = 4, num_features: int = 1) -> Tensor:
    """Returns the standard deviation over groups of samples as extra channels (Karras et al. 2018, section 3).

    Sample ``n`` of ``N`` belongs to group ``n mod (N / G)`` with ``G = min(group_size, N)``.

    Args:
        x: ``(N, C, H, W)``.
        group_size: Samples per group.
        num_features: Number of extra channels; ``C`` must be a multiple of it.

    Returns:
        The extra channels alone, ``(N, num_features, H, W)``.

    Raises:
        UserError: The batch cannot be divided into groups.
    """
    n, c, h, w = x.shape
    g, f = min(group_size, n), num_features
    if n % g or c % f:
        raise UserError(
            f"the minibatch standard deviation cannot split a batch of {n} into groups of {g} ({c} channels into {f} "
            f"features): use a batch size that is a multiple of {g}, or another mbstd_group_size"
        )
    y = x.reshape(g, n // g, f, c // f, h, w)
    y = (y - y.mean(dim=0)).square().mean(dim=0)
    y = (y + 1e-8).sqrt().mean(dim=(2, 3, 4))  # (N/G, F)
    return y.repeat(g, 1)[:, :, None, None].expand(-1, -1, h, w)


class DiscriminatorEpilogue(nn.Module):
    """The 4x4 end of the discriminator: minibatch standard deviation, convolution, two linear layers."""

    def __init__(
        self,
        channels: int,
        img_channels: int | None,
        out_features: int,
        mbstd_group_size: int,
        mbstd_features: int,
        conv_clamp: float | None,
        ops: str,
    ) -> None:
        super().__init__()
        self.mbstd_group_size = mbstd_group_size
        self.mbstd_features = mbstd_features
        if img_channels is not None:
            self.fromrgb = ConvLayer(img_channels, channels, 1, activation="lrelu", conv_clamp=conv_clamp, ops=ops)
        self.conv = ConvLayer(
            channels + mbstd_features, channels, 3, activation="lrelu", conv_clamp=conv_clamp, ops=ops
        )
        self.fc = FullyConnected(channels * 16, channels, activation="lrelu", ops=ops)
        self.out = FullyConnected(channels, out_features, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, out_features)`` for ``x`` ``(B, C, 4, 4)``."""
        if self.mbstd_features > 0:
            deviation = minibatch_stddev(x, self.mbstd_group_size, self.mbstd_features)
            x = torch.cat([x, deviation], dim=1).contiguous(memory_format=torch.channels_last)
        logits: Tensor = self.out(self.fc(self.conv(x).flatten(1)))
        return logits


class Discriminator(nn.Module):
    """StyleGAN2 image discriminator with residual blocks.

    Args:
        resolution: Side of the image in pixels.
        channels: Resolution -> channels; None for :func:`channel_table`.
        channel_base: Of :func:`channel_table`, read where ``channels`` is None.
        channel_max: Of :func:`channel_table`, read where ``channels`` is None.
        c_dim: Size of the condition; 0 for none. With a condition the network is a projection discriminator.
        img_channels: Channels of the image.
        mbstd_group_size: Samples per group of the minibatch standard deviation.
        mbstd_features: Channels of the minibatch standard deviation; 0 switches it off.
        conv_clamp: Largest magnitude of any activation, or None.
        mapping_layers: Number of layers of the network that maps the condition.
        progressive: Whether every resolution has a ``fromrgb`` layer, for smaller images, see :mod:`.progressive`.
        ops: Implementation of the operations, see :mod:`.ops.dispatch`.

    Attributes:
        config: Plain dict; ``Discriminator(**config)`` builds the same network.
    """

    def __init__(
        self,
        resolution: int,
        *,
        channels: Mapping[int, int] | None = None,
        channel_base: int = 32768,
        channel_max: int = 512,
        c_dim: int = 0,
        img_channels: int = 3,
        mbstd_group_size: int = 4,
        mbstd_features: int = 1,
        conv_clamp: float | None = None,
        mapping_layers: int = 8,
        progressive: bool = False,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        dispatch.check(ops)
        table = resolve_channels(resolution, channels, channel_base, channel_max)
        self.resolution = resolution
        self.c_dim = c_dim
        self.img_channels = img_channels
        self.domain: str | None = None  # that of the images that it was trained on, if it is known
        self.channels = table
        self.progressive = progressive
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "channels": dict(table),
            "c_dim": c_dim,
            "img_channels": img_channels,
            "mbstd_group_size": mbstd_group_size,
            "mbstd_features": mbstd_features,
            "conv_clamp": conv_clamp,
            "mapping_layers": mapping_layers,
            "progressive": progressive,
            "ops": ops,
        }
        self.resolutions = resolutions(resolution)[::-1]
        for r in self.resolutions[:-1]:
            rgb = img_channels if progressive or r == resolution else None
            self.add_module(f"b{r}", DiscriminatorBlock(table[r], table[r // 2], rgb, conv_clamp, ops))
        self.cmap_dim = table[4] if c_dim > 0 else 0
        self.b4 = DiscriminatorEpilogue(
            table[4],
            img_channels if progressive or resolution == 4 else None,
            max(self.cmap_dim, 1),
            mbstd_group_size,
            mbstd_features,
            conv_clamp,
            ops,
        )
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, self.cmap_dim, 1, num_layers=mapping_layers, ops=ops)

    def forward(self, image: Tensor, c: Tensor | None = None, alpha: float = 1.0) -> Tensor:
        """Returns logits ``(B, 1)``, which are larger for images that look real.

        Args:
            image: ``(B, img_channels, R, R)`` in [-1, 1]; ``B`` is below the group size or a multiple of it. A
                progressive discriminator reads smaller images too.
            c: Condition ``(B, c_dim)`` of a conditional discriminator.
            alpha: Weight of the first block's output; the rest is what the next block reads of the image at half the
                size.

        Raises:
            UserError: An image of another shape, or a batch that cannot be divided into groups.
        """
        sizes = self.resolutions if self.progressive else [self.resolution]
        if image.ndim != 4 or image.shape[1] != self.img_channels or image.shape[2:] not in [(r, r) for r in sizes]:
            expected = f"{self.img_channels}, " + " or ".join(f"{r}, {r}" for r in sizes)
            raise UserError(f"the discriminator expects images (B, {expected}), got {tuple(image.shape)}")
        if alpha != 1 and (not self.progressive or image.shape[2] == 4):
            raise UserError(f"alpha={alpha}: only a progressive discriminator fades, and from 8 px on")
        x = image.contiguous(memory_format=torch.channels_last)
        blocks = [getattr(self, f"b{r}") for r in self.resolutions if r <= image.shape[2]]
        x = blocks[0].fromrgb(x)
        for k, block in enumerate(blocks):
            x = block(x)
            if k == 0 and alpha != 1:  # Karras et al. 2018, figure 2
                x = torch.lerp(blocks[1].fromrgb(F.avg_pool2d(image, 2)), x, alpha)
        if self.c_dim > 0:
            x = (x * self.mapping.w(None, c)).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        elif c is not None:
            raise UserError(f"this discriminator has no condition (c_dim=0), got c of shape {tuple(c.shape)}")
        return x
