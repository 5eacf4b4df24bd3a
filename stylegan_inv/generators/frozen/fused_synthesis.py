"""The synthesis network with frozen weights as one function with its own backward: the fast path of inversion.

:meth:`.Generator.freeze` switches it on. It runs for float32 and float64 on the CPU while nothing asks for what only
the modules can do: weights that require gradients, autocast, ``torch.compile``, ``torch.func``, forward-mode
derivatives, hooks inside the network, or ``ops="ref"``. It computes gradients for styles and given noise maps, never
for weights, and keeps one tensor for each layer. Second derivatives exist: a backward that is to be differentiated runs
through the modules.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

import torch
from torch import Tensor, nn
from torch.autograd import forward_ad
from torch.nn.modules import module as nn_module

from stylegan_inv.generators.frozen import native_layer
from stylegan_inv.generators.frozen.frozen_layer import Epilogue, FrozenLayer, TorchKernels
from stylegan_inv.generators.ops import dispatch

if TYPE_CHECKING:
    from stylegan_inv.generators.frozen.native_layer import NativeKernels

_LOW_PRECISION_FROM = 64  # pixels: below, bfloat16 would cost accuracy and save nothing
_LARGE_BYTES = 64 << 20


class Network(Protocol):
    """What is read of a synthesis network, see :class:`.SynthesisNetwork`."""

    ops: str

    def blocks(self) -> Sequence[Any]:
        """One for each resolution."""

    def get_parameter(self, target: str) -> nn.Parameter:
        """A parameter by its name."""

    def render(self, batch: int, layer: Callable[..., Tensor], torgb: Callable[..., Tensor]) -> Tensor:
        """The network with its calls left to the caller."""


class FusedSynthesis:
    """What the fast path keeps of one network: switches, and constants made from the weights when they are needed.

    Copies and pickles of a network get the switches alone. The constants follow a weight that is replaced or changed in
    place (writes through ``.data``, which PyTorch does not count, go unseen).

    Attributes:
        enabled: False until the generator is frozen.
        dtype: of the convolutions and activations from 64 pixels on, None for that of the weights.
        recompute: whether backward computes the last layer's activation, the largest of all, again instead of keeping
            it; None for doing so where it has more than 64 MB.
        native: whether to use the C++ kernels where they can be built.
    """

    def __init__(
        self,
        enabled: bool = False,
        dtype: torch.dtype | None = None,
        recompute: bool | None = None,
        native: bool = True,
    ) -> None:
        self.enabled, self.dtype, self.recompute, self.native = enabled, dtype, recompute, native
        self._constants: tuple[list[tuple[Tensor, int]], _Plan] | None = None

    def __reduce__(self) -> tuple[Any, ...]:
        return FusedSynthesis, (self.enabled, self.dtype, self.recompute, self.native)

    def clear(self) -> None:
        """Drop the constants; they are made again when needed."""
        self._constants = None

    def clear_activations(self) -> None:
        """Drop the memory of activations that is kept from one backward to the next forward."""
        if self._constants is not None:
            for layer in self._constants[1].layers:
                layer.spare.clear()

    def plan(self, network: Network, w: Tensor, maps: Sequence[Tensor | None]) -> _Plan | None:
        """What :func:`synthesize` needs, or None where the modules must run."""
        if not self.enabled or not _plain([w, *(m for m in maps if m is not None)]):
            return None
        if dispatch.requested(network.ops) == "ref":
            return None
        weights = _weights(network)
        if weights is None or any(p.requires_grad or p.is_inference() or p.dtype != w.dtype for p in weights):
            return None
        if self._constants is not None:
            sources, plan = self._constants
            if all(
                old.data_ptr() == new.data_ptr() and version == new._version and old.device == new.device
                for (old, version), new in zip(sources, weights, strict=True)
            ):
                return plan
        with torch.inference_mode(False), torch.no_grad():
            plan = _Plan.of(network, self)
            # Detached, they keep their memory from being given to a tensor that would then look the same.
            self._constants = [(p.detach(), p._version) for p in weights], plan
        return plan


@dataclass
class _Plan:
    const: Tensor  # (1, 4, 4, C)
    layers: list[FrozenLayer]
    colour_bias: list[Tensor]  # of each block's ToRGB, (colours, 1, 1)
    colour_clamp: float | None
    dtype: torch.dtype | None  # these three as in FusedSynthesis
    recompute: bool | None
    native: bool

    @classmethod
    def of(cls, network: Network, switches: FusedSynthesis) -> _Plan:
        layers, biases = [], []
        for block in network.blocks():
            *first, last = block.layers()
            layers += [FrozenLayer.of(layer, None) for layer in first] + [FrozenLayer.of(last, block.torgb)]
            biases.append(block.torgb.bias.detach()[:, None, None])
        return cls(
            const=network.get_parameter("b4.const").detach().permute(1, 2, 0)[None].contiguous(),
            layers=layers,
            colour_bias=biases,
            colour_clamp=block.torgb.conv_clamp,
            dtype=switches.dtype,
            recompute=switches.recompute,
            native=switches.native,
        )

    @property
    def kernels(self) -> TorchKernels | NativeKernels:
        """The best for this network."""
        native = None
        if self.native and self.const.dtype == torch.float32 and len(self.colour_bias[0]) <= native_layer.MOST_COLOURS:
            native = _native_kernels()
        return native or _torch_kernels(None)

    def kernels_of(self, layer: FrozenLayer) -> TorchKernels | NativeKernels:
        """The best for this layer."""
        low = self.dtype is not None and layer.resolution >= _LOW_PRECISION_FROM
        return _torch_kernels(self.dtype) if low else self.kernels

    def keeps_last(self, batch: int) -> bool:
        """Whether the last layer's activation is kept for backward."""
        last = self.layers[-1]
        size = batch * last.resolution**2 * len(last.bias) * last.bias.element_size()
        return size <= _LARGE_BYTES if self.recompute is None else not self.recompute


_native_kernels = functools.cache(native_layer.load)
_torch_kernels = functools.cache(TorchKernels)


def synthesize(
    network: Network,
    plan: _Plan,
    styles: Sequence[Tensor],
    colour_styles: Sequence[Tensor],
    maps: Sequence[Tensor | None],
) -> Tensor:
    """Render.

    Args:
        network: the network; its modules run where second derivatives are asked for.
        plan: what its :meth:`FusedSynthesis.plan` returned.
        styles: ``(B, I)`` for each layer.
        colour_styles: ``(B, C)`` for each block's ToRGB, with its weight's gain.
        maps: ``(1 or B, 1, r, r)`` or None for each layer.

    Returns:
        ``(B, colours, R, R)``.
    """
    tensors = [*(s.contiguous() for s in styles), *colour_styles, *maps]
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        return _Synthesis.apply(network, plan, *tensors)
    with torch.no_grad():
        return _forward(plan, tensors, keep=False)[0]


@dataclass
class _Kept:
    """What backward needs of forward: inputs of the layers, the last one's output, masks of clamped colours."""

    xs: list[Tensor]
    y: Tensor | None
    epilogues: list[Epilogue]
    unclamped: list[Tensor | None]


def _split(plan: _Plan, tensors: Sequence[Any]) -> tuple[list[Any], list[Any], list[Any]]:
    """Styles, colour styles, maps."""
    n, blocks = len(plan.layers), len(plan.colour_bias)
    return list(tensors[:n]), list(tensors[n : n + blocks]), list(tensors[n + blocks :])


def _forward(plan: _Plan, tensors: Sequence[Tensor | None], keep: bool) -> tuple[Tensor, _Kept]:
    styles, colour_styles, maps = _split(plan, tensors)
    kept = _Kept([], None, [], [])
    x: Tensor | None = plan.const
    image: Tensor | None = None
    for k, layer in enumerate(plan.layers):
        assert x is not None
        block = k // 2
        epilogue = layer.epilogue(styles[k], maps[k], colour_styles[block])
        last = k == len(plan.layers) - 1
        if keep:
            kept.xs.append(x)
            kept.epilogues.append(epilogue)
        needed = not last or (keep and plan.keeps_last(len(styles[0])))
        x, rgb = plan.kernels_of(layer).forward(layer, x, styles[k], epilogue, needed)
        if rgb is None:
            continue
        rgb += plan.colour_bias[block]
        if plan.colour_clamp is not None:
            if keep:
                kept.unclamped.append(rgb.abs() <= plan.colour_clamp)
            rgb.clamp_(-plan.colour_clamp, plan.colour_clamp)
        if image is not None:
            plan.kernels.upsample_add(image, rgb)
        image = rgb
    kept.y = x
    assert image is not None
    return image, kept


class _Synthesis(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, network: Network, plan: _Plan, *tensors: Tensor | None) -> Tensor:
        ctx.network, ctx.plan = network, plan
        ctx.save_for_backward(*tensors)
        image, ctx.kept = _forward(plan, tensors, keep=True)
        return image

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
        tensors, needs = ctx.saved_tensors, ctx.needs_input_grad[2:]
        if torch.is_grad_enabled() or not _plain([grad]):
            return None, None, *_through_modules(ctx.network, ctx.plan, tensors, needs, grad)
        keep = _graph_is_kept()
        gradients = _backward(ctx.plan, tensors, needs, grad, ctx.kept, reuse=not keep)
        if not keep:
            ctx.kept = None
        return None, None, *gradients


def _backward(
    plan: _Plan, tensors: Sequence[Tensor | None], needs: Sequence[bool], grad: Tensor, kept: _Kept, reuse: bool
) -> list[Tensor | None]:
    styles, colour_styles, maps = _split(plan, tensors)
    need_style, need_colour, need_map = _split(plan, needs)
    layers, epilogues = plan.layers, kept.epilogues
    # Layer 2 b of block b is the one that ToRGB reads.
    first = min(k for k in range(len(layers)) if need_style[k] or need_map[k] or (k % 2 == 0 and need_colour[k // 2]))
    grad = grad.contiguous()
    for block in reversed(range(len(colour_styles))):
        mask = kept.unclamped[block] if kept.unclamped else None
        epilogues[2 * block].grad_rgb = grad if mask is None else grad * mask
        if block:
            grad = plan.kernels.downsample(grad)
    grad_styles: list[Tensor | None] = [None] * len(layers)
    grad_maps: list[Tensor | None] = [None] * len(layers)
    y, through = kept.y, None
    output = kept.y  # of layer k: its memory ends up with the gradient, which that layer's backward is the last to read
    for k in reversed(range(first, len(layers))):
        epilogue, x = epilogues[k], kept.xs[k]
        epilogue.wants_noise = need_map[k]
        before = None
        if k > first:
            before = epilogues[k - 1]
            before.wants_noise = need_map[k - 1]
        through, direct = plan.kernels_of(layers[k]).backward(
            layers[k], x, styles[k], epilogue, y, through, before, reuse
        )
        y = None
        if reuse:
            if output is not None:
                plan.kernels_of(layers[k]).give_back(layers[k], output)
            output = kept.xs.pop()
            kept.y = None
        if need_style[k]:
            grad_styles[k] = epilogue.grad_style(styles[k]).add_(direct)
        if need_map[k]:
            assert epilogue.grad_noise is not None
            grad_map = epilogue.grad_noise[:, None] * layers[k].noise_gain
            grad_maps[k] = grad_map if len(maps[k]) == len(grad_map) else grad_map.sum(dim=0, keepdim=True)
    grad_colours = [epilogues[2 * b].grad_colour_style() if needed else None for b, needed in enumerate(need_colour)]
    return [*grad_styles, *grad_colours, *grad_maps]


def _through_modules(
    network: Network, plan: _Plan, tensors: Sequence[Tensor | None], needs: Sequence[bool], grad: Tensor
) -> list[Tensor | None]:
    """The gradients by PyTorch's own differentiation of the modules, themselves differentiable."""
    with torch.enable_grad():
        styles, colour_styles, maps = _split(plan, tensors)
        image = network.render(
            len(styles[0]),
            lambda layer, x, k: layer.styled(x, styles[k], maps[k]),
            lambda torgb, x, b: torgb.styled(x, colour_styles[b]),
        )
        wanted = [t for t, needed in zip(tensors, needs, strict=True) if needed and t is not None]
        found = iter(torch.autograd.grad(image, wanted, grad, create_graph=True, allow_unused=True))
    return [next(found) if needed else None for needed in needs]


def _plain(tensors: Sequence[Tensor]) -> bool:
    """Whether nothing but ordinary execution on ordinary tensors in the memory of the CPU is asked for."""
    if torch.compiler.is_compiling() or torch._C._functorch.peek_interpreter_stack() is not None:
        return False
    if torch.is_autocast_enabled("cpu") or forward_ad._current_level >= 0:
        return False
    dtype = tensors[0].dtype
    return dtype in (torch.float32, torch.float64) and all(
        type(t) in (Tensor, nn.Parameter)
        and t.dtype == dtype
        and torch._C._dispatch_keys(t).has(torch._C.DispatchKey.CPU)  # also not a batch of is_grads_batched=True
        for t in tensors
    )


def _weights(network: Network) -> list[Tensor] | None:
    """The tensors that the constants come from; None where a hook wants to see what goes on inside."""
    if nn_module._global_forward_hooks or nn_module._global_forward_pre_hooks:
        return None
    modules: list[nn.Module] = []
    weights: list[Tensor] = [network.get_parameter("b4.const")]
    for block in network.blocks():
        modules += [block.torgb, *block.layers()]
        weights += [block.torgb.weight, block.torgb.bias]
        for layer in block.layers():
            weights += [layer.weight, layer.bias, layer.noise_strength]
    if any(m._forward_hooks or m._forward_pre_hooks or m._backward_hooks or m._backward_pre_hooks for m in modules):
        return None
    return weights


def _graph_is_kept() -> bool:
    """Whether this backward may run again (``retain_graph=True``); True where PyTorch does not tell."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else ask()
