"""The synthesis network of the original StyleGAN: adaptive instance normalisation in place of modulated weights.

"A Style-Based Generator Architecture for Generative Adversarial Networks", Karras, Laine, Aila, CVPR 2019,
arXiv 1812.04948, figure 1b and equation 1; constants as in the official code, https://github.com/NVlabs/stylegan
(f3a0446). Each layer is

    (upsampling ->) convolution (-> blur) -> noise -> bias -> leaky ReLU -> instance normalisation -> style

and only the last resolution has a ToRGB layer. The outputs equal those of the official code, which upsamples and
convolves in one pass from 128 px on (``fused_scale``), with mirrored weights. Here no weights are mirrored, and all
resolutions use one pass, which takes 16 multiplications per input pixel instead of 36.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.base import SynthesisBase
from stylegan_inv.generators.feature_maps import Synthesis
from stylegan_inv.generators.layers import FullyConnected, normal, shared
from stylegan_inv.generators.ops import bias_act, conv2d_resample, filter2d, setup_filter
from stylegan_inv.generators.ops.dispatch import full_precision
from stylegan_inv.generators.progressive import Stage, check_part, enlarged
from stylegan_inv.generators.synthesis_inputs import noise_inputs

BLUR_TAPS = (1, 2, 1)


def adain(x: Tensor, style: Tensor, eps: float = 1e-8) -> Tensor:
    """Returns ``(s + 1) (x - mean(x)) / sqrt(var(x) + eps) + t``, mean and variance over each channel (equation 1).

    Args:
        x: ``(B, C, H, W)``.
        style: ``(B, 2 C)``: s, then t.
        eps: Added to the variance.
    """
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    with full_precision(x):  # half precision would lose the small differences from the mean
        variance, mean = torch.var_mean(x.to(style.dtype), dim=(2, 3), correction=0, keepdim=True)
        return torch.addcmul(shift, x - mean, (scale + 1) * (variance + eps).rsqrt()).to(x.dtype)


def enlarged_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """Returns the 3x3 convolution of ``x`` with every pixel repeated twice along each axis, ``(B, O, 2h, 2w)``.

    Each input pixel is multiplied by two neighbouring taps of each axis; their sums are the taps of a transposed
    convolution.

    Args:
        x: ``(B, I, h, w)``.
        weight: ``(O, I, 3, 3)``.
    """
    padded = F.pad(weight.flip(2, 3), (1, 1, 1, 1))
    rows = padded[:, :, 1:] + padded[:, :, :-1]
    taps = rows[..., 1:] + rows[..., :-1]
    return F.conv_transpose2d(x, taps.transpose(0, 1), stride=2, padding=1)


class AdaINLayer(nn.Module):
    """Convolution (none on the constant), noise with a strength for each channel, bias, leaky ReLU, style."""

    noise_const: Tensor
    resample_filter: Tensor
    filter_taps = BLUR_TAPS

    def __init__(
        self, in_channels: int | None, out_channels: int, w_dim: int, resolution: int, *, up: int = 1, ops: str = "auto"
    ) -> None:
        super().__init__()
        self.resolution, self.up, self.ops = resolution, up, ops
        self.affine = FullyConnected(w_dim, 2 * out_channels, ops=ops)
        if in_channels is not None:
            self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
            self.weight_gain = math.sqrt(2 / (in_channels * 9))
        self.noise_strength = nn.Parameter(torch.zeros(out_channels))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", normal(resolution, resolution))
        self.register_buffer("resample_filter", setup_filter(BLUR_TAPS), persistent=False)
        self.convolves = in_channels is not None

    def forward(self, x: Tensor, w: Tensor | None, noise: Tensor | None, style: Tensor | None = None) -> Tensor:
        """Runs the layer.

        Args:
            x: ``(B, I, r/up, r/up)``.
            w: Code ``(B, w_dim)``; not read where a style is given.
            noise: ``(1 or B, 1, r, r)``, or None for no noise.
            style: ``(B, 2 O)``, used instead of the affine transformation of w: scales less 1, then shifts.

        Returns:
            ``(B, O, r, r)``.
        """
        if style is None:
            style = self.affine(w)
        if self.convolves:
            weight = self.weight * self.weight_gain
            if self.up == 2:
                x = filter2d(enlarged_conv2d(x, weight), self.resample_filter, impl=self.ops)
            else:
                x = conv2d_resample(x, weight, padding=1, impl=self.ops)
        if noise is not None:
            x = x + noise * self.noise_strength[:, None, None]
        return adain(bias_act(x, self.bias, act="lrelu", gain=1.0, impl=self.ops), style)


class PlainToRGB(nn.Module):
    """1x1 convolution to the image channels, without a style.

    Attributes:
        grey: Whether all channels share the mean of the weights, see :mod:`.grey`.
    """

    grey = False

    def __init__(self, in_channels: int, img_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor) -> Tensor:
        """Returns the colours ``(B, img_channels, r, r)`` of ``x`` ``(B, C, r, r)``."""
        weight, bias = shared(self.weight, self.bias) if self.grey else (self.weight, self.bias)
        return F.conv2d(x, weight * self.weight_gain, bias)


class AdaINBlock(nn.Module):
    """The two layers of one resolution, and its ToRGB layer where it has one."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int | None, ops: str
    ) -> None:
        super().__init__()
        self.resolution = resolution
        first, up = (None, 1) if resolution == 4 else (in_channels, 2)
        if resolution == 4:
            self.const = nn.Parameter(torch.ones(out_channels, 4, 4))
        self.layer0 = AdaINLayer(first, out_channels, w_dim, resolution, up=up, ops=ops)
        self.layer1 = AdaINLayer(out_channels, out_channels, w_dim, resolution, ops=ops)
        if img_channels is not None:
            self.torgb = PlainToRGB(out_channels, img_channels)

    def named_layers(self) -> list[tuple[str, AdaINLayer]]:
        """Returns the names and modules of both layers."""
        return [("layer0", self.layer0), ("layer1", self.layer1)]

    def layers(self) -> list[AdaINLayer]:
        """Returns both layers."""
        return [self.layer0, self.layer1]


class AdaINSynthesis(SynthesisBase):
    """W+ codes -> image. See :meth:`.SynthesisBase.forward`.

    Args:
        resolution: Side of the image in pixels.
        channels: Resolution -> channels.
        w_dim: Size of a style code.
        img_channels: Channels of the image.
        progressive: Whether every resolution has a ToRGB layer, so that parts of the network render images.
        ops: Implementation of the operations.
    """

    styled_colours = False

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        w_dim: int,
        img_channels: int = 3,
        *,
        progressive: bool = False,
        ops: str = "auto",
    ) -> None:
        super().__init__(resolution, w_dim, ops)
        self.progressive = progressive
        for r in self.resolutions:
            colours = img_channels if progressive or r == resolution else None
            self.add_module(f"b{r}", AdaINBlock(channels.get(r // 2, 0), channels[r], w_dim, r, colours, ops))

    def blocks(self) -> list[AdaINBlock]:
        """Returns one block for each resolution, b4, b8, ..."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def colour_layers(self) -> dict[int, PlainToRGB]:
        """Returns the last ToRGB layer, which alone draws the image."""
        return {self.num_ws - 1: self.blocks()[-1].torgb}

    def add_colours(self, image: Tensor | None, rgb: Tensor) -> Tensor:
        """Returns the colours: there are no skip connections."""
        return rgb

    def forward(
        self,
        w: Tensor | None = None,
        noise: str | Sequence[Tensor] = "const",
        stage: Stage | None = None,
        **changes: Any,
    ) -> Tensor | Synthesis:
        """Renders W+ codes.

        Args:
            w: ``(B, num_ws, w_dim)``.
            noise: ``"const"``, ``"random"``, ``"none"`` or a list with one map for each layer.
            stage: How much of a progressive network runs; None for all of it.
            **changes: Features, styles and weights of the whole network, see :meth:`.SynthesisBase.forward`.

        Returns:
            Images ``(B, img_channels, r, r)``, nominally in [-1, 1] but not clamped.

        Raises:
            UserError: Codes, noise, a stage or changes that do not fit.
        """
        if stage is None or stage == Stage(self.resolution):
            return super().forward(w, noise, **changes)
        if not self.progressive:
            raise UserError("this generator cannot be run in parts: it needs generator.progressive=true")
        w = check_part(self, w, stage, changes)
        count = self.resolutions.index(stage.resolution) + 1
        blocks = self.blocks()[:count]
        layers = [layer for block in blocks for layer in block.layers()]
        maps = noise_inputs(layers, noise if isinstance(noise, str) else list(noise)[: len(layers)], len(w), w)
        # channels_last: the convolutions of a CPU are up to twice as fast in it.
        before = x = self.const[None].expand(len(w), -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for b, block in enumerate(blocks):
            before = x
            for k, layer in enumerate(block.layers(), start=2 * b):
                x = layer(x, w[:, k], maps[k])
        image: Tensor = blocks[-1].torgb(x)
        if stage.alpha < 1 and count > 1:
            image = torch.lerp(enlarged(blocks[-2].torgb(before), stage.resolution), image, stage.alpha)
        return image.contiguous()
