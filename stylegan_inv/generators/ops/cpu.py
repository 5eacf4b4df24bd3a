"""Calls the kernels of ``csrc/cpu/training_*.cpp``: float32 in channels_last, filters of four taps, any threads.

The networks in training use them; a frozen synthesis network has kernels of its own, see :mod:`..frozen`.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Sequence
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p

import torch
from torch import Tensor

from stylegan_inv.generators.ops import build
from stylegan_inv.utils.compat import is_plain_cpu_tensor

_TAPS = 4
_TILE = 4  # of Winograd's algorithm
# Below these sizes the transforms of Winograd's algorithm cost more than the products that it saves.
_FEWEST_CHANNELS, _FEWEST_TILES = 16, 32


class _Resampling(Structure):
    """``Resampling`` of csrc/cpu/training_ops.cpp."""

    _fields_ = [
        *((name, c_int64) for name in "batch channels in_h in_w out_h out_w up down pad_x pad_y threads".split()),
        ("vertical", c_float * _TAPS),
        ("horizontal", c_float * _TAPS),
    ]


class _BiasAct(Structure):
    """``BiasAct`` of csrc/cpu/training_ops.cpp."""

    _fields_ = [
        *((name, c_void_p) for name in ("scale", "bias", "noise")),
        ("noise_stride", c_int64),
        *((name, c_float) for name in ("slope", "gain", "clamp")),
    ]


class _Convolution(Structure):
    """``Convolution`` of csrc/cpu/training_conv.cpp."""

    _fields_ = [(name, c_int64) for name in "batch height width in_channels out_channels threads".split()]


@functools.cache
def _library() -> ctypes.CDLL | None:
    library = build.load("cpu")
    if library is not None:
        resampling, bias_act = POINTER(_Resampling), POINTER(_BiasAct)
        library.training_resample.argtypes = [resampling, *[c_void_p] * 3]
        library.training_bias_act.argtypes = [resampling, c_int64, bias_act, *[c_void_p] * 2]
        library.training_bias_act_backward.argtypes = [resampling, c_int64, bias_act, *[c_void_p] * 6]
        library.training_modulate_backward.argtypes = [*[c_int64] * 4, *[c_void_p] * 5]
        library.training_conv.argtypes = [POINTER(_Convolution), c_int64, *[c_void_p] * 5]
        library.training_conv_weight_gradient.argtypes = [POINTER(_Convolution), *[c_void_p] * 4]
    return library


def _call(name: str, *arguments: object) -> None:
    library = _library()
    assert library is not None  # available() was called before
    getattr(library, name)(*arguments)


def available(x: Tensor) -> bool:
    """Returns whether the kernels support images ``x`` (B, C, H, W); the first call builds them."""
    return (
        x.dtype == torch.float32
        and x.device.type == "cpu"
        and x.ndim == 4
        and x.shape[1] > 1
        and x.numel() > 0
        and x.is_contiguous(memory_format=torch.channels_last)
        and _library() is not None
    )


def supports_filter(f: Tensor) -> bool:
    """Returns whether the kernels support a filter."""
    return f.ndim == 1 and len(f) == _TAPS


def resample(
    x: Tensor,
    f: Tensor,
    up: int,
    down: int,
    padding: Sequence[int],
    flip: bool,
    gain: float,
    add: Tensor | None,
    size: tuple[int, int],
) -> Tensor:
    """Runs upfirdn2d to height and width ``size``."""
    y = _empty(x, *size)
    add = None if add is None else add.contiguous(memory_format=torch.channels_last)
    plan = _resampling(x, y, f, up, down, (padding[0], padding[2]), flip, gain)
    _call("training_resample", byref(plan), x.data_ptr(), _pointer(add), y.data_ptr())
    return y


def bias_act(
    x: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    fir_gain: float,
    slope: float,
    gain: float,
    clamp: float | None,
) -> Tensor:
    """Computes ``clamp(gain * lrelu(blur(x) * scale + noise + bias))``."""
    shrink = 0 if fir is None else 1
    y = _empty(x, x.shape[2] - shrink, x.shape[3] - shrink)
    kept = _bias_act(y, bias, scale, noise, slope, gain, clamp)
    plan = _resampling(x, y, fir, 1, 1, (1, 1), False, fir_gain)
    _call("training_bias_act", byref(plan), fir is not None, byref(kept[0]), x.data_ptr(), y.data_ptr())
    return y


def bias_act_backward(
    noise_grad: bool,
    dy: Tensor,
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    fir: Tensor | None,
    fir_gain: float,
    slope: float,
    gain: float,
    clamp: float | None,
) -> tuple[Tensor, Tensor, Tensor | None]:
    """Returns the gradients of ``x`` and, if asked for, of noise ``(B, 1, H, W)``, and sums ``(3, B, C)`` over pixels.

    The sums are those of ``dv``, ``dy * y`` and ``dv * noise``, where ``v`` is the input of the activation.

    Returns:
        The gradient of ``x``, the sums, and the gradient of the noise of each sample or None.
    """
    grow = 0 if fir is None else 1
    dy = dy.contiguous(memory_format=torch.channels_last)
    dx = _empty(y, y.shape[2] + grow, y.shape[3] + grow)
    middle = None if fir is None else _empty(y, *y.shape[2:])
    sums = y.new_empty(3, *y.shape[:2])
    of_noise = y.new_empty(y.shape[0], 1, *y.shape[2:]) if noise_grad else None
    kept = _bias_act(y, bias, scale, noise, slope, gain, clamp)
    # The adjoint of a filter with one pixel of padding is the mirrored filter with two.
    plan = _resampling(y, dx, fir, 1, 1, (2, 2), True, fir_gain)
    pointers = (dy.data_ptr(), y.data_ptr(), _pointer(middle), dx.data_ptr(), sums.data_ptr(), _pointer(of_noise))
    _call("training_bias_act_backward", byref(plan), fir is not None, byref(kept[0]), *pointers)
    return dx, sums, of_noise


def modulate_backward(dy: Tensor, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of ``x`` and ``styles`` of ``x * styles[:, :, None, None]``."""
    dy, styles = dy.contiguous(memory_format=torch.channels_last), styles.contiguous()
    dx, sums = _empty(x, *x.shape[2:]), torch.empty_like(styles)
    batch, channels, h, w = x.shape
    pointers = (dy.data_ptr(), x.data_ptr(), styles.data_ptr(), dx.data_ptr(), sums.data_ptr())
    _call("training_modulate_backward", torch.get_num_threads(), batch, h * w, channels, *pointers)
    return dx, sums


def convolves(x: Tensor, channels: int) -> bool:
    """Returns whether :func:`conv3x3` supports, and is fast for, images ``x`` (B, I, H, W) and ``channels`` results."""
    batch, _, h, w = x.shape
    tiled = h % _TILE == 0 and w % _TILE == 0 and batch * h * w // _TILE**2 >= _FEWEST_TILES
    wide = min(x.shape[1], channels) >= _FEWEST_CHANNELS
    plain = x.dtype == torch.float32 and is_plain_cpu_tensor(x) and not torch.is_autocast_enabled("cpu")
    return tiled and wide and plain and _library() is not None


def conv3x3(
    x: Tensor, weight: Tensor, adjoint: bool, scale: Tensor | None = None, bias: Tensor | None = None
) -> Tensor:
    """Convolves with one pixel of zeros around the image, by Winograd's algorithm.

    Args:
        x: Images ``(B, I, H, W)`` of a shape for which :func:`convolves` is true.
        weight: Weight ``(O, I, 3, 3)``, or ``(I, O, 3, 3)`` for the adjoint.
        adjoint: Whether the transposed convolution is computed, the gradient with respect to the images.
        scale: Factors of the input channels ``(B, I)``, or None.
        bias: Bias ``(O,)``, or None.
    """
    x, weight = x.contiguous(memory_format=torch.channels_last), weight.contiguous()
    scale, bias = (None if t is None else t.contiguous() for t in (scale, bias))
    batch, channels, h, w = x.shape
    y = torch.empty((batch, weight.shape[adjoint], h, w), memory_format=torch.channels_last)
    plan = _Convolution(batch, h, w, channels, y.shape[1], torch.get_num_threads())
    pointers = (x.data_ptr(), _pointer(scale), weight.data_ptr(), _pointer(bias), y.data_ptr())
    _call("training_conv", byref(plan), adjoint, *pointers)
    return y


def conv3x3_weight_gradient(x: Tensor, dy: Tensor, scale: Tensor | None = None) -> Tensor:
    """Returns the gradient ``(O, I, 3, 3)`` of the weight of :func:`conv3x3`.

    Args:
        x: Images ``(B, I, H, W)``.
        dy: Gradient of the result ``(B, O, H, W)``.
        scale: See :func:`conv3x3`.
    """
    x, dy = (t.contiguous(memory_format=torch.channels_last) for t in (x, dy))
    scale = None if scale is None else scale.contiguous()
    batch, channels, h, w = x.shape
    result = torch.empty(dy.shape[1], channels, 3, 3)
    plan = _Convolution(batch, h, w, channels, dy.shape[1], torch.get_num_threads())
    pointers = (x.data_ptr(), _pointer(scale), dy.data_ptr(), result.data_ptr())
    _call("training_conv_weight_gradient", byref(plan), *pointers)
    return result


def _empty(x: Tensor, height: int, width: int) -> Tensor:
    return torch.empty((*x.shape[:2], height, width), memory_format=torch.channels_last)


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()


def _resampling(
    x: Tensor, y: Tensor, f: Tensor | None, up: int, down: int, padding: tuple[int, int], flip: bool, gain: float
) -> _Resampling:
    batch, channels, in_h, in_w = x.shape
    taps = [0.0] * _TAPS if f is None else f.tolist()
    taps = taps if flip else taps[::-1]
    return _Resampling(
        batch, channels, in_h, in_w, *y.shape[2:], up, down, *padding, torch.get_num_threads(),
        (c_float * _TAPS)(*taps), (c_float * _TAPS)(*(gain * tap for tap in taps)),
    )  # fmt: skip


def _bias_act(
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
) -> tuple[_BiasAct, list[Tensor | None]]:
    """Returns the structure, and the tensors that it points to."""
    tensors = [None if t is None else t.to(torch.float32).contiguous() for t in (scale, bias, noise)]
    stride = y.shape[2] * y.shape[3] if noise is not None and noise.shape[0] > 1 else 0
    limit = float("inf") if clamp is None else clamp
    return _BiasAct(*map(_pointer, tensors), stride, slope, gain, limit), tensors
