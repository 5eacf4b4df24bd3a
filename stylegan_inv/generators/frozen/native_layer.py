"""The passes of a frozen synthesis layer by the C++ kernels of ``ops/csrc/cpu``, in float32."""

from __future__ import annotations

import contextlib
import ctypes
import math
from ctypes import POINTER, Structure, byref, c_float, c_int64, c_void_p

import torch
from torch import Tensor

from stylegan_inv.generators.frozen.frozen_layer import Epilogue, FrozenLayer
from stylegan_inv.generators.ops import build

MOST_COLOURS = 4  # as in csrc/cpu/layer.h
_CONV, _WINOGRAD, _UP, _UP_WINOGRAD = range(4)
_LARGE_BYTES = 4 << 20
_SMALL_WEIGHT = 128 * 128  # the transformed weight fits in the cache
_MANY_CHANNELS = 128 * 64  # with fewer, upsampling is bound by the memory bandwidth


class _Epilogue(Structure):
    """``Epilogue`` of csrc/cpu/layer.h."""

    _fields_ = [
        *((name, c_int64) for name in ("channels", "colours", "noise_stride")),
        *((name, c_float) for name in ("slope", "clamp")),
        *((name, c_void_p) for name in ("demod", "bias", "noise", "colour", "rgb", "grad_rgb", "sums", "grad_noise")),
    ]


class _Layer(Structure):
    """``Layer`` of csrc/cpu/layer.h."""

    _fields_ = [
        *((name, c_int64) for name in ("kind", "batch", "height", "width", "inputs", "x_stride", "threads")),
        *((name, c_void_p) for name in ("weight", "x", "style", "y", "grad", "grad_before", "grad_style")),
        *((name, _Epilogue) for name in ("own", "before")),
    ]


class NativeKernels:
    """The passes of a layer by the C++ kernels; the interface is that of :class:`.TorchKernels`.

    From 16 pixels on (from 8 with few channels) the 3x3 convolutions use Winograd's algorithm: 36 products instead of
    144, or 81 instead of 144 where a layer upsamples and has many channels, at a relative error of 1e-6 instead of
    3e-7. The weights are packed for the kernels at the first use, for both passes: four times the memory of a weight
    with Winograd's algorithm, once otherwise (config F at 256 px: 261 MB).

    Args:
        library: The compiled ``ops/csrc/cpu``.
    """

    name = "native"

    def __init__(self, library: ctypes.CDLL) -> None:
        self.library = library
        library.frozen_packed_size.restype = c_int64
        library.frozen_packed_size.argtypes = [c_int64] * 3
        library.frozen_pack.argtypes = [c_int64] * 4 + [c_void_p] * 2
        library.frozen_forward.argtypes = library.frozen_backward.argtypes = [POINTER(_Layer)]
        library.frozen_upsample_add.argtypes = library.frozen_downsample.argtypes = [c_int64] * 4 + [c_void_p] * 2
        library.frozen_advise.argtypes = [c_void_p, c_int64]

    def forward(
        self, layer: FrozenLayer, x: Tensor, style: Tensor, epilogue: Epilogue, keep: bool
    ) -> tuple[Tensor | None, Tensor | None]:
        """See :meth:`.TorchKernels.forward`."""
        batch, r, out = len(style), layer.resolution, len(layer.bias)
        y = self._output(layer, batch, r, r, out) if keep else None
        rgb = None if epilogue.colour is None else x.new_empty(batch, epilogue.colour.shape[1], r, r)
        call = self._call(layer, x, style, y)
        call.own = self._epilogue(epilogue, r)
        call.own.rgb = _pointer(rgb)
        self.library.frozen_forward(byref(call))
        return y, rgb

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
        """See :meth:`.TorchKernels.backward`."""
        call = self._call(layer, x, style, y)
        call.own = self._epilogue(epilogue, layer.resolution, gradient=grad is None)
        call.grad = _pointer(grad)
        grad_style = torch.empty_like(style)
        call.grad_style = _pointer(grad_style)
        grad_before = None
        if before is not None:
            call.before = self._epilogue(before, x.shape[1], gradient=True)
            grad_before = x if reuse else self._empty(*x.shape)
            call.grad_before = _pointer(grad_before)
        self.library.frozen_backward(byref(call))
        return grad_before, grad_style

    @staticmethod
    def give_back(layer: FrozenLayer, y: Tensor) -> None:
        """Keeps the memory of a large output for the next one: new pages cost more than the computation in them.

        A layer keeps as many outputs as graphs were alive at the same time. The network's constants own them.
        """
        if y.nbytes >= _LARGE_BYTES:
            layer.spare.append(y)

    def upsample_add(self, image: Tensor, rgb: Tensor) -> None:
        """See :meth:`.TorchKernels.upsample_add`."""
        batch, colours, h, w = image.shape
        self.library.frozen_upsample_add(
            torch.get_num_threads(), batch * colours, h, w, image.data_ptr(), rgb.data_ptr()
        )

    def downsample(self, grad: Tensor) -> Tensor:
        """See :meth:`.TorchKernels.downsample`."""
        batch, colours, h, w = grad.shape
        result = grad.new_empty(batch, colours, h // 2, w // 2)
        self.library.frozen_downsample(
            torch.get_num_threads(), batch * colours, h // 2, w // 2, grad.data_ptr(), result.data_ptr()
        )
        return result

    def _call(self, layer: FrozenLayer, x: Tensor, style: Tensor, y: Tensor | None) -> _Layer:
        kind = _kind(layer)
        return _Layer(
            kind=kind,
            batch=len(style),
            height=x.shape[1],
            width=x.shape[2],
            inputs=x.shape[3],
            x_stride=0 if len(x) < len(style) else x.stride(0),
            threads=torch.get_num_threads(),
            weight=_pointer(self._packed(layer, kind)),
            x=_pointer(x),
            style=_pointer(style),
            y=_pointer(y),
        )

    @staticmethod
    def _epilogue(epilogue: Epilogue, r: int, gradient: bool = False) -> _Epilogue:
        """Returns the C struct; for a gradient, allocates the tensors that the kernel writes."""
        layer, demod, noise, colour = epilogue.layer, epilogue.demod, epilogue.noise, epilogue.colour
        batch, channels = demod.shape
        colours = 0 if colour is None or (gradient and epilogue.grad_rgb is None) else colour.shape[1]
        if gradient:
            epilogue.sums = demod.new_empty(batch, 3 + colours, channels)
            epilogue.grad_noise = demod.new_zeros(batch, r, r) if epilogue.wants_noise else None
        return _Epilogue(
            channels=channels,
            colours=colours,
            noise_stride=0 if noise is None or len(noise) < batch else noise.stride(0),
            slope=layer.slope,
            clamp=layer.clamp,
            demod=_pointer(demod),
            bias=_pointer(layer.bias),
            noise=_pointer(noise),
            colour=_pointer(colour),
            grad_rgb=_pointer(epilogue.grad_rgb) if gradient else None,
            sums=_pointer(epilogue.sums) if gradient else None,
            grad_noise=_pointer(epilogue.grad_noise) if gradient else None,
        )

    def _packed(self, layer: FrozenLayer, kind: int) -> Tensor:
        if self.name not in layer.prepared:
            out, inputs = layer.weight.shape[:2]
            packed = self._empty(self.library.frozen_packed_size(kind, out, inputs))
            weight = layer.weight.contiguous()
            self.library.frozen_pack(kind, out, inputs, torch.get_num_threads(), weight.data_ptr(), packed.data_ptr())
            layer.prepared[self.name] = packed
        found: Tensor = layer.prepared[self.name]
        return found

    def _output(self, layer: FrozenLayer, *shape: int) -> Tensor:
        """Returns memory that was given back, or new memory."""
        with contextlib.suppress(IndexError):
            while True:
                y = layer.spare.pop()  # outputs of another batch size are dropped
                if y.shape == shape:
                    return y
        return self._empty(*shape)

    def _empty(self, *shape: int) -> Tensor:
        x = torch.empty(shape)
        if math.prod(shape) * 4 >= _LARGE_BYTES:
            self.library.frozen_advise(x.data_ptr(), x.nbytes)
        return x


def _kind(layer: FrozenLayer) -> int:
    """Returns the algorithm of a layer: Winograd's where it was measured to be faster."""
    size, channels = layer.resolution // layer.up, layer.weight.shape[0] * layer.weight.shape[1]
    winograd = size >= 16 or (size >= 8 and channels <= _SMALL_WEIGHT)  # enough tiles for the larger weights
    if layer.up == 2:
        return _UP_WINOGRAD if winograd and channels >= _MANY_CHANNELS else _UP
    return _WINOGRAD if winograd else _CONV


def load() -> NativeKernels | None:
    """Returns the kernels, compiled at the first call; warns once and returns None where they cannot be compiled."""
    library = build.load("cpu")
    return None if library is None else NativeKernels(library)


def _pointer(x: Tensor | None) -> int | None:
    return None if x is None else x.data_ptr()
