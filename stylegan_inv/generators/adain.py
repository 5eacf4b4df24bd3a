"""The synthesis network of the original StyleGAN: adaptive instance normalisation in place of modulated weights.

"A Style-Based Generator Architecture for Generative Adversarial Networks", Karras, Laine, Aila, CVPR 2019,
arXiv 1812.04948, figure 1b and equation 1; constants as in the official code, https://github.com/NVlabs/stylegan
(f3a0446). Each layer is

    (enlarge ->) convolution (-> blur) -> noise -> bias -> leaky ReLU -> instance normalisation -> style

and only the last resolution makes a picture. What differs: nothing in the numbers. The official code enlarges and
convolves in one pass from 128 px on (``fused_scale``), with weights stored mirrored; here they are never mirrored, and
all resolutions do so, which costs 16 multiplications an input pixel instead of 36.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.layers import FullyConnected, normal, resolutions
from stylegan_inv.generators.ops import bias_act, filter2d, setup_filter
from stylegan_inv.generators.ops.dispatch import full_precision
from stylegan_inv.generators.progressive import Stage, check_stage, enlarged
from stylegan_inv.generators.synthesis_inputs import check_codes, noise_inputs

BLUR_TAPS = (1, 2, 1)


def adain(x: Tensor, style: Tensor, eps: float = 1e-8) -> Tensor:
    """``(s + 1) (x - mean(x)) / sqrt(var(x) + eps) + t``, mean and variance over each channel's pixels (equation 1).

    Args:
        x: ``(B, C, H, W)``.
        style: ``(B, 2 C)``: s, then t.
        eps: below the root.
    """
    scale, shift = style[:, :, None, None].chunk(2, dim=1)
    with full_precision(x):  # half precision would lose the mean's small differences
        variance, mean = torch.var_mean(x.to(style.dtype), dim=(2, 3), correction=0, keepdim=True)
        return torch.addcmul(shift, x - mean, (scale + 1) * (variance + eps).rsqrt()).to(x.dtype)


def enlarged_conv2d(x: Tensor, weight: Tensor) -> Tensor:
    """A 3x3 convolution of ``x`` with every pixel doubled: ``(B, I, h, w)``, ``(O, I, 3, 3)`` -> ``(B, O, 2h, 2w)``.

    An input pixel lies below two taps of each axis at once, so their sums are the taps of a transposed convolution.
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

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """``(B, I, r/up, r/up)``, ``(B, w_dim)``, noise ``(1 or B, 1, r, r)`` or None -> ``(B, O, r, r)``."""
        return self.styled(x, self.affine(w), noise)

    def styled(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """The same from the style ``(B, 2 O)`` that the affine layer makes of w: scales less 1, then shifts."""
        if self.convolves:
            weight = self.weight * self.weight_gain
            if self.up == 2:
                x = filter2d(enlarged_conv2d(x, weight), self.resample_filter, impl=self.ops)
            else:
                x = F.conv2d(x, weight, padding=1)
        if noise is not None:
            x = x + noise * self.noise_strength[:, None, None]
        return adain(bias_act(x, self.bias, act="lrelu", gain=1.0, impl=self.ops), style)


class PlainToRGB(nn.Module):
    """1x1 convolution to the image channels, without a style."""

    def __init__(self, in_channels: int, img_channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(normal(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))
        self.weight_gain = 1 / math.sqrt(in_channels)

    def forward(self, x: Tensor, w: Tensor | None = None) -> Tensor:
        """``(B, C, r, r)`` -> ``(B, img_channels, r, r)``; what StyleGAN2 would take the style from is not used."""
        return F.conv2d(x, self.weight * self.weight_gain, self.bias)


class AdaINBlock(nn.Module):
    """The two layers of one resolution, and its way to colours where it has one."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int | None, ops: str
    ) -> None:
        super().__init__()
        first, up = (None, 1) if resolution == 4 else (in_channels, 2)
        if resolution == 4:
            self.const = nn.Parameter(torch.ones(out_channels, 4, 4))
        self.layer0 = AdaINLayer(first, out_channels, w_dim, resolution, up=up, ops=ops)
        self.layer1 = AdaINLayer(out_channels, out_channels, w_dim, resolution, ops=ops)
        if img_channels is not None:
            self.torgb = PlainToRGB(out_channels, img_channels)

    def layers(self) -> list[AdaINLayer]:
        """Both."""
        return [self.layer0, self.layer1]


class AdaINSynthesis(nn.Module):
    """W+ codes -> image; the interface of :class:`.SynthesisNetwork`.

    Args:
        resolution: side of the image in pixels.
        channels: resolution -> channels.
        w_dim: size of a style code.
        img_channels: of the image.
        progressive: every resolution has a way to colours, so that parts of the network make pictures.
        ops: implementation of the operations.
    """

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
        super().__init__()
        self.resolution, self.w_dim, self.progressive = resolution, w_dim, progressive
        self.resolutions = resolutions(resolution)
        self.num_ws = 2 * len(self.resolutions)
        for r in self.resolutions:
            colours = img_channels if progressive or r == resolution else None
            self.add_module(f"b{r}", AdaINBlock(channels.get(r // 2, 0), channels[r], w_dim, r, colours, ops))

    def layers(self) -> list[AdaINLayer]:
        """The layers, each of which takes a style and noise, in order: b4.layer0, b4.layer1, b8.layer0, ..."""
        return [layer for block in self.blocks() for layer in block.layers()]

    def blocks(self) -> list[AdaINBlock]:
        """One for each resolution, b4, b8, ..."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def noise_maps(self) -> list[Tensor]:
        """The stored noise, one ``(1, 1, r, r)`` tensor per layer: what ``noise="const"`` uses."""
        return [layer.noise_const[None, None] for layer in self.layers()]

    def forward(self, w: Tensor, noise: str | Sequence[Tensor] = "const", stage: Stage | None = None) -> Tensor:
        """Render W+ codes.

        Args:
            w: ``(B, num_ws, w_dim)``.
            noise: "const", "random", "none" or a list of maps, one for each layer (``num_ws`` of them).
            stage: how much of a progressive network to run; None for all.

        Returns:
            Images ``(B, img_channels, r, r)``, nominally in [-1, 1] but not clamped.

        Raises:
            UserError: codes, noise or a stage that do not fit.
        """
        check_codes(w, self.num_ws, self.w_dim)
        stage = stage or Stage(self.resolution)
        if stage != Stage(self.resolution) and not self.progressive:
            raise UserError("this generator cannot be run in parts: it needs progressive=true")
        check_stage(stage, self.resolution)
        count = self.resolutions.index(stage.resolution) + 1
        blocks = self.blocks()[:count]
        layers = [layer for block in blocks for layer in block.layers()]
        given = noise if isinstance(noise, str) or count == len(self.resolutions) else list(noise)[: len(layers)]
        maps = noise_inputs(layers, given, len(w), w)
        before, x = self._features(len(w), count, lambda layer, x, k: layer(x, w[:, k], maps[k]))
        image = blocks[-1].torgb(x)
        if stage.alpha < 1 and count > 1:
            image = torch.lerp(enlarged(blocks[-2].torgb(before), stage.resolution), image, stage.alpha)
        return image.contiguous()

    def render(
        self,
        batch: int,
        layer: Callable[[AdaINLayer, Tensor, int], Tensor],
        torgb: Callable[[PlainToRGB, Tensor, int], Tensor],
    ) -> Tensor:
        """The network with its calls left to the caller, as :meth:`.SynthesisNetwork.render`; one call of ``torgb``."""
        count = len(self.resolutions)
        return torgb(self.blocks()[-1].torgb, self._features(batch, count, layer)[1], count - 1).contiguous()

    def _features(
        self, batch: int, count: int, layer: Callable[[AdaINLayer, Tensor, int], Tensor]
    ) -> tuple[Tensor, Tensor]:
        """What the last but one and the last of the first ``count`` blocks give."""
        const = self.get_parameter("b4.const")
        # channels_last: the convolutions of a CPU are up to twice as fast in it.
        before = x = const[None].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        for b, block in enumerate(self.blocks()[:count]):
            before = x
            for k, module in enumerate(block.layers(), start=2 * b):
                x = layer(module, x, k)
        return before, x
