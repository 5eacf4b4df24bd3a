"""StyleGAN2's synthesis network with skip connections: W+ -> image (Karras et al. 2020, sections 2 and 4).

Modulation scales the activations instead of the weights (see :mod:`.ops.modulated_conv`), and the FIR filters are not
stored with the weights. The numbers are the references'.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from stylegan_inv.generators.frozen.fused_synthesis import FusedSynthesis, synthesize
from stylegan_inv.generators.layers import FullyConnected, normal, resolutions
from stylegan_inv.generators.ops import (
    FILTER_TAPS,
    bias_act,
    modulated_conv2d,
    setup_filter,
    styled_conv2d,
    upsample2d,
    weight_squares,
)
from stylegan_inv.generators.synthesis_inputs import check_codes, noise_inputs


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
        """Sums of squares for the demodulation of a frozen weight, computed once; None for a trained one."""
        weight = self.weight
        if not self.cache_squares or weight.requires_grad or torch.compiler.is_compiling() or weight.is_inference():
            return None
        if self._squares is not None:
            source, version, squares = self._squares
            same_memory = source.data_ptr() == weight.data_ptr() and source.dtype == weight.dtype
            if same_memory and source.device == weight.device and version == weight._version:
                return squares
        with torch.inference_mode(False), torch.no_grad():
            source = weight.detach()  # kept, so that no other tensor can come to lie at its address
            self._squares = (source, weight._version, weight_squares(source))
        return self._squares[2]

    def forward(self, x: Tensor, w: Tensor, noise: Tensor | None) -> Tensor:
        """``(B, I, r/up, r/up)``, ``(B, w_dim)``, noise ``(1 or B, 1, r, r)`` or None -> ``(B, O, r, r)``."""
        return self.styled(x, self.affine(w), noise)

    def styled(self, x: Tensor, style: Tensor, noise: Tensor | None) -> Tensor:
        """The same from the style ``(B, I)`` that the affine layer makes of w."""
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
    """Modulated 1x1 convolution to the image channels, without demodulation, noise or activation."""

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

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``(B, C, r, r)``, ``(B, w_dim)`` -> ``(B, img_channels, r, r)``."""
        return self.styled(x, self.affine(w))

    def styled(self, x: Tensor, style: Tensor) -> Tensor:
        """The same from the style ``(B, C)`` that the affine layer makes of w."""
        y = modulated_conv2d(x, self.weight, style * self.weight_gain, demodulate=False, impl=self.ops)
        return bias_act(y, self.bias, clamp=self.conv_clamp, impl=self.ops)


class SynthesisBlock(nn.Module):
    """The layers of one resolution: (upsampling conv0,) conv1 and torgb."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int, **layer: Any
    ) -> None:
        super().__init__()
        if resolution == 4:
            self.const = nn.Parameter(normal(out_channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer)
        self.torgb = ToRGB(
            out_channels, img_channels, w_dim, conv_clamp=layer.get("conv_clamp"), ops=layer.get("ops", "auto")
        )

    def layers(self) -> list[SynthesisLayer]:
        """(conv0 and) conv1."""
        return [getattr(self, name) for name in ("conv0", "conv1") if hasattr(self, name)]


def _call(function: Callable[..., Any], *arguments: Any) -> Any:
    return function(*arguments)


class SynthesisNetwork(nn.Module):
    """W+ codes -> image.

    Attributes:
        fused: the fast path of a frozen network on a CPU.
        recompute_blocks: elsewhere (on a GPU, in training) keep the input of each block alone for backward, which
            computes the block again: less memory, about a third more time. :meth:`.Generator.freeze` sets it.
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
        super().__init__()
        self.resolution = resolution
        self.resolutions = resolutions(resolution)
        self.w_dim = w_dim
        self.num_ws = 2 * len(self.resolutions)
        self.ops = ops
        self.fused = FusedSynthesis()
        self.recompute_blocks = False
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

    def layers(self) -> list[SynthesisLayer]:
        """The layers that take noise, in order: b4.conv1, b8.conv0, b8.conv1, ..."""
        return [layer for block in self.blocks() for layer in block.layers()]

    def blocks(self) -> list[SynthesisBlock]:
        """One for each resolution, b4, b8, ..."""
        return [getattr(self, f"b{r}") for r in self.resolutions]

    def noise_maps(self) -> list[Tensor]:
        """The stored noise, one ``(1, 1, r, r)`` tensor per layer: what ``noise="const"`` uses."""
        return [layer.noise_const[None, None] for layer in self.layers()]

    def forward(self, w: Tensor, noise: str | Sequence[Tensor] = "const") -> Tensor:
        """Render W+ codes.

        Args:
            w: ``(B, num_ws, w_dim)``.
            noise: ``"const"`` the stored maps, ``"random"`` fresh ones per sample, ``"none"``, or a list with one
                ``(1 or B, 1, r, r)`` tensor per layer (see :meth:`noise_maps`).

        Returns:
            Images ``(B, img_channels, R, R)``, nominally in [-1, 1] but not clamped.

        Raises:
            UserError: codes or noise of another shape.
        """
        check_codes(w, self.num_ws, self.w_dim)
        batch, rows = w.shape[0], w.unbind(dim=1)
        maps = noise_inputs(self.layers(), noise, batch, w)
        plan = self.fused.plan(self, w, maps)
        if plan is not None:
            styles = [layer.affine(rows[k]) for k, layer in enumerate(self.layers())]
            colour_styles = [block.torgb.affine(rows[2 * b + 1]) for b, block in enumerate(self.blocks())]
            return synthesize(self, plan, styles, colour_styles, maps)
        # ToRGB of a block and conv0 of the next one read the same row.
        return self.render(
            batch,
            lambda layer, x, k: layer(x, rows[k], maps[k]),
            lambda torgb, x, b: torgb(x, rows[2 * b + 1]),
            recompute=self.recompute_blocks and torch.is_grad_enabled(),
        )

    def render(
        self,
        batch: int,
        layer: Callable[[SynthesisLayer, Tensor, int], Tensor],
        torgb: Callable[[ToRGB, Tensor, int], Tensor],
        recompute: bool = False,
    ) -> Tensor:
        """The network with its calls left to the caller.

        Args:
            batch: number of images.
            layer: ``(module, x, k)`` -> output of the k-th layer.
            torgb: ``(module, x, b)`` -> colours of the b-th block.
            recompute: keep the input of each block alone and compute the block again in backward.

        Returns:
            Images ``(batch, img_channels, R, R)``.
        """
        # channels_last: the convolutions and filters of a CPU are up to twice as fast in it.
        const = self.get_parameter("b4.const")
        x = const[None].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        run: Callable[..., Any] = partial(checkpoint, use_reentrant=False) if recompute else _call
        for b in range(len(self.resolutions)):
            x, image = run(self._block, b, x, image, layer, torgb)
        assert image is not None
        return image.contiguous()

    def _block(
        self, b: int, x: Tensor, image: Tensor | None, layer: Callable[..., Tensor], torgb: Callable[..., Tensor]
    ) -> tuple[Tensor, Tensor]:
        block = self.blocks()[b]
        for k, module in enumerate(block.layers(), start=max(2 * b - 1, 0)):
            x = layer(module, x, k)
        rgb = torgb(block.torgb, x, b)
        return x, rgb if image is None else upsample2d(image, self.resample_filter, add=rgb, impl=self.ops)

    def _apply(self, fn: Callable[..., Any], recurse: bool = True) -> SynthesisNetwork:
        self.fused.clear()  # weights that move to another device or dtype leave nothing behind
        return super()._apply(fn, recurse)
