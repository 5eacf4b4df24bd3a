"""The two passes of a frozen synthesis layer in plain PyTorch operations, in float32, float64 or bfloat16."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.generators.frozen.frozen_layer import Epilogue, FrozenLayer
from stylegan_inv.generators.ops import FILTER_TAPS, setup_filter, upfirdn2d, upsample2d

_FILTER = setup_filter(FILTER_TAPS)


class TorchKernels:
    """The two passes in plain PyTorch operations; activations are ``(B, H, W, C)`` in memory.

    Args:
        dtype: Of the convolutions and of their outputs; None for that of the weights.
    """

    def __init__(self, dtype: torch.dtype | None = None) -> None:
        self.dtype = dtype
        self.name = f"torch {dtype}"

    def forward(
        self, layer: FrozenLayer, x: Tensor, style: Tensor, epilogue: Epilogue, keep: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """Runs one layer.

        Args:
            layer: Constants of the layer.
            x: ``(B or 1, h, w, I)``.
            style: ``(B, I)``.
            epilogue: What follows the convolution.
            keep: Whether y is returned.

        Returns:
            y ``(B, H, W, O)`` or None, and rgb ``(B, colours, H, W)`` or None where no ToRGB runs.
        """
        y = self._convolve(layer, x * style[:, None, None, :])
        y = torch.addcmul(layer.bias.to(y.dtype), y, epilogue.demod[:, None, None, :].to(y.dtype), out=y)
        if epilogue.noise is not None:
            y += epilogue.noise[..., None].to(y.dtype)
        y = F.leaky_relu_(y, layer.slope)
        if layer.clamp < math.inf:
            y.clamp_(-layer.clamp, layer.clamp)
        rgb = None
        if epilogue.colour is not None:
            size = (epilogue.colour.shape[1], *y.shape[1:3])
            rgb = (epilogue.colour @ y.flatten(1, 2).transpose(1, 2).to(epilogue.colour.dtype)).view(-1, *size)
        return y if keep else None, rgb

    def backward(
        self,
        layer: FrozenLayer,
        x: Tensor,
        style: Tensor,
        epilogue: Epilogue,
        y: Tensor | None,
        grad: Tensor | None,
        before: Epilogue | None,
        reuse: bool,
    ) -> tuple[Tensor | None, Tensor]:
        """Computes the gradients of one layer, and sets ``sums`` and ``grad_noise`` of the epilogues.

        Args:
            layer: Constants of the layer.
            x: The input of forward.
            style: The style of forward.
            epilogue: The epilogue of forward.
            y: The output of forward, read where ``grad`` is None; computed again where both are None.
            grad: Gradient of the output of this layer's convolution, as this function returned it for the next layer;
                None for the last layer, whose gradient is ``epilogue.grad_rgb``.
            before: Epilogue of the layer that computed x, with its ``grad_rgb``; None where x needs no gradient.
            reuse: Whether the memory of x may be overwritten.

        Returns:
            The gradient of the output of the previous layer's convolution, shaped as x, or None; and the gradient of
            the style ``(B, I)`` without the demodulation's part.
        """
        if grad is None:
            if y is None:
                y, _ = self.forward(layer, x, style, epilogue, keep=True)
            assert y is not None
            grad = activation_gradient(epilogue, y, None)
        grad_xs = self._transposed(layer, grad).to(style.dtype)
        grad_style = torch.einsum("bhwc,bhwc->bc", grad_xs, x.to(style.dtype).expand_as(grad_xs))
        if before is None:
            return None, grad_style
        return activation_gradient(before, x, (grad_xs * style[:, None, None, :]).to(x.dtype)), grad_style

    @staticmethod
    def give_back(layer: FrozenLayer, y: Tensor) -> None:
        """Receives the memory of an output of ``layer`` that is no longer needed; this implementation drops it."""

    @staticmethod
    def upsample_add(image: Tensor, rgb: Tensor) -> None:
        """Adds the upsampled image ``(B, colours, r, r)`` to ``rgb`` ``(B, colours, 2r, 2r)`` in place."""
        rgb += upsample2d(image, _FILTER, impl="ref")

    @staticmethod
    def downsample(grad: Tensor) -> Tensor:
        """Returns the gradient of the image from that of the upsampled image, the adjoint of :meth:`upsample_add`."""
        return upfirdn2d(grad, _FILTER, down=2, padding=1, gain=4.0, impl="ref")

    def _weights(self, layer: FrozenLayer) -> list[Tensor]:
        """Returns the weight in the form that the convolutions read, computed once."""
        if self.name not in layer.prepared:
            w = layer.weight.to(self.dtype or layer.weight.dtype)
            # A transposed convolution by the parity of the output's row and column: a 2x2, 2x1, 1x2 and 1x1
            # convolution. Together they do the same work as one call, which takes twice as long on large images.
            rows = ((2, 0), (1,)) if layer.up == 2 else ((0, 1, 2),)
            parts = [w[:, :, list(i)][:, :, :, list(j)] for i in rows for j in rows]
            parts.append(w.transpose(0, 1) if layer.up == 2 else w)  # for backward
            layer.prepared[self.name] = [p.contiguous(memory_format=torch.channels_last) for p in parts]
        weights: list[Tensor] = layer.prepared[self.name]
        return weights

    def _convolve(self, layer: FrozenLayer, xs: Tensor) -> Tensor:
        weights = self._weights(layer)
        x = xs.to(weights[0].dtype).permute(0, 3, 1, 2)  # a view in channels_last
        if layer.up == 1:
            return F.conv2d(x, weights[0], padding=1).permute(0, 2, 3, 1).contiguous()
        batch, h, w = xs.shape[:3]
        u = x.new_empty(batch, 2 * h + 1, 2 * w + 1, layer.weight.shape[0]).permute(0, 3, 1, 2)
        for index, part in enumerate(weights[:4]):
            i, j = divmod(index, 2)
            u[:, :, i::2, j::2] = F.conv2d(x, part, padding=(1 - i, 1 - j))
        return F.conv2d(u, _blur(u), padding=1, groups=u.shape[1]).permute(0, 2, 3, 1).contiguous()

    def _transposed(self, layer: FrozenLayer, grad: Tensor) -> Tensor:
        w = self._weights(layer)[-1]
        g = grad.to(w.dtype).permute(0, 3, 1, 2)
        if layer.up == 2:  # the filter is symmetric
            g = F.conv2d(F.conv2d(g, _blur(g), padding=2, groups=g.shape[1]), w, stride=2)
        else:
            g = F.conv_transpose2d(g, w, padding=1)
        return g.permute(0, 2, 3, 1).contiguous()


def activation_gradient(epilogue: Epilogue, y: Tensor, grad: Tensor | None) -> Tensor:
    """Returns the gradient of the convolution's output and sets ``sums`` and ``grad_noise`` of the epilogue.

    Args:
        epilogue: Of the layer that computed y.
        y: ``(B, H, W, O)``.
        grad: Gradient of y without ToRGB's part, which ``epilogue.grad_rgb`` adds; it is overwritten. None for zero.
    """
    rows = y.flatten(1, 2)  # (B, HW, O)
    sums = []
    if epilogue.colour is not None and epilogue.grad_rgb is not None:
        grad_rgb = epilogue.grad_rgb.flatten(2).to(y.dtype)  # (B, colours, HW)
        sums.append(grad_rgb @ rows)
        coloured = (grad_rgb.transpose(1, 2) @ epilogue.colour.to(y.dtype)).view_as(y)
        grad = coloured if grad is None else grad.add_(coloured)
    assert grad is not None
    if epilogue.layer.clamp < math.inf:
        grad = grad.masked_fill_(y.abs() >= epilogue.layer.clamp, 0)
    dz: Tensor = torch.ops.aten.leaky_relu_backward(grad, y, epilogue.layer.slope, True)
    columns = dz.flatten(1, 2)
    if epilogue.noise is None:
        with_noise = columns.new_zeros(columns.shape[0], 1, columns.shape[2])
    else:
        with_noise = epilogue.noise.flatten(1)[:, None].to(y.dtype) @ columns
    first = [columns.sum(dim=1, keepdim=True), (grad.flatten(1, 2) * rows).sum(dim=1, keepdim=True), with_noise]
    epilogue.sums = torch.cat(first + sums, dim=1).to(epilogue.demod.dtype)
    if epilogue.wants_noise:
        epilogue.grad_noise = dz.sum(dim=3).to(epilogue.demod.dtype)
    return dz.mul_(epilogue.demod[:, None, None, :].to(dz.dtype))


def _blur(like: Tensor) -> Tensor:
    """Returns the filter after a transposed convolution of stride 2; its gain compensates the inserted zeros."""
    taps = _FILTER.to(like) * 2
    return torch.outer(taps, taps).expand(like.shape[1], 1, -1, -1)
