"""Convolutions with 2x resampling, plain and modulated by a style."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.ops import dispatch, fused_layer
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
    """Convolve, with optional upsampling before or downsampling after by the FIR ``f``.

    The filter is centred: the output has ``H * up / down`` rows when ``padding`` is ``k // 2``.

    Args:
        x: ``(B, I, H, W)``.
        w: ``(O, I // groups, k, k)``.
        f: filter as for :func:`.upfirdn2d`; needed when ``up`` or ``down`` is not 1.
        up: 1 or more, upsampling factor (gain ``up**2``).
        down: 1 or more, downsampling factor; ``up`` and ``down`` are not combined.
        padding: zeros around the (upsampled) input, as of the convolution alone.
        groups: as in ``torch.nn.functional.conv2d``.
        flip_weight: True for a correlation (PyTorch's convention), False for a true convolution. With ``up=2`` and
            False this is the stride-2 transposed convolution with the weight as stored, followed by the filter.
        bias: ``(O,)``, added to the output, or None.
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        ``(B, O, H', W')``.
    """
    if up < 1 or down < 1 or (up > 1 and down > 1):
        raise UserError(f"up and down must be at least 1 and not both larger, got up={up}, down={down}")
    k = w.shape[-1]
    if up == 1 and down == 1:
        return F.conv2d(x, w if flip_weight else w.flip(2, 3), bias, padding=padding, groups=groups)
    if f is None:
        raise UserError("resampling needs a filter: pass f=setup_filter([1, 3, 3, 1])")
    fw, fh = (f.shape[0], f.shape[0]) if f.ndim == 1 else (f.shape[1], f.shape[0])

    if down > 1:
        pad = [padding + (fw - down + 1) // 2, padding + (fw - down) // 2]
        pad += [padding + (fh - down + 1) // 2, padding + (fh - down) // 2]
        kernel = w if flip_weight else w.flip(2, 3)
        if k == 1:  # decimate while filtering: the 1x1 convolution then sees a quarter of the pixels
            x = upfirdn2d(x, f, down=down, padding=pad, impl=impl)
            return F.conv2d(x, kernel, bias, groups=groups)
        x = upfirdn2d(x, f, padding=pad, impl=impl)
        return F.conv2d(x, kernel, bias, stride=down, groups=groups)

    pad = [padding + (fw + up - 1) // 2, padding + (fw - up) // 2]
    pad += [padding + (fh + up - 1) // 2, padding + (fh - up) // 2]
    gain = float(up * up)
    if k == 1:  # a 1x1 convolution commutes with the filter: run it on the small image
        x = F.conv2d(x, w, groups=groups)
        y = upfirdn2d(x, f, up=up, padding=pad, gain=gain, impl=impl)
        return y if bias is None else y + bias[:, None, None]
    # Zero insertion followed by a convolution is a transposed convolution with the weight's axes 0 and 1 exchanged.
    # It gives the full (k - 1 pixels larger) result, and none of the samples after the last one, so the filter's
    # padding shrinks by k - 1 in front and k - up behind.
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


def weight_squares(w: Tensor) -> Tensor:
    """``V[o, i] = sum_k w[o, i, k]**2``: all that demodulation needs of a weight ``(O, I, k, k)``."""
    return w.square().sum(dim=(2, 3))


def demodulation(styles: Tensor, squares: Tensor, eps: float = 1e-8, gain: float = 1.0) -> Tensor:
    """``gain / sqrt(sum_{i,k} (w[o,i,k] * s[b,i])**2 + eps)`` as ``(B, O)`` (Karras et al. 2020, eq. 3).

    Args:
        styles: ``(B, I)``.
        squares: ``(O, I)`` from :func:`weight_squares`.
        eps: added under the root.
        gain: factor on the result.
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
    """Convolve each sample with its own modulated, demodulated weight (Karras et al. 2020, section 2.2).

    The weight of sample b is ``w[o,i,k] * s[b,i] * d[b,o]``. Scaling it is the same as scaling the input channels by
    ``s`` before and the output channels by ``d`` after one dense convolution for the whole batch; so no weight is
    materialised per sample, and the gradient for ``s`` needs no weight gradient.

    Args:
        x: ``(B, I, H, W)``.
        weight: ``(O, I, k, k)``.
        styles: ``(B, I)``.
        noise: added after the filter; broadcastable to the output, or None.
        up: upsampling factor, see :func:`conv2d_resample`.
        down: downsampling factor.
        padding: of the convolution.
        resample_filter: FIR for ``up`` and ``down``.
        demodulate: divide by the norm of the modulated weight.
        flip_weight: True for a correlation, see :func:`conv2d_resample`.
        demod_eps: added to the squared norm under the root.
        squares: ``weight_squares(weight)`` when the caller has it already (frozen weights).
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        ``(B, O, H * up / down, W * up / down)``.

    Raises:
        UserError: shapes that do not fit.
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
    """Modulated 1x1 convolution; here the weight of one sample is smaller than its image, so it takes the style."""
    modulated = weight[:, :, 0, 0] * styles[:, None, :]  # (B, O, I)
    dtype = modulated.dtype
    modulated = modulated.to(x.dtype)  # the products add up in float32 also in 16 bits; the image stays in it
    with full_precision(x):
        if x.stride(1) == 1:  # channels_last: both forms are right for both layouts, neither copies in its own
            y = x.permute(0, 2, 3, 1).flatten(1, 2) @ modulated.transpose(1, 2)
            return y.to(dtype).unflatten(1, x.shape[2:]).permute(0, 3, 1, 2)
        return (modulated @ x.flatten(2)).to(dtype).unflatten(2, x.shape[2:])


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
    """A whole synthesis layer: demodulated convolution, noise, bias, leaky ReLU, gain, clamp.

    The same as :func:`modulated_conv2d` followed by :func:`.bias_act`. Because ``gain * lrelu(v) = lrelu(gain * v)``
    the gain goes into the per-channel factors, and the epilogue reads the convolution's result once.

    Args:
        x: ``(B, I, H, W)``.
        weight: ``(O, I, 3, 3)``, as stored (correlation for ``up=1``, transposed convolution for ``up=2``).
        styles: ``(B, I)``.
        bias: ``(O,)``.
        noise: broadcastable to ``(B, O, H * up, W * up)``, already multiplied by its strength; or None.
        up: 1 or 2.
        resample_filter: FIR, needed for ``up=2``.
        demod_eps: see :func:`modulated_conv2d`.
        slope: of the leaky ReLU below zero.
        gain: after the activation; positive.
        clamp: largest magnitude of the output, or None.
        squares: ``weight_squares(weight)`` when the caller has it already.
        impl: ``auto``, ``fast`` or ``ref``, see :mod:`.dispatch`.

    Returns:
        ``(B, O, H * up, W * up)``.
    """
    if squares is None:
        squares = weight_squares(weight)
    fast = dispatch.resolve(impl, x) == "fast" and slope >= 0 and gain > 0
    if fast and fused_layer.covers(x, weight, noise, up, resample_filter):
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
    # In place from here: the result of addcmul belongs to nobody else, and no gradient formula needs it.
    if noise is not None:
        y = y.add_(noise * gain)
    y = F.leaky_relu_(y, slope)
    return y if clamp is None else y.clamp(-clamp, clamp)
