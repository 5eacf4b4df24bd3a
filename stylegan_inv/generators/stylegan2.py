"""StyleGAN2: mapping network, synthesis network (skip) and discriminator (residual).

"Analyzing and Improving the Image Quality of StyleGAN", Karras, Laine, Aittala, Hellsten, Lehtinen, Aila, CVPR 2020,
arXiv 1912.04958, configuration F at any resolution and channel table. Definition: https://github.com/NVlabs/stylegan2
(commit bf0fe0b); the state-dict names are those of https://github.com/NVlabs/stylegan2-ada-pytorch (d72cc7d).

What differs from the references: nothing in the numbers. Modulation scales the activations instead of the weights
(see :mod:`.ops.modulated_conv`), and the FIR filters are not stored with the weights.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import (
    bias_act,
    conv2d_resample,
    dispatch,
    modulated_conv2d,
    setup_filter,
    styled_conv2d,
    upsample2d,
    weight_squares,
)
from stylegan_inv.generators.ops.dispatch import full_precision

FILTER_TAPS = (1, 3, 3, 1)


def resolutions(resolution: int) -> list[int]:
    """``[4, 8, ..., resolution]``.

    Raises:
        UserError: ``resolution`` is not a power of two of at least 4.
    """
    if resolution < 4 or resolution & (resolution - 1):
        raise UserError(f"resolution must be a power of two and at least 4, got {resolution}")
    return [2**k for k in range(2, resolution.bit_length())]


def channel_table(resolution: int, channel_base: int = 32768, channel_max: int = 512) -> dict[int, int]:
    """Channels at each resolution: ``min(channel_base // r, channel_max)``.

    ``channel_base`` 32768 is config F (rosinality's ``channel_multiplier`` 2), 16384 is half of it.
    """
    return {r: min(channel_base // r, channel_max) for r in resolutions(resolution)}


def _resolve_channels(
    resolution: int, channels: Mapping[int, int] | None, channel_base: int, channel_max: int
) -> dict[int, int]:
    if channels is None:
        return channel_table(resolution, channel_base, channel_max)
    table = {int(r): int(c) for r, c in channels.items()}  # JSON turns the keys into strings
    wanted = resolutions(resolution)
    if sorted(table) != wanted or min(table.values()) < 1:
        raise UserError(f"channels must give a positive number for each of the resolutions {wanted}, got {table}")
    return table


def _normal(*shape: int, std: float = 1.0) -> Tensor:
    """Normal numbers; on the meta device (a network about to be filled from a file) nothing is drawn."""
    x = torch.empty(shape)
    return x if x.is_meta else x.normal_(std=std)


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """``x / sqrt(mean(x^2) + eps)`` along ``dim``."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: ``act(x @ (W * lr_mul / sqrt(in)).T + b * lr_mul)``.

    ``W`` is initialised from ``N(0, 1) / lr_mul``, ``b`` with ``bias_init / lr_mul``.
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        activation: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        self.activation = activation
        self.ops = ops
        self.weight_gain = lr_multiplier / math.sqrt(in_features)
        self.bias_gain = lr_multiplier
        self.weight = nn.Parameter(_normal(out_features, in_features, std=1 / lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        """``(B, in_features)`` -> ``(B, out_features)``."""
        bias = self.bias * self.bias_gain if self.bias_gain != 1 else self.bias
        with full_precision(x):  # codes and styles act on whole images: their error would be seen everywhere
            x = torch.addmm(bias, x.to(bias.dtype), self.weight.t(), alpha=self.weight_gain)
        return bias_act(x, act=self.activation, impl=self.ops)


class MappingNetwork(nn.Module):
    """``z`` (and a condition) -> ``w``, one row per synthesis layer.

    Args:
        z_dim: size of ``z``; 0 for a network of the condition alone.
        c_dim: size of the condition; 0 for none.
        w_dim: size of ``w`` and of every hidden layer.
        num_ws: rows of the output.
        num_layers: depth.
        lr_multiplier: of the equalised layers.
        ops: implementation of the operations.
    """

    w_avg: Tensor

    def __init__(
        self,
        z_dim: int,
        c_dim: int,
        w_dim: int,
        num_ws: int,
        *,
        num_layers: int = 8,
        lr_multiplier: float = 0.01,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        if z_dim + c_dim < 1 or num_layers < 1 or w_dim < 1:
            raise UserError(
                f"a mapping network needs an input, an output and a layer, got z_dim={z_dim}, c_dim={c_dim}, "
                f"w_dim={w_dim}, mapping_layers={num_layers}"
            )
        self.z_dim, self.c_dim, self.w_dim, self.num_ws, self.num_layers = z_dim, c_dim, w_dim, num_ws, num_layers
        features = z_dim
        if c_dim > 0:
            self.embed = FullyConnected(c_dim, w_dim, ops=ops)
            features += w_dim
        for i in range(num_layers):
            layer = FullyConnected(features, w_dim, activation="lrelu", lr_multiplier=lr_multiplier, ops=ops)
            self.add_module(f"fc{i}", layer)
            features = w_dim
        if z_dim > 0:
            self.register_buffer("w_avg", torch.zeros(w_dim))

    def w(self, z: Tensor | None, c: Tensor | None = None) -> Tensor:
        """One ``w`` per sample, not truncated: ``(B, z_dim)`` [and ``(B, c_dim)``] -> ``(B, w_dim)``.

        Raises:
            UserError: inputs of other shapes, or a condition where the network has none (or the reverse).
        """
        parts = []
        if self.z_dim > 0:
            if z is None or z.ndim != 2 or z.shape[1] != self.z_dim:
                got = None if z is None else tuple(z.shape)
                raise UserError(f"z must have shape (B, {self.z_dim}), got {got}")
            parts.append(normalize_2nd_moment(z))
        if self.c_dim > 0:
            if c is None or c.ndim != 2 or c.shape[1] != self.c_dim:
                got = None if c is None else tuple(c.shape)
                raise UserError(f"this generator is conditional: c must have shape (B, {self.c_dim}), got {got}")
            parts.append(normalize_2nd_moment(self.embed(c)))
        elif c is not None:
            raise UserError(f"this generator has no condition (c_dim=0), got c of shape {tuple(c.shape)}")
        x = torch.cat(parts, dim=1) if len(parts) > 1 else parts[0]
        for i in range(self.num_layers):
            x = getattr(self, f"fc{i}")(x)
        return x

    def forward(
        self, z: Tensor | None, psi: float = 1.0, cutoff: int | None = None, *, c: Tensor | None = None
    ) -> Tensor:
        """Codes with truncation ``w_avg + psi * (w - w_avg)`` (Karras et al. 2019, appendix B).

        Args:
            z: ``(B, z_dim)``, standard normal.
            psi: 1 keeps ``w``, 0 gives the average.
            cutoff: truncate only this many of the first layers; None for all.
            c: condition ``(B, c_dim)`` of a conditional generator.

        Returns:
            ``(B, num_ws, w_dim)``.
        """
        ws = self.w(z, c)[:, None].expand(-1, self.num_ws, -1)
        if psi == 1:
            return ws
        if cutoff is None or cutoff >= self.num_ws:
            return torch.lerp(self.w_avg, ws, psi)
        return torch.cat([torch.lerp(self.w_avg, ws[:, :cutoff], psi), ws[:, cutoff:]], dim=1)


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
        self.weight = nn.Parameter(_normal(out_channels, in_channels, 3, 3))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.register_buffer("noise_const", _normal(resolution, resolution))
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
        return styled_conv2d(
            x,
            self.weight,
            self.affine(w),
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
        self.weight = nn.Parameter(_normal(img_channels, in_channels, 1, 1))
        self.bias = nn.Parameter(torch.zeros(img_channels))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        """``(B, C, r, r)``, ``(B, w_dim)`` -> ``(B, img_channels, r, r)``."""
        y = modulated_conv2d(x, self.weight, self.affine(w) * self.weight_gain, demodulate=False, impl=self.ops)
        return bias_act(y, self.bias, clamp=self.conv_clamp, impl=self.ops)


class SynthesisBlock(nn.Module):
    """The layers of one resolution: (upsampling conv0,) conv1 and torgb."""

    def __init__(
        self, in_channels: int, out_channels: int, w_dim: int, resolution: int, img_channels: int, **layer: Any
    ) -> None:
        super().__init__()
        if resolution == 4:
            self.const = nn.Parameter(_normal(out_channels, 4, 4))
        else:
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, up=2, **layer)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, **layer)
        self.torgb = ToRGB(
            out_channels, img_channels, w_dim, conv_clamp=layer.get("conv_clamp"), ops=layer.get("ops", "auto")
        )


class SynthesisNetwork(nn.Module):
    """W+ codes -> image."""

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
        return [layer for layer in self.modules() if isinstance(layer, SynthesisLayer)]

    def noise_maps(self) -> list[Tensor]:
        """The stored noise, one ``(1, 1, r, r)`` tensor per layer: what ``noise="const"`` uses."""
        return [layer.noise_const[None, None] for layer in self.layers()]

    def _noise(self, noise: str | Sequence[Tensor], batch: int, like: Tensor) -> list[Tensor | None]:
        layers = self.layers()
        if isinstance(noise, str):
            if noise == "const":
                return [layer.noise_const[None, None] for layer in layers]
            if noise == "none":
                return [None] * len(layers)
            if noise == "random":
                return [
                    torch.randn(batch, 1, layer.resolution, layer.resolution, dtype=like.dtype, device=like.device)
                    for layer in layers
                ]
            raise UserError(f'noise must be "const", "random", "none" or a list of maps, got {noise!r}')
        maps = list(noise)
        if len(maps) != len(layers):
            raise UserError(f"expected {len(layers)} noise maps, one per layer, got {len(maps)}")
        for layer, given in zip(layers, maps, strict=True):
            r = layer.resolution
            if given.ndim != 4 or given.shape[0] not in (1, batch) or given.shape[1:] != (1, r, r):
                raise UserError(f"expected a noise map of shape (1 or {batch}, 1, {r}, {r}), got {tuple(given.shape)}")
        return list(maps)

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
        if w.ndim != 3 or w.shape[1:] != (self.num_ws, self.w_dim):
            raise UserError(
                f"codes must have shape (B, {self.num_ws}, {self.w_dim}), got {tuple(w.shape)}; "
                f"one w per image becomes that by w[:, None].expand(-1, {self.num_ws}, -1)"
            )
        batch = w.shape[0]
        maps = iter(self._noise(noise, batch, w))
        rows = w.unbind(dim=1)
        # channels_last: the convolutions and filters of a CPU are up to twice as fast in it.
        const = self.get_parameter("b4.const")
        x = const[None].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)
        image: Tensor | None = None
        index = 0  # torgb of a block and conv0 of the next one read the same row
        for r in self.resolutions:
            block = getattr(self, f"b{r}")
            if r > 4:
                x = block.conv0(x, rows[index], next(maps))
                index += 1
            x = block.conv1(x, rows[index], next(maps))
            index += 1
            rgb = block.torgb(x, rows[index])
            image = rgb if image is None else upsample2d(image, self.resample_filter, impl=self.ops) + rgb
        return image.contiguous()  # type: ignore[union-attr]


class Generator(nn.Module):
    """StyleGAN2 generator.

    Args:
        resolution: side of the image in pixels, a power of two of at least 4.
        z_dim: size of the input noise vector.
        w_dim: size of a style code.
        mapping_layers: depth of the mapping network.
        channels: resolution -> channels for each of 4, 8, ..., ``resolution``; None for the rule of
            :func:`channel_table`.
        channel_base: for ``channels=None``.
        channel_max: for ``channels=None``.
        c_dim: size of the condition, 0 for an unconditional generator.
        img_channels: of the image.
        conv_clamp: largest magnitude of any activation, or None.
        mapping_lr_multiplier: of the equalised mapping layers.
        demod_eps_scaled: where demodulation adds its 1e-8: True as TensorFlow and rosinality, False as NVIDIA's
            PyTorch code. Invisible unless styles collapse to zero.
        ops: implementation of the operations, see :mod:`.ops.dispatch`.

    Attributes:
        config: plain dict; ``Generator(**config)`` builds the same network.
        num_ws: rows of a W+ code, ``2 * log2(resolution) - 2``.
        source_hash: sha256 of the file it was loaded from, or None.
    """

    def __init__(
        self,
        resolution: int,
        *,
        z_dim: int = 512,
        w_dim: int = 512,
        mapping_layers: int = 8,
        channels: Mapping[int, int] | None = None,
        channel_base: int = 32768,
        channel_max: int = 512,
        c_dim: int = 0,
        img_channels: int = 3,
        conv_clamp: float | None = None,
        mapping_lr_multiplier: float = 0.01,
        demod_eps_scaled: bool = True,
        ops: str = "auto",
    ) -> None:
        super().__init__()
        dispatch.check(ops)
        table = _resolve_channels(resolution, channels, channel_base, channel_max)
        self.resolution = resolution
        self.z_dim = z_dim
        self.w_dim = w_dim
        self.c_dim = c_dim
        self.img_channels = img_channels
        self.channels = table
        self.source_hash: str | None = None
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "z_dim": z_dim,
            "w_dim": w_dim,
            "mapping_layers": mapping_layers,
            "channels": dict(table),
            "c_dim": c_dim,
            "img_channels": img_channels,
            "conv_clamp": conv_clamp,
            "mapping_lr_multiplier": mapping_lr_multiplier,
            "demod_eps_scaled": demod_eps_scaled,
            "ops": ops,
        }
        self.synthesis = SynthesisNetwork(
            resolution,
            table,
            w_dim,
            img_channels,
            conv_clamp=conv_clamp,
            demod_eps_scaled=demod_eps_scaled,
            ops=ops,
        )
        self.num_ws = self.synthesis.num_ws
        self.mapping = MappingNetwork(
            z_dim,
            c_dim,
            w_dim,
            self.num_ws,
            num_layers=mapping_layers,
            lr_multiplier=mapping_lr_multiplier,
            ops=ops,
        )

    @property
    def w_avg(self) -> Tensor:
        """The tracked mean of w, ``(w_dim,)``."""
        return self.mapping.w_avg

    @torch.no_grad()
    def update_w_avg(self, w: Tensor, beta: float = 0.998) -> None:
        """Move the tracked mean: ``w_avg <- mean(w) + beta * (w_avg - mean(w))``.

        Args:
            w: untruncated codes ``(B, w_dim)`` or ``(B, num_ws, w_dim)`` (its first row is used).
            beta: weight of the past.
        """
        w = w.detach()[:, 0] if w.ndim == 3 else w.detach()
        self.w_avg.copy_(w.to(self.w_avg.dtype).mean(dim=0).lerp(self.w_avg, beta))

    def freeze(self) -> Generator:
        """Set evaluation mode, stop all weight gradients and compute once what depends on the weights alone."""
        self.eval().requires_grad_(False)
        for layer in self.synthesis.layers():
            layer.cache_squares = True
        return self

    def forward(
        self,
        z: Tensor,
        psi: float = 1.0,
        noise: str | Sequence[Tensor] = "const",
        *,
        cutoff: int | None = None,
        c: Tensor | None = None,
    ) -> Tensor:
        """``z`` ``(B, z_dim)`` -> images ``(B, img_channels, R, R)``; see the mapping and synthesis networks."""
        return self.synthesis(self.mapping(z, psi, cutoff, c=c), noise=noise)


class ConvLayer(nn.Module):
    """Convolution with equalised learning rate, optional 2x downsampling, bias and activation.

    The stored weight is ``N(0, 1)`` and is used divided by ``sqrt(in_channels * k * k)``.
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
        self.weight = nn.Parameter(_normal(out_channels, in_channels, kernel_size, kernel_size))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.register_buffer("resample_filter", setup_filter(FILTER_TAPS), persistent=False)

    def forward(self, x: Tensor, gain: float = 1.0) -> Tensor:
        """``(B, I, H, W)`` -> ``(B, O, H / down, W / down)``, multiplied by ``gain``."""
        act_gain = (math.sqrt(2.0) if self.activation == "lrelu" else 1.0) * gain
        clamp = None if self.conv_clamp is None else self.conv_clamp * gain
        # Positive homogeneity of the leaky ReLU again: the gain goes into the weight and the bias.
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
    """Residual block that halves the resolution; the first one also reads the image."""

    def __init__(
        self, in_channels: int, out_channels: int, img_channels: int | None, conv_clamp: float | None, ops: str
    ) -> None:
        super().__init__()
        if img_channels is not None:
            self.fromrgb = ConvLayer(img_channels, in_channels, 1, activation="lrelu", conv_clamp=conv_clamp, ops=ops)
        self.conv0 = ConvLayer(in_channels, in_channels, 3, activation="lrelu", conv_clamp=conv_clamp, ops=ops)
        self.conv1 = ConvLayer(in_channels, out_channels, 3, activation="lrelu", down=2, conv_clamp=conv_clamp, ops=ops)
        self.skip = ConvLayer(in_channels, out_channels, 1, bias=False, down=2, ops=ops)
        self.has_rgb = img_channels is not None

    def forward(self, x: Tensor) -> Tensor:
        """``(B, I, r, r)`` -> ``(B, O, r/2, r/2)``."""
        if self.has_rgb:
            x = self.fromrgb(x)
        y = self.skip(x, gain=math.sqrt(0.5))
        return self.conv1(self.conv0(x), gain=math.sqrt(0.5)) + y


def minibatch_stddev(x: Tensor, group_size: int = 4, num_features: int = 1) -> Tensor:
    """Standard deviation over groups of samples as extra channels (Karras et al. 2018, section 3).

    Sample ``n`` of ``N`` belongs to group ``n mod (N / G)`` with ``G = min(group_size, N)``.

    Args:
        x: ``(N, C, H, W)``.
        group_size: samples per group.
        num_features: channels to append; ``C`` must be a multiple of it.

    Returns:
        The appended channels only, ``(N, num_features, H, W)``.

    Raises:
        UserError: the batch does not split into groups.
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
    """The 4x4 end of the discriminator: minibatch statistics, convolution, two linear layers."""

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
        self.has_rgb = img_channels is not None
        if img_channels is not None:
            self.fromrgb = ConvLayer(img_channels, channels, 1, activation="lrelu", conv_clamp=conv_clamp, ops=ops)
        self.conv = ConvLayer(
            channels + mbstd_features, channels, 3, activation="lrelu", conv_clamp=conv_clamp, ops=ops
        )
        self.fc = FullyConnected(channels * 16, channels, activation="lrelu", ops=ops)
        self.out = FullyConnected(channels, out_features, ops=ops)

    def forward(self, x: Tensor) -> Tensor:
        """``(B, C, 4, 4)`` -> ``(B, out_features)``."""
        if self.has_rgb:
            x = self.fromrgb(x)
        if self.mbstd_features > 0:
            x = torch.cat([x, minibatch_stddev(x, self.mbstd_group_size, self.mbstd_features)], dim=1)
        return self.out(self.fc(self.conv(x).flatten(1)))


class Discriminator(nn.Module):
    """StyleGAN2 image discriminator with residual blocks.

    Args:
        resolution: side of the image in pixels.
        channels: resolution -> channels; None for the rule of :func:`channel_table`.
        channel_base: for ``channels=None``.
        channel_max: for ``channels=None``.
        c_dim: size of the condition, 0 for none (projection discriminator otherwise).
        img_channels: of the image.
        mbstd_group_size: samples per group of the minibatch standard deviation.
        mbstd_features: its channels; 0 switches it off.
        conv_clamp: largest magnitude of any activation, or None.
        mapping_layers: depth of the network that maps the condition.
        ops: implementation of the operations.

    Attributes:
        config: plain dict; ``Discriminator(**config)`` builds the same network.
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
        ops: str = "auto",
    ) -> None:
        super().__init__()
        dispatch.check(ops)
        table = _resolve_channels(resolution, channels, channel_base, channel_max)
        self.resolution = resolution
        self.c_dim = c_dim
        self.img_channels = img_channels
        self.channels = table
        self.config: dict[str, Any] = {
            "resolution": resolution,
            "channels": dict(table),
            "c_dim": c_dim,
            "img_channels": img_channels,
            "mbstd_group_size": mbstd_group_size,
            "mbstd_features": mbstd_features,
            "conv_clamp": conv_clamp,
            "mapping_layers": mapping_layers,
            "ops": ops,
        }
        self.resolutions = resolutions(resolution)[::-1]
        for r in self.resolutions[:-1]:
            rgb = img_channels if r == resolution else None
            self.add_module(f"b{r}", DiscriminatorBlock(table[r], table[r // 2], rgb, conv_clamp, ops))
        self.cmap_dim = table[4] if c_dim > 0 else 0
        self.b4 = DiscriminatorEpilogue(
            table[4],
            img_channels if resolution == 4 else None,
            max(self.cmap_dim, 1),
            mbstd_group_size,
            mbstd_features,
            conv_clamp,
            ops,
        )
        if c_dim > 0:
            self.mapping = MappingNetwork(0, c_dim, self.cmap_dim, 1, num_layers=mapping_layers, ops=ops)

    def forward(self, image: Tensor, c: Tensor | None = None) -> Tensor:
        """Logits, larger for images that look real.

        Args:
            image: ``(B, img_channels, R, R)`` in [-1, 1]; ``B`` below the group size or a multiple of it.
            c: condition ``(B, c_dim)`` of a conditional discriminator.

        Returns:
            ``(B, 1)``.

        Raises:
            UserError: an image of another shape, or a batch that does not split into groups.
        """
        expected = (self.img_channels, self.resolution, self.resolution)
        if image.ndim != 4 or image.shape[1:] != expected:
            raise UserError(
                f"the discriminator expects images (B, {', '.join(map(str, expected))}), got {tuple(image.shape)}"
            )
        x = image.contiguous(memory_format=torch.channels_last)
        for r in self.resolutions:
            x = getattr(self, f"b{r}")(x)
        if self.c_dim > 0:
            x = (x * self.mapping.w(None, c)).sum(dim=1, keepdim=True) / math.sqrt(self.cmap_dim)
        elif c is not None:
            raise UserError(f"this discriminator has no condition (c_dim=0), got c of shape {tuple(c.shape)}")
        return x
