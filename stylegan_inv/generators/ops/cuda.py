"""Calls the CUDA kernels of ``csrc/cuda``: packs their arguments and divides the work among threads.

The kernels accept float32, float16 and bfloat16 with any strides, and compute in float32. They run on PyTorch's current
stream, allocate nothing and never synchronise, so that CUDA graphs can capture them.
"""

from __future__ import annotations

import ctypes
import functools
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from stylegan_inv.generators.ops import build

_DTYPES = {torch.float32: 0, torch.float16: 1, torch.bfloat16: 2}
_THREADS = 256  # in a block, as in strip.cuh
_PACK = 4  # channels that a thread processes at once in channels_last
_ROWS = 16  # largest number of rows of a thread
_BLOCKS = 1024  # threads get fewer rows until there are this many blocks


class _View(ctypes.Structure):
    _fields_ = [("data", ctypes.c_void_p), *((axis, ctypes.c_longlong) for axis in "ncyx")]


class _Division(ctypes.Structure):
    _fields_ = [
        (name, ctypes.c_int)
        for name in "dtype channels_last batch channels in_h in_w out_h out_w lanes_c lanes_x rows".split()
    ]


class _Taps(ctypes.Structure):
    _fields_ = [
        ("f", ctypes.c_void_p),
        ("flip", ctypes.c_int),
        ("gain", ctypes.c_float),
        ("pad_x", ctypes.c_int),
        ("pad_y", ctypes.c_int),
    ]


class _Filter(ctypes.Structure):
    _fields_ = [
        ("f", ctypes.c_void_p),
        *((name, ctypes.c_int) for name in ("fh", "fw", "flip")),
        ("gain", ctypes.c_float),
        *((name, ctypes.c_int) for name in "up_x up_y down_x down_y pad_x pad_y".split()),
    ]


class _Constants(ctypes.Structure):
    _fields_ = [
        *((name, ctypes.c_void_p) for name in ("scale", "bias", "noise")),
        ("noise_n", ctypes.c_longlong),
        *((name, ctypes.c_int) for name in ("channels", "width")),
        *((name, ctypes.c_float) for name in ("slope", "gain", "clamp")),
    ]


_POINTER = ctypes.c_void_p
_SIGNATURES: dict[str, list[type]] = {
    "resample": [_Division, _Taps, _View, _View, _View, ctypes.c_int, ctypes.c_int, _POINTER],
    "resample_any": [_Division, _Filter, _View, _View, _View, _POINTER],
    "bias_act": [_Division, _Taps, _View, _View, _Constants, _POINTER],
    "bias_act_backward": [_Division, _Taps, _View, _View, _View, _Constants, _POINTER, _POINTER],
    "modulate": [_Division, _View, _View, _POINTER, _POINTER],
    "modulate_backward": [_Division, _View, _View, _View, _POINTER, _POINTER, _POINTER],
    "error_text": [ctypes.c_int, ctypes.c_char_p, ctypes.c_int],
}


def declare(library: ctypes.CDLL) -> ctypes.CDLL:
    """Declares the argument types of the library's functions for ctypes."""
    for name, types in _SIGNATURES.items():
        getattr(library, name).argtypes = types
    return library


@functools.cache
def _library(device: int) -> ctypes.CDLL | None:
    major, minor = torch.cuda.get_device_capability(device)
    library = build.load("cuda", f"{major}{minor}")
    return None if library is None else declare(library)


def available(x: Tensor) -> bool:
    """Returns whether the kernels support ``x``; the first call for a device builds them."""
    return x.dtype in _DTYPES and x.numel() > 0 and _library(x.get_device()) is not None


def layout(x: Tensor) -> torch.memory_format:
    """Returns the memory format of results for an input ``x``: channels_last if its channels are contiguous."""
    return torch.channels_last if x.stride(1) == 1 and x.shape[1] > 1 else torch.contiguous_format


def empty(x: Tensor, height: int, width: int) -> Tensor:
    """Returns an uninitialised tensor of another height and width, otherwise like ``x``."""
    return torch.empty((*x.shape[:2], height, width), dtype=x.dtype, device=x.device, memory_format=layout(x))


def resample(
    x: Tensor,
    f: Tensor,
    up: Sequence[int],
    down: Sequence[int],
    padding: Sequence[int],
    flip: bool,
    gain: float,
    add: Tensor | None,
    size: tuple[int, int],
) -> Tensor:
    """Runs one pass of upfirdn2d with height and width ``size``; ``f`` has two axes, or one axis and four taps."""
    y = empty(x, *size)
    f = _float32(f)
    x0, _, y0, _ = padding
    if f.ndim == 1:
        taps = _Taps(f.data_ptr(), flip, gain, x0, y0)
        division = _divide(x, y, _packs(x, y) and (add is None or _packs(add)))
        _call("resample", x, division, taps, _view(x), _view(add), _view(y), up[0], down[0])
    else:
        dense = _Filter(f.data_ptr(), *f.shape, flip, gain, *up, *down, x0, y0)
        division = _divide(x, y, layout(x) == torch.channels_last)
        _call("resample_any", x, division, dense, _view(x), _view(add), _view(y))
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
    y = empty(x, x.shape[2] - shrink, x.shape[3] - shrink)
    fir, bias, scale, noise = map(_float32_or_none, (fir, bias, scale, noise))
    constants = _constants(y, bias, scale, noise, slope, gain, clamp)
    taps = _taps(fir, False, fir_gain, 1)
    _call("bias_act", x, _divide(x, y, _packs(x, y)), taps, _view(x), _view(y), constants)
    return y


def bias_act_backward(
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
) -> tuple[Tensor, Tensor]:
    """Returns the gradient of ``x``, and ``(3, B, C)``: sums of ``dv``, ``dy * y`` and ``dv * noise`` over pixels."""
    grow = 0 if fir is None else 1
    dy = dy.contiguous(memory_format=layout(y))
    dx = empty(y, y.shape[2] + grow, y.shape[3] + grow)
    fir, bias, scale, noise = map(_float32_or_none, (fir, bias, scale, noise))
    division = _divide(y, dx, _packs(dy, y, dx))
    partial = _partial(division, 3, y)
    # The adjoint of a filter with one pixel of padding is the mirrored filter with two.
    taps = _taps(fir, True, fir_gain, 2)
    constants = _constants(y, bias, scale, noise, slope, gain, clamp)
    _call("bias_act_backward", y, division, taps, _view(dy), _view(y), _view(dx), constants, partial.data_ptr())
    return dx, partial.sum(dim=0)


def modulate(x: Tensor, styles: Tensor) -> Tensor:
    """Computes ``x * styles[:, :, None, None]`` in the dtype of ``x``."""
    y = empty(x, *x.shape[2:])
    styles = _float32(styles)
    _call("modulate", x, _divide(x, y, _packs(x, y)), _view(x), _view(y), styles.data_ptr())
    return y


def modulate_backward(dy: Tensor, x: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Returns the gradients of ``x`` and, in float32, of ``styles``."""
    dy = dy.contiguous(memory_format=layout(x))
    dx = empty(x, *x.shape[2:])
    styles = _float32(styles)
    division = _divide(x, dx, _packs(dy, x, dx))
    partial = _partial(division, 1, x)
    _call("modulate_backward", x, division, _view(dy), _view(x), _view(dx), styles.data_ptr(), partial.data_ptr())
    return dx, partial.sum(dim=(0, 1))


def _call(name: str, x: Tensor, *arguments: object) -> None:
    device = x.get_device()
    library = _library(device)
    assert library is not None  # available() was called before
    code = _launch(getattr(library, name), arguments, device)
    if code:
        text = ctypes.create_string_buffer(200)
        library.error_text(code, text, len(text))
        raise RuntimeError(f"CUDA kernel {name}: {text.value.decode()} (error {code})")


def _launch(function: Callable[..., int], arguments: Sequence[object], device: int) -> int:
    if device == torch.cuda.current_device():
        return function(*arguments, torch.cuda.current_stream(device).cuda_stream)
    with torch.cuda.device(device):
        return function(*arguments, torch.cuda.current_stream(device).cuda_stream)


def _float32(x: Tensor) -> Tensor:
    return x.to(torch.float32).contiguous()


def _float32_or_none(x: Tensor | None) -> Tensor | None:
    return None if x is None else _float32(x)


def _view(x: Tensor | None) -> _View:
    return _View() if x is None else _View(x.data_ptr(), *x.stride())


def _taps(fir: Tensor | None, flip: bool, gain: float, padding: int) -> _Taps:
    return _Taps() if fir is None else _Taps(fir.data_ptr(), flip, gain, padding, padding)


def _constants(
    y: Tensor,
    bias: Tensor | None,
    scale: Tensor | None,
    noise: Tensor | None,
    slope: float,
    gain: float,
    clamp: float | None,
) -> _Constants:
    pointers = [None if t is None else t.data_ptr() for t in (scale, bias, noise)]
    noise_n = noise.stride(0) if noise is not None and noise.shape[0] > 1 else 0
    limit = float("inf") if clamp is None else clamp
    return _Constants(*pointers, noise_n, y.shape[1], y.shape[3], slope, gain, limit)


def _packs(*tensors: Tensor) -> bool:
    """Returns whether four channels of a pixel can be read or written at once in all tensors."""
    for x in tensors:
        n, c, h, w = x.stride()
        if c != 1 or (n | h | w | x.shape[1]) % _PACK or x.data_ptr() % (_PACK * x.element_size()):
            return False
    return True


def _power_of_two(n: int) -> int:
    """Returns the smallest power of two that is at least ``n``."""
    return 1 << (n - 1).bit_length()


def _divide(x: Tensor, y: Tensor, packed: bool) -> _Division:
    """Divides the pixels and channels of ``y``, computed from ``x``, among threads."""
    batch, channels, out_h, out_w = y.shape
    groups = channels // _PACK if packed else channels
    if packed:  # a warp spans up to 32 groups of channels
        lanes_c = min(32, _power_of_two(groups))
        lanes_x = _THREADS // lanes_c
    else:
        lanes_x = min(_THREADS, _power_of_two(out_w))
        lanes_c = _THREADS // lanes_x
    columns = batch * -(-groups // lanes_c) * -(-out_w // lanes_x)
    rows = _ROWS
    while rows > 2 and columns * -(-out_h // rows) < _BLOCKS:
        rows //= 2
    return _Division(_DTYPES[x.dtype], packed, batch, channels, *x.shape[2:], out_h, out_w, lanes_c, lanes_x, rows)


def _partial(d: _Division, sums: int, like: Tensor) -> Tensor:
    """Returns room for the partial sums of each block of pixels, sample and channel. The kernels write all of them."""
    blocks = -(-d.out_w // d.lanes_x) * -(-d.out_h // d.rows)
    return like.new_empty((blocks, sums, d.batch, d.channels), dtype=torch.float32)
