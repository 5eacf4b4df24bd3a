"""Parts that the networks of StyleGAN2 share: the table of channels and the layer with equalised learning rate."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import bias_act
from stylegan_inv.generators.ops.dispatch import full_precision


def resolutions(resolution: int) -> list[int]:
    """Returns the resolutions of the blocks, ``[4, 8, ..., resolution]``.

    Raises:
        UserError: ``resolution`` is not a power of two of at least 4.
    """
    if resolution < 4 or resolution & (resolution - 1):
        raise UserError(f"resolution must be a power of two and at least 4, got {resolution}")
    return [2**k for k in range(2, resolution.bit_length())]


def channel_table(resolution: int, channel_base: int = 32768, channel_max: int = 512) -> dict[int, int]:
    """Returns the channels at each resolution: ``min(channel_base // r, channel_max)``.

    Args:
        resolution: Side of the image in pixels.
        channel_base: 32768 for config F (``channel_multiplier=2`` in rosinality's code), 16384 for half of it.
        channel_max: Largest number of channels.
    """
    return {r: min(channel_base // r, channel_max) for r in resolutions(resolution)}


def resolve_channels(
    resolution: int, channels: Mapping[int, int] | None, channel_base: int, channel_max: int
) -> dict[int, int]:
    """Returns the given table, checked, or that of :func:`channel_table`.

    Args:
        resolution: Side of the image in pixels.
        channels: Resolution -> channels; None for :func:`channel_table`.
        channel_base: See :func:`channel_table`.
        channel_max: See :func:`channel_table`.

    Raises:
        UserError: A table without a positive number for each resolution.
    """
    if channels is None:
        return channel_table(resolution, channel_base, channel_max)
    table = {int(r): int(c) for r, c in channels.items()}  # JSON turns the keys into strings
    wanted = resolutions(resolution)
    if sorted(table) != wanted or min(table.values()) < 1:
        raise UserError(f"channels must give a positive number for each of the resolutions {wanted}, got {table}")
    return table


def normal(*shape: int, std: float = 1.0) -> Tensor:
    """Returns normal random numbers; draws none on the meta device, where weights are about to be read from a file."""
    x = torch.empty(shape)
    return x if x.is_meta else x.normal_(std=std)


def normalize_2nd_moment(x: Tensor, dim: int = 1, eps: float = 1e-8) -> Tensor:
    """Returns ``x / sqrt(mean(x^2) + eps)`` along ``dim``."""
    return x * (x.square().mean(dim=dim, keepdim=True) + eps).rsqrt()


def shared(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the mean of the weights ``(O, ...)`` and of the bias ``(O,)`` over the outputs, for each output."""
    return weight.mean(dim=0, keepdim=True).expand_as(weight), bias.mean().expand_as(bias)


class FullyConnected(nn.Module):
    """Linear layer with equalised learning rate: ``act(x @ (W * lr_mul / sqrt(in)).T + b * lr_mul)``.

    ``W`` is initialised from ``N(0, 1) / lr_mul``, ``b`` with ``bias_init / lr_mul``.

    Args:
        in_features: Size of the input.
        out_features: Size of the output.
        activation: ``linear`` or ``lrelu``.
        lr_multiplier: ``lr_mul``.
        bias_init: Initial value of the bias term.
        ops: Implementation of the operations, see :mod:`.ops.dispatch`.
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
        self.weight = nn.Parameter(normal(out_features, in_features, std=1 / lr_multiplier))
        self.bias = nn.Parameter(torch.full((out_features,), bias_init / lr_multiplier))

    def forward(self, x: Tensor) -> Tensor:
        """Returns ``(B, out_features)`` for ``x`` ``(B, in_features)``."""
        bias = self.bias * self.bias_gain if self.bias_gain != 1 else self.bias
        with full_precision(x):  # an error of a code or style would be visible in the whole image
            x = torch.addmm(bias, x.to(bias.dtype), self.weight.t(), alpha=self.weight_gain)
        return bias_act(x, act=self.activation, impl=self.ops)
