"""StyleGAN2's synthesis network with skip connections: W+ -> image (Karras et al. 2020, sections 2 and 4).

Modulation scales the activations instead of the weights (see :mod:`.ops.modulated_conv`), and the FIR filters are not
stored with the weights. The outputs equal those of the official code.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeVar

import torch
from torch import Tensor, nn

from stylegan_inv.generators.base import Runner, SynthesisBase
from stylegan_inv.generators.feature_maps import FeaturePlan
from stylegan_inv.generators.frozen.autograd_function import run_segment
from stylegan_inv.generators.frozen.fused_synthesis import FusedSynthesis
from stylegan_inv.generators.frozen.segment import Segment
from stylegan_inv.generators.layers import FullyConnected, normal, shared
from stylegan_inv.generators.ops import (
    FILTER_TAPS,
    bias_act,
    modulated_conv2d,
    setup_filter,
    styled_conv2d,
    upsample2d,
    weight_squares,
)
from stylegan_inv.generators.synthesis_inputs import StyleInputs

N = TypeVar("N", bound="SynthesisNetwork")


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution (upsampling first for ``up=2``), noise, bias, leaky ReLU."""

    noise_const: Tensor
    resample_filter: Tensor

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        w_dim: int,
        resolution: int,
        *,
        up: int = 1,
        conv_clamp: float | None = None,
        demod_eps_scaled: bool = True,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        self.resolution = resolution
        self.up = up
        self.conv_clamp = conv_clamp
        # The references add 1e-8 either to the norm of the stored weight (NVIDIA's PyTorch code) or of the weight
        # divided by sqrt(fan_in) (TensorFlow, rosinality); the stored weight's norm is fan_in times larger.
        self.demod_eps = 1e-8 * (in_channels * 9 if demod_eps_scaled else 1)
        self.ops = ops
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0, ops=ops)
        self.weight = nn.Parameter(normal(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", normal(resolution, resolution))
        self.register_buffer("resample_filter", setup_filter(FILTER_TAPS), persistent=False)
        self.cache_squares = False
        self._squares: tuple[Tensor, int, Tensor] | None = None

    def squares(self) -> Tensor | None:
        """Returns sums of squares for the demodulation, computed once for a frozen weight; None for a trained one."""
        weight = self.weight
        if not self.cache_squares or weight.requires_grad or torch.compiler.is_compiling() or weight.is_inference():
            return None
        if self._squares is not None:
            source, version, squares = self._squares
            same_memory = source.data_ptr() == weight.data_ptr() and source.dtype == weight.dtype
            if same_memory and source.device == weight.device and version == weight._version:
                return squares
        with torch.inference_mode(False), torch.no_grad():
            source = weight.detach()  # kept, so that no other tensor gets the same address
            self._squares = (source, weight._version, weight_squares(source))
        return self._squares[2]

    def forward(self, x: Tensor, w: Tensor | None, noise: Tensor | None, style: Tensor | None = None) -> Tensor:
        """Runs the layer.

        Args:
            x: ``(B, I, r/up, r/up)``.
            w: Code ``(B, w_dim)``; not read where a style is given.
            noise: ``(1 or B, 1, r, r)``, or None for no noise.
            style: ``(B, I)``, used instead of the affine transformation of w.

        Returns:
            ``(B, O, r, r)``.
        """
        if style is None:
            style = self.affine(w)
        return styled_conv2d(
            x,
            self.weight,
            style,
            self.bias,
            noise=None if noise is None else noise * self.noise_strength,
            up=self.up,
            resample_filter=self.resample_filter,
            demod_eps=self.demod_eps,
            clamp=self.conv_clamp,
            squares=self.squares(),
            impl=self.ops,
        )


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to the image channels, without demodulation, noise or activation.

    Attributes:
        grey: Whether all channels share the mean of the weights, see :mod:`.grey`.
    """

    grey = False

    def __init__(
        self, in_channels: int, img_channels: int, w_dim: int, *, conv_clamp: float | None = None, ops: str = "auto"
    ) -> None:
        super().__init__()
        self.conv_clamp = conv_clamp
        self.ops = ops
        self.weight_gain = 1 / math.sqrt(in_channels)
        self.affine = FullyConnected(w_dim, in_channels, bias_init=1.0, ops=ops)
        self.weight = nn.Parameter(normal(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: Tensor, w: Tensor | None, style: Tensor | None = None) -> Tensor:
        """Returns the colours ``(B, img_channels, r, r)``.

        Args:
            x: ``(B, C, r, r)``.
            w: Code ``(B, w_dim)``; not read where a style is given.
            style: ``(B, C)``, used instead of the affine transformation of w.
        """
        if style is None:
            style = self.affine(w)
        weight, bias = shared(self.weight, self.bias) if self.grey else (self.weight, self.bias)
        y = modulated_conv2d(x, weight, style * self.weight_gain, demodulate=False, impl=self.ops)
        return bias_act(y, bias, clamp=self.conv_clamp, impl=self.ops)


class SynthesisBlock(nn.Module):
    """The layers of one resolution: conv0, which upsamples (not at 4 px), conv1 and torgb."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int, **layer: Any
    ) -> None:
        super().__init__()
        self.resolution = resolution
        if resolution == 4:
            self.const = nn.Parameter(normal(out_channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer)
        self.torgb = ToRGB(
            out_channels, img_channels, w_dim, conv_clamp=layer.get("conv_clamp"), ops=layer.get("ops", "auto")
        )

    def named_layers(self) -> list[tuple[str, SynthesisLayer]]:
        """Returns the names and modules of the layers that take noise."""
        last = ("conv1", self.conv1)
        return [last] if self.resolution == 4 else [("conv0", self.conv0), last]

    def layers(self) -> list[SynthesisLayer]:
        """Returns the layers that take noise."""
        return [self.conv1] if self.resolution == 4 else [self.conv0, self.conv1]


class SynthesisNetwork(SynthesisBase):
    """W+ codes -> image. See :meth:`.SynthesisBase.forward`.

    Args:
        resolution: Side of the image in pixels.
        channels: Resolution -> channels.
        w_dim: Size of a style code.
        img_channels: Channels of the image.
        conv_clamp: Largest magnitude of any activation, or None.
        demod_eps_scaled: See :class:`.Generator`.
        ops: Implementation of the operations, see :mod:`.ops.dispatch`.

    Attributes:
        fused: The fast path of a frozen network on a CPU.
    """

    resample_filter: Tensor

    def __init__(
        self,
        resolution: int,
        channels: dict[int, int],
        w_dim: int,
        img_channels: int = 3,
        *,
        conv_clamp: float | None = None,
        demod_eps_scaled: bool = True,
        ops: str = "auto",
    ) -> None:
        super().__init__(resolution, w_dim, ops)
        self.fused = FusedSynthesis()
        self.register_buffer("resample_filter", setup_filter(FILTER_TAPS), persistent=False)
        for r in self.resolutions:
            block = SynthesisBlock(
                channels.get(r // 2, 0),
                channels[r],
                w_dim,
                r,
                img_channels,
                conv_clamp=conv_clamp,
                demod_eps_scaled=demod_eps_scaled,
                ops=ops,
            )
            self.add_module(f"b{r}", block)

    def blocks(self) -> list[SynthesisBlock]:
        """Returns one block for each resolution, b4, b8, ..."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def colour_layers(self) -> dict[int, ToRGB]:
        """Returns the ToRGB layers by the number of the layer whose output they read."""
        return {2 * b: block.torgb for b, block in enumerate(self.blocks())}

    def add_colours(self, image: Tensor | None, rgb: Tensor) -> Tensor:
        """Returns the sum of the upsampled image and the colours of the next block."""
        return rgb if image is None else upsample2d(image, self.resample_filter, add=rgb, impl=self.ops)

    def with_weights(self: N, changes: Mapping[str, Tensor], row: int, batch: int) -> N:
        """Returns this network with other weights, which have their own constants, see :func:`.with_changes`."""
        other = super().with_weights(changes, row, batch)
        # For one image, the constants of the fast path take longer than they save: on one core 20 ms instead of 12 ms
        # at 64 px, 836 ms instead of 733 ms at 256 px.
        once = batch == 1 and not torch.is_grad_enabled()
        other.fused = FusedSynthesis() if once else copy.copy(self.fused)
        return other

    def run_modules(
        self,
        segment: Segment,
        x: Tensor | None,
        image: Tensor | None,
        styles: Sequence[Tensor],
        colour_styles: Sequence[Tensor],
        maps: Sequence[Tensor | None],
    ) -> tuple[Tensor, Tensor | None]:
        """Runs the modules of a segment on given styles; for the second derivatives of the fast path."""
        of_colour = dict(zip(segment.colours, colour_styles, strict=True))
        return self.render(
            len(styles[0]),
            lambda layer, x, k: layer(x, None, maps[k - segment.first], styles[k - segment.first]),
            lambda torgb, x, k: torgb(x, None, of_colour[k]),
            segment,
            x,
            image,
        )

    def _runner(self, inputs: StyleInputs, plan: FeaturePlan) -> Runner:
        fused = self.fused.plan(self, [*inputs.tensors(), *plan.tensors()])
        by_modules = super()._runner
        if fused is None:
            return by_modules(inputs, plan)
        named, torgbs = self.named_layers(), self.colour_layers()
        names = list(named)[: len(inputs.maps)]
        styles = [
            inputs.styles[name] if name in inputs.styles else named[name].affine(inputs.code(k))
            for k, name in enumerate(names)
        ]

        def run(
            segment: Segment, x: Tensor | None, image: Tensor | None, returns_x: bool
        ) -> tuple[Tensor | None, Tensor | None]:
            if segment.colours and segment.colours[0] < segment.first:  # reads a changed feature map
                first = Segment(segment.first, segment.first, segment.colours[:1])
                x, image = by_modules(inputs, plan)(first, x, image, True)
                segment = Segment(segment.first, segment.stop, segment.colours[1:])
            if not segment.layers:
                return x, image
            colour_styles = []
            for k in segment.colours:
                code, style = self._colour_style(inputs, names[k], k)
                colour_styles.append(torgbs[k].affine(code) if style is None else style)
            part = slice(segment.first, segment.stop)
            return run_segment(
                self, fused, segment, x, image, styles[part], colour_styles, inputs.maps[part], returns_x
            )

        return run

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SynthesisNetwork:
        self.fused.clear()  # the constants of weights that move to another device or dtype are dropped
        super()._apply(fn, recurse)
        return self
