"""Convolutions with resampling, plain and modulated by a style."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import cpu, dispatch, fused_layer
from stylegan_inv.generators.ops.cpu_functions import Conv3x3
from stylegan_inv.generators.ops.dispatch import full_precision
from stylegan_inv.generators.ops.upfirdn2d import upfirdn2d


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    groups: int = 1,
    flip_weight: bool = True,
    bias: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Convolves, with optional upsampling before or downsampling after the convolution by the FIR filter ``f``.

    The filter is centred: the output has ``H * up / down`` rows if ``padding`` is ``k // 2``.

    Args:
        x: Input ``(B, I, H, W)``.
        w: Weight ``(O, I // groups, k, k)``.
        f: Filter, see :func:`.upfirdn2d`; required if ``up`` or ``down`` is not 1.
        up: Upsampling factor, at least 1; the gain is ``up**2``.
        down: Downsampling factor, at least 1. ``up`` and ``down`` cannot be combined.
        padding: Zeros around the (upsampled) input.
        groups: See ``torch.nn.functional.conv2d``.
        flip_weight: True for a correlation (PyTorch's convention), False for a true convolution. With ``up=2``, False
            is the stride-2 transposed convolution with the stored weight, followed by the filter.
        bias: Bias ``(O,)``, added to the output, or None.
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        The output ``(B, O, H', W')``.

    Raises:
        UserError: Impossible factors, or no filter.
    """
    if up < 1 or down < 1 or (up > 1 and down > 1):
        raise UserError(f"expected up and down of at least 1, and one of them 1, got up={up}, down={down}")
    k = w.shape[-1]
    if up == 1 and down == 1:
        if k == 3 and padding == groups == 1 and dispatch.trains_natively(impl, x) and _by_kernel(x, w):
            y: Tensor = Conv3x3.apply(x, w if flip_weight else w.flip(2, 3), bias, False)
            return y
        return F.conv2d(x, w if flip_weight else w.flip(2, 3), bias, padding=padding, groups=groups)
    if f is None:
        raise UserError("resampling needs a filter: pass f=setup_filter([1, 3, 3, 1])")
    fw, fh = (f.shape[0], f.shape[0]) if f.ndim == 1 else (f.shape[1], f.shape[0])

    if down > 1:
        pad = [padding + (fw - down + 1) // 2, padding + (fw - down) // 2]
        pad += [padding + (fh - down + 1) // 2, padding + (fh - down) // 2]
        kernel = w if flip_weight else w.flip(2, 3)
        if k == 1:  # downsample while filtering, so that the 1x1 convolution has fewer pixels
            x = upfirdn2d(x, f, down=down, padding=pad, impl=impl)
            return F.conv2d(x, kernel, bias, groups=groups)
        x = upfirdn2d(x, f, padding=pad, impl=impl)
        return F.conv2d(x, kernel, bias, stride=down, groups=groups)

    pad = [padding + (fw + up - 1) // 2, padding + (fw - up) // 2]
    pad += [padding + (fh + up - 1) // 2, padding + (fh - up) // 2]
    gain = float(up * up)
    if k == 1:  # a 1x1 convolution commutes with the filter, so it runs on the small image
        x = F.conv2d(x, w, groups=groups)
        y = upfirdn2d(x, f, up=up, padding=pad, gain=gain, impl=impl)
        return y if bias is None else y + bias[:, None, None]
    # Zero insertion followed by a convolution is a transposed convolution with the weight's axes 0 and 1 exchanged.
    # Its result is k - 1 pixels larger and ends at the last sample, so the padding of the filter is smaller by k - 1
    # before and k - up after the image.
    kernel = w.flip(2, 3) if flip_weight else w
    if groups == 1:
        kernel = kernel.transpose(0, 1)
    else:
        out, inner = kernel.shape[:2]
        kernel = kernel.reshape(groups, out // groups, inner, k, k).transpose(1, 2)
        kernel = kernel.reshape(groups * inner, out // groups, k, k)
    x = F.conv_transpose2d(x, kernel, stride=up, groups=groups)
    pad = [pad[0] - (k - 1), pad[1] - (k - up), pad[2] - (k - 1), pad[3] - (k - up)]
    y = upfirdn2d(x, f, padding=pad, gain=gain, impl=impl)
    return y if bias is None else y + bias[:, None, None]


def _by_kernel(x: Tensor, w: Tensor) -> bool:
    return cpu.available(x) and cpu.convolves(x, w.shape[0]) and w.dtype == x.dtype


def weight_squares(w: Tensor) -> Tensor:
    """Returns ``V[o, i] = sum_k w[o, i, k]**2`` of a weight ``(O, I, k, k)``, for :func:`demodulation`."""
    return w.square().sum(dim=(2, 3))


def demodulation(styles: Tensor, squares: Tensor, eps: float = 1e-8, gain: float = 1.0) -> Tensor:
    """Returns ``gain / sqrt(sum_{i,k} (w[o,i,k] * s[b,i])**2 + eps)``, ``(B, O)`` (Karras et al. 2020, eq. 3).

    Args:
        styles: Styles ``(B, I)``.
        squares: Squares ``(O, I)`` from :func:`weight_squares`.
        eps: Added under the root.
        gain: Factor of the result.
    """
    with full_precision(styles):
        d = (styles.square() @ squares.t() + eps).rsqrt()
    return d if gain == 1 else d * gain


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: int = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    demod_eps: float = 1e-8,
    squares: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Convolves each sample with its own modulated, demodulated weight (Karras et al. 2020, section 2.2).

    The weight of sample b is ``w[o,i,k] * s[b,i] * d[b,o]``. Scaling it is the same as scaling the input channels by
    ``s`` before and the output channels by ``d`` after one dense convolution of the whole batch. No weight is
    materialised for each sample, and the gradient of ``s`` needs no weight gradient.

    Args:
        x: Input ``(B, I, H, W)``.
        weight: Weight ``(O, I, k, k)``.
        styles: Styles ``(B, I)``.
        noise: Noise added after the filter, broadcastable to the output, or None.
        up: Upsampling factor, see :func:`conv2d_resample`.
        down: Downsampling factor.
        padding: Padding of the convolution.
        resample_filter: FIR filter for ``up`` and ``down``.
        demodulate: Divide by the norm of the modulated weight.
        flip_weight: True for a correlation, see :func:`conv2d_resample`.
        demod_eps: Added to the squared norm under the root.
        squares: ``weight_squares(weight)`` if the caller has it (frozen weights).
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        The output ``(B, O, H * up / down, W * up / down)``.

    Raises:
        UserError: Shapes that do not fit.
    """
    fast = dispatch.resolve(impl, x) == "fast"
    if styles.shape != (x.shape[0], weight.shape[1]) or x.shape[1] != weight.shape[1]:
        raise UserError(
            f"input {tuple(x.shape)}, weight {tuple(weight.shape)} and styles {tuple(styles.shape)} do not fit: "
            f"expected (B, I, H, W), (O, I, k, k) and (B, I)"
        )
    if up == 1 and down == 1 and weight.shape[2:] == (1, 1) and padding == 0:
        y = _pointwise(x, weight, styles)
    else:
        scaled = torch.ops.stylegan_inv.modulate(x, styles) if fast else x * styles[:, :, None, None]
        y = conv2d_resample(scaled, weight, resample_filter, up, down, padding, flip_weight=flip_weight, impl=impl)
    if demodulate:
        d = demodulation(styles, weight_squares(weight) if squares is None else squares, demod_eps)
        y = torch.ops.stylegan_inv.modulate(y, d) if fast else y * d[:, :, None, None]
    return y if noise is None else y + noise


def _pointwise(x: Tensor, weight: Tensor, styles: Tensor) -> Tensor:
    """A modulated 1x1 convolution. The style scales the weight, which is smaller than the feature map."""
    modulated = weight[:, :, 0, 0] * styles[:, None, :]  # (B, O, I)
    dtype = modulated.dtype
    modulated = modulated.to(x.dtype)  # matmul accumulates in float32, also with 16-bit inputs
    with full_precision(x):
        if x.stride(1) == 1:  # channels_last; each of the two forms avoids a copy in its memory format
            y = x.permute(0, 2, 3, 1).flatten(1, 2) @ modulated.transpose(1, 2)
            return torch.unflatten(y.to(dtype), 1, x.shape[2:]).permute(0, 3, 1, 2)
        return torch.unflatten((modulated @ x.flatten(2)).to(dtype), 2, x.shape[2:])


def styled_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    bias: Tensor,
    *,
    noise: Tensor | None = None,
    up: int = 1,
    resample_filter: Tensor | None = None,
    demod_eps: float = 1e-8,
    slope: float = 0.2,
    gain: float = math.sqrt(2.0),
    clamp: float | None = None,
    squares: Tensor | None = None,
    impl: str = "auto",
) -> Tensor:
    """Computes a synthesis layer: demodulated convolution, noise, bias, leaky ReLU, gain, clamp.

    Equals :func:`modulated_conv2d` followed by :func:`.bias_act`. Because ``gain * lrelu(v) = lrelu(gain * v)``, the
    gain is a part of the factors of the channels, and the result of the convolution is read once.

    Args:
        x: Input ``(B, I, H, W)``.
        weight: Weight ``(O, I, 3, 3)``, as stored (correlation for ``up=1``, transposed convolution for ``up=2``).
        styles: Styles ``(B, I)``.
        bias: Bias ``(O,)``.
        noise: Noise, multiplied by its strength, broadcastable to ``(B, O, H * up, W * up)``, or None.
        up: Upsampling factor, 1 or 2.
        resample_filter: FIR filter, required for ``up=2``.
        demod_eps: See :func:`modulated_conv2d`.
        slope: Slope of the leaky ReLU below zero.
        gain: Factor after the activation; positive.
        clamp: Largest magnitude of the output, or None.
        squares: ``weight_squares(weight)`` if the caller has it.
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        The output ``(B, O, H * up, W * up)``.
    """
    if squares is None:
        squares = weight_squares(weight)
    kernels = dispatch.resolve(impl, x) == "fast" or (dispatch.trains_natively(impl, x) and cpu.available(x))
    if kernels and slope >= 0 and gain > 0 and fused_layer.covers(x, weight, noise, up, resample_filter):
        d = demodulation(styles, squares, demod_eps)
        return fused_layer.run(x, weight, styles, d, bias, noise, up, resample_filter, slope, gain, clamp)
    d = demodulation(styles, squares, demod_eps, gain)
    y = modulated_conv2d(
        x,
        weight,
        styles,
        up=up,
        padding=weight.shape[-1] // 2,
        resample_filter=resample_filter,
        demodulate=False,
        flip_weight=up == 1,
        impl=impl,
    )
    y = torch.addcmul((bias * gain)[None, :, None, None], y, d[:, :, None, None])
    # In place, because nothing else refers to the result of addcmul, and no gradient needs it.
    if noise is not None:
        y = y.add_(noise * gain)
    y = F.leaky_relu_(y, slope)
    return y if clamp is None else y.clamp(-clamp, clamp)
