"""``python -m stylegan_inv.benchmark ops``: speed of the operations of the generator."""

from __future__ import annotations

import argparse
import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators import channel_table
from stylegan_inv.generators import ops as operations
from stylegan_inv.generators.frozen import native_layer
from stylegan_inv.generators.frozen.frozen_layer import GAIN, Epilogue, FrozenLayer
from stylegan_inv.generators.frozen.native_layer import NativeKernels
from stylegan_inv.generators.frozen.torch_layer import TorchKernels
from stylegan_inv.utils import timing
from stylegan_inv.utils.command_line import whole

REFERENCE = "ref"


@dataclass
class _Case:
    """An operation.

    Attributes:
        name: Name in the table.
        call: Called with the inputs and ``impl``.
        inputs: Tensors; the gradient is computed for the first.
        flops: Floating-point operations of the forward pass.
        up: Upsampling factor of a layer; 0 for other operations.
    """

    name: str
    call: Callable[..., Tensor]
    inputs: list[Tensor]
    flops: float = 0.0
    up: int = 0


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument("--resolution", **whole(4, 4096), default=128, help="resolution of the outputs")
    parser.add_argument("--channel-base", **whole(1, 1 << 17), default=32768)
    parser.add_argument("--batch", **whole(1, 4096), default=1)


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Measures each operation and implementation: forward, and forward with backward to the input.

    The bound is the time to read the inputs and write the output once.
    """
    torch.manual_seed(0)
    rows = []
    for case in _cases(options):
        output = case.call(*case.inputs, impl=REFERENCE)
        moved = sum(t.nbytes for t in case.inputs) + output.nbytes
        for name, step, passes in (("forward", _forward, 1), ("with backward", _gradient, 2)):
            calls: dict[str, Callable[[], object]] = {
                impl: partial(step, partial(case.call, impl=impl), case.inputs) for impl in (REFERENCE, "fast")
            }
            if case.up and options.device == "cpu" and options.dtype == "float32":
                calls |= _frozen(case, backward=passes == 2)
            samples = timing.interleave(calls, options.repeats, options.device)
            bound = limits.bound(passes * case.flops, passes * moved)
            for impl, sample in samples.items():
                peak = timing.peak_memory(calls[impl], options.device)
                rows.append(timing.row(f"{case.name}, {impl}", name, sample, samples[REFERENCE], bound, peak))
    return rows


def _frozen(case: _Case, backward: bool) -> dict[str, Callable[[], object]]:
    """Returns the kernels of a layer for constant weights."""
    x, weight, style, bias, noise = case.inputs
    x = x.permute(0, 2, 3, 1).contiguous()
    r = x.shape[1] * case.up
    squares = operations.weight_squares(weight)
    layer = FrozenLayer(case.up, r, weight, squares, 1e-8, bias * GAIN, GAIN, math.inf, None)
    grad = torch.randn(len(x), r, r, len(bias))

    def call(kernels: TorchKernels | NativeKernels) -> None:
        epilogue = layer.epilogue(style, noise, None)
        y, _ = kernels.forward(layer, x, style, epilogue, keep=True)
        if backward:  # to the output of the previous layer
            kernels.backward(layer, x, style, epilogue, y, grad, Epilogue(before, before_demod, None, None), False)

    before = FrozenLayer(1, x.shape[1], weight, squares, 1e-8, torch.zeros(x.shape[3]), 0.0, math.inf, None)
    before_demod = torch.ones_like(style)
    native = native_layer.load()
    calls: dict[str, Callable[[], object]] = {"frozen, no C++": partial(call, TorchKernels())}
    return calls if native is None else {"frozen": partial(call, native), **calls}


def _cases(options: argparse.Namespace) -> list[_Case]:
    r, batch = options.resolution, options.batch
    table = channel_table(r, options.channel_base)
    c, wide = table[r], table[max(r // 2, 4)]
    dtype = getattr(torch, options.dtype)
    f = operations.setup_filter().to(options.device)

    def draw(*shape: int) -> Tensor:
        x = torch.randn(shape, device=options.device).to(dtype)
        return x.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else x

    def layer(up: int) -> _Case:
        inputs = wide if up == 2 else c
        x, weight, style = draw(batch, inputs, r // up, r // up), draw(c, inputs, 3, 3), draw(batch, inputs)
        squares = operations.weight_squares(weight)

        def call(x: Tensor, weight: Tensor, style: Tensor, bias: Tensor, noise: Tensor, impl: str) -> Tensor:
            return operations.styled_conv2d(
                x, weight, style, bias, noise=noise, up=up, resample_filter=f, squares=squares, impl=impl
            )

        flops = 2.0 * batch * weight.numel() * (r // up) ** 2
        return _Case(f"layer, up {up}", call, [x, weight, style, draw(c), draw(1, 1, r, r)], flops, up)

    return [
        _Case("blur", partial(operations.filter2d, f=f), [draw(batch, c, r, r)]),
        _Case("upsample", partial(operations.upsample2d, f=f), [draw(batch, c, r // 2, r // 2)]),
        _Case("upsample colours", partial(operations.upsample2d, f=f), [draw(batch, 3, r // 2, r // 2)]),
        _Case("downsample", partial(operations.downsample2d, f=f), [draw(batch, c, 2 * r, 2 * r)]),
        _Case("bias + lrelu", partial(operations.bias_act, act="lrelu"), [draw(batch, c, r, r), draw(c)]),
        layer(1),
        layer(2),
    ]


def _forward(call: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    with torch.no_grad():
        call(*inputs)


def _gradient(call: Callable[..., Tensor], inputs: list[Tensor]) -> None:
    x = inputs[0].detach().requires_grad_()
    y = call(x, *inputs[1:])
    torch.autograd.grad(y, x, torch.ones_like(y))
