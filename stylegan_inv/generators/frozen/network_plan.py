"""What the fused kernels need of a frozen network: constants of its weights, and the best kernels for each layer."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from stylegan_inv.generators.frozen import native_layer
from stylegan_inv.generators.frozen.frozen_layer import ColourConvolution, FrozenLayer, StyledConvolution
from stylegan_inv.generators.frozen.native_layer import NativeKernels
from stylegan_inv.generators.frozen.torch_layer import TorchKernels
from stylegan_inv.utils import compat

_LOW_PRECISION_FROM = 64  # pixels: below, bfloat16 would cost accuracy and save nothing
_LARGE_BYTES = 64 << 20


class Block(Protocol):
    """The layers of one resolution."""

    torgb: Any

    def layers(self) -> Sequence[Any]:
        """The synthesis layers; the last one is read by ``torgb``."""


class Network(Protocol):
    """The attributes of a synthesis network that the fast path reads, see :class:`.SynthesisNetwork`."""

    ops: str

    @property
    def const(self) -> Tensor:
        """The constant input, ``(C, 4, 4)``."""

    def blocks(self) -> Sequence[Any]:
        """One :class:`Block` for each resolution."""


@dataclass
class Switches:
    """How the fast path computes.

    Attributes:
        dtype: Of the convolutions and activations from 64 pixels on; None for that of the weights.
        recompute: Whether backward computes the last layer's activation, the largest of all, again instead of keeping
            it; None to do so where it is larger than 64 MB.
        native: Whether to use the C++ kernels where they can be compiled.
    """

    dtype: torch.dtype | None = None
    recompute: bool | None = None
    native: bool = True


@dataclass
class Plan:
    """The constants of a network.

    Attributes:
        const: Input of the first layer, ``(1, 4, 4, C)``.
        layers: Constants of each layer.
        colour_bias: Bias ``(colours, 1, 1)`` of the ToRGB layers, by the number of the layer that they read.
        colour_clamp: Largest magnitude of their outputs; None for none.
        switches: How to compute.
    """

    const: Tensor
    layers: list[FrozenLayer]
    colour_bias: dict[int, Tensor]
    colour_clamp: float | None
    switches: Switches

    @classmethod
    def of(cls, network: Network, switches: Switches) -> Plan:
        """Reads the constants from the modules."""
        layers: list[FrozenLayer] = []
        biases: dict[int, Tensor] = {}
        for block in network.blocks():
            *first, last = block.layers()
            layers += [FrozenLayer.of(layer, None) for layer in first] + [FrozenLayer.of(last, block.torgb)]
            biases[len(layers) - 1] = block.torgb.bias.detach()[:, None, None]
        return cls(
            const=network.const.detach().permute(1, 2, 0)[None].contiguous(),
            layers=layers,
            colour_bias=biases,
            colour_clamp=block.torgb.conv_clamp,
            switches=switches,
        )

    @property
    def kernels(self) -> TorchKernels | NativeKernels:
        """The fastest kernels for this network."""
        native = None
        colours = len(self.colour_bias[0])
        if self.switches.native and self.const.dtype == torch.float32 and colours <= native_layer.MOST_COLOURS:
            native = native_kernels()
        return native or _torch_kernels(None)

    def kernels_of(self, layer: FrozenLayer) -> TorchKernels | NativeKernels:
        """Returns the fastest kernels for a layer."""
        low = self.switches.dtype is not None and layer.resolution >= _LOW_PRECISION_FROM
        return _torch_kernels(self.switches.dtype) if low else self.kernels

    def keeps(self, layer: FrozenLayer, batch: int) -> bool:
        """Returns whether backward gets the output of ``layer``; only the network's last layer is computed again."""
        if layer is not self.layers[-1]:
            return True
        size = batch * layer.resolution**2 * len(layer.bias) * layer.bias.element_size()
        return size <= _LARGE_BYTES if self.switches.recompute is None else not self.switches.recompute


native_kernels = functools.cache(native_layer.load)
_torch_kernels = functools.cache(TorchKernels)


def is_plain(tensors: Sequence[Tensor]) -> bool:
    """Returns whether ordinary execution on ordinary tensors of one dtype in the memory of the CPU is asked for."""
    if torch.compiler.is_compiling() or compat.inside_functorch():
        return False
    if torch.is_autocast_enabled("cpu") or compat.inside_forward_ad():
        return False
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(
        type(t) in (Tensor, nn.Parameter) and t.dtype == dtype and compat.is_plain_cpu_tensor(t) for t in tensors
    )


def weights_of(network: Network) -> list[Tensor] | None:
    """Returns the tensors that the constants are computed from; None where a hook observes the modules."""
    modules: list[Any] = []
    weights: list[Tensor] = [network.const]
    for block in network.blocks():
        torgb: ColourConvolution = block.torgb
        layers: Sequence[StyledConvolution] = block.layers()
        modules += [torgb, *layers]
        weights += [torgb.weight, torgb.bias]
        for layer in layers:
            weights += [layer.weight, layer.bias, layer.noise_strength]
    return None if compat.has_hooks(modules) else weights
