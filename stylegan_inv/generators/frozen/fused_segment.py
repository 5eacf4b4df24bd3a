"""The forward and backward passes of a segment of the frozen synthesis network as one autograd function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, Protocol, TypeAlias, TypeVar

import torch
from torch import Tensor

from stylegan_inv.generators.frozen.frozen_layer import Epilogue
from stylegan_inv.generators.frozen.network_plan import Plan, is_plain
from stylegan_inv.generators.frozen.segment import Segment
from stylegan_inv.generators.frozen.torch_layer import activation_gradient

T = TypeVar("T")
Tensors: TypeAlias = Sequence[Tensor | None]


class Modules(Protocol):
    """The network whose modules compute second derivatives."""

    def run_modules(
        self,
        segment: Segment,
        x: Tensor | None,
        image: Tensor | None,
        styles: Sequence[Tensor],
        colour_styles: Sequence[Tensor],
        maps: Sequence[Tensor | None],
    ) -> tuple[Tensor, Tensor | None]:
        """Runs a segment on ``(B, C, h, w)``, see :func:`run_segment`."""


@dataclass
class Inputs(Generic[T]):
    """What a segment reads: tensors, or whether each of them needs a gradient.

    Attributes:
        x: Output of the layer before, ``(B, h, w, C)``; None for the constant.
        image: Image of the layers before, ``(B, colours, h, w)``; None where there is none.
        styles: ``(B, I)`` for each layer.
        colour_styles: ``(B, C)`` for each ToRGB.
        maps: ``(1 or B, 1, r, r)`` or None for each layer.
    """

    x: T
    image: T
    styles: list[T]
    colour_styles: list[T]
    maps: list[T]

    @classmethod
    def of(cls, segment: Segment, values: Sequence[T]) -> Inputs[T]:
        """Sorts the flat arguments of the autograd function."""
        n, c = len(segment.layers), len(segment.colours)
        x, image, *rest = values
        return cls(x, image, list(rest[:n]), list(rest[n : n + c]), list(rest[n + c :]))

    def flat(self) -> list[T]:
        """Returns the flat arguments of the autograd function."""
        return [self.x, self.image, *self.styles, *self.colour_styles, *self.maps]


@dataclass
class _Kept:
    """What backward needs of forward.

    Attributes:
        xs: Inputs of the layers.
        y: Output of the last layer; None where backward computes it again.
        epilogues: Of the layers.
        unclamped: For each ToRGB, where its clamp did nothing; empty without a clamp.
    """

    xs: list[Tensor] = field(default_factory=list)
    y: Tensor | None = None
    epilogues: list[Epilogue] = field(default_factory=list)
    unclamped: list[Tensor] = field(default_factory=list)


def run_segment(
    network: Modules,
    plan: Plan,
    segment: Segment,
    x: Tensor | None,
    image: Tensor | None,
    styles: Sequence[Tensor],
    colour_styles: Sequence[Tensor],
    maps: Sequence[Tensor | None],
    returns_x: bool,
) -> tuple[Tensor | None, Tensor | None]:
    """Runs a segment by the fused kernels.

    Args:
        network: Its modules run where second derivatives are needed.
        plan: The network's constants.
        segment: Begins with a layer.
        x: Output of the layer before, ``(B, C, h, w)``; None for the network's constant.
        image: Image of the layers before, ``(B, colours, h, w)``; None where there is none.
        styles: ``(B, I)`` for each layer of the segment.
        colour_styles: ``(B, C)`` for each ToRGB of the segment, without the gain of its weight.
        maps: ``(1 or B, 1, r, r)`` or None for each layer of the segment.
        returns_x: Whether the output of the last layer is returned.

    Returns:
        The output of the last layer ``(B, C, H, W)`` or None, and the image ``(B, colours, H, W)`` or None.
    """
    values: Inputs[Tensor | None] = Inputs(
        x=None if x is None else x.permute(0, 2, 3, 1).contiguous(),
        image=None if image is None else image.contiguous(),
        styles=[style.contiguous() for style in styles],
        colour_styles=list(colour_styles),
        maps=list(maps),
    )
    tensors: list[Tensor | None] = values.flat()
    if torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in tensors):
        y, drawn = _FusedSegment.apply(network, plan, segment, returns_x, *tensors)
    else:
        with torch.no_grad():
            y, drawn, _ = _forward(plan, segment, Inputs.of(segment, tensors), returns_x, keep=False)
    # Large activations may be in bfloat16.
    features = None if y is None else y.to(styles[0].dtype).permute(0, 3, 1, 2)
    return features, drawn if segment.colours else image


def _forward(
    plan: Plan, segment: Segment, inputs: Inputs[Any], returns_x: bool, keep: bool
) -> tuple[Tensor | None, Tensor | None, _Kept]:
    kept = _Kept()
    x: Tensor | None = plan.const if inputs.x is None else inputs.x
    image: Tensor | None = inputs.image
    colour_styles: Mapping[int, Tensor] = dict(zip(segment.colours, inputs.colour_styles, strict=True))
    for i, k in enumerate(segment.layers):
        assert x is not None
        layer = plan.layers[k]
        style = inputs.styles[i]
        epilogue = layer.epilogue(style, inputs.maps[i], colour_styles.get(k))
        if keep:
            kept.xs.append(x)
            kept.epilogues.append(epilogue)
        needed = returns_x or k < segment.stop - 1 or (keep and plan.keeps(layer, len(style)))
        x, rgb = plan.kernels_of(layer).forward(layer, x, style, epilogue, needed)
        if rgb is None:
            continue
        rgb += plan.colour_bias[k]
        if plan.colour_clamp is not None:
            if keep:
                kept.unclamped.append(rgb.abs() <= plan.colour_clamp)
            rgb.clamp_(-plan.colour_clamp, plan.colour_clamp)
        if image is not None:
            plan.kernels.upsample_add(image, rgb)
        image = rgb
    kept.y = x
    return x if returns_x else None, image, kept


class _FusedSegment(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, network: Modules, plan: Plan, segment: Segment, returns_x: bool, *tensors: Tensor | None
    ) -> tuple[Tensor | None, Tensor | None]:
        ctx.network, ctx.plan, ctx.segment = network, plan, segment
        ctx.set_materialize_grads(False)
        inputs: Inputs[Any] = Inputs.of(segment, tensors)
        y, image, ctx.kept = _forward(plan, segment, inputs, returns_x, keep=True)
        returned, saved = y, None
        if y is not None:
            returned = y.to(inputs.styles[0].dtype)
            if returned is y:
                saved, ctx.kept.y = y, None  # PyTorch notices if the caller changes a saved output in place
        ctx.save_for_backward(*tensors, saved)
        return returned, image if segment.colours else None

    @staticmethod
    def backward(ctx: Any, *grads: Tensor | None) -> tuple[Any, ...]:
        *tensors, y = ctx.saved_tensors  # raises an error in a second backward without retain_graph
        needs = Inputs.of(ctx.segment, ctx.needs_input_grad[4:])
        inputs = Inputs.of(ctx.segment, tensors)
        found: Inputs[Tensor | None]
        given = [grad for grad in grads if grad is not None]
        if given and (torch.is_grad_enabled() or not is_plain(given)):
            found = _through_modules(ctx.network, ctx.segment, inputs, needs, grads)
            return None, None, None, None, *found.flat()
        keep = _graph_is_kept()
        found = _Backward(ctx.plan, ctx.segment, inputs, needs, ctx.kept, y, reuse=not keep).run(*grads)
        if not keep:
            ctx.kept = None
        return None, None, None, None, *found.flat()


class _Backward:
    """The gradients of one segment.

    Args:
        plan: The network's constants.
        segment: The segment.
        inputs: Of forward.
        needs: Which inputs need a gradient.
        kept: Of forward.
        returned: The output of the last layer where forward returned it.
        reuse: Whether the memory in ``kept`` may be overwritten.
    """

    def __init__(
        self,
        plan: Plan,
        segment: Segment,
        inputs: Inputs[Any],
        needs: Inputs[bool],
        kept: _Kept,
        returned: Tensor | None,
        reuse: bool,
    ) -> None:
        self.plan, self.segment, self.inputs, self.needs = plan, segment, inputs, needs
        self.kept, self.returned, self.reuse = kept, returned, reuse
        self.found: Inputs[Tensor | None] = Inputs(
            None, None, [None] * len(needs.styles), [None] * len(needs.colour_styles), [None] * len(needs.maps)
        )

    def run(self, grad_y: Tensor | None, grad_image: Tensor | None) -> Inputs[Tensor | None]:
        """Returns the gradients of the inputs from those of the outputs; None for those that need none."""
        if grad_image is not None:
            self._colours(grad_image.contiguous())
        top = self._top(grad_y)
        if top is None:
            return self.found
        needs, colours = self.needs, [k - self.segment.first for k in self.segment.colours]
        wanted = [i for i in range(top + 1) if needs.styles[i] or needs.maps[i]]
        wanted += [i for i, needed in zip(colours, needs.colour_styles, strict=True) if needed and i <= top]
        first = 0 if needs.x else min(wanted, default=top + 1)
        self._layers(top, first, grad_y)
        for j, i in enumerate(colours):
            if needs.colour_styles[j] and i <= top and self.kept.epilogues[i].grad_rgb is not None:
                self.found.colour_styles[j] = self.kept.epilogues[i].grad_colour_style()
        return self.found

    def _colours(self, grad: Tensor) -> None:
        """Hands the gradient of the image to the epilogues of the layers that a ToRGB reads."""
        for j, k in reversed(list(enumerate(self.segment.colours))):
            mask = self.kept.unclamped[j] if self.kept.unclamped else None
            self.kept.epilogues[k - self.segment.first].grad_rgb = grad if mask is None else grad * mask
            if j or self.inputs.image is not None:
                grad = self.plan.kernels.downsample(grad)
        if self.needs.image:
            self.found.image = grad

    def _top(self, grad_y: Tensor | None) -> int | None:
        """Returns the last layer that a gradient reaches."""
        epilogues = self.kept.epilogues
        if grad_y is not None:
            return len(epilogues) - 1
        return max((i for i, epilogue in enumerate(epilogues) if epilogue.grad_rgb is not None), default=None)

    def _layers(self, top: int, first: int, grad_y: Tensor | None) -> None:
        plan, kept, needs, maps = self.plan, self.kept, self.needs, self.inputs.maps
        # `output` is the memory of the output of layer i. It holds the gradient once layer i + 1 is done, and layer i
        # reads it last. An output that was returned belongs to the caller.
        y, output = (kept.y if self.returned is None else self.returned), kept.y
        if top + 1 < len(kept.xs):
            y = output = kept.xs[top + 1]
        if self.reuse:
            kept.y = None
            del kept.xs[top + 1 :]
        through: Tensor | None = None
        if grad_y is not None:
            assert y is not None
            kept.epilogues[top].wants_noise = needs.maps[top]
            through = activation_gradient(kept.epilogues[top], y, grad_y.to(y.dtype, copy=True).contiguous())
            y = None
        for i in reversed(range(first, top + 1)):
            layer, style = plan.layers[self.segment.first + i], self.inputs.styles[i]
            epilogue, x = kept.epilogues[i], kept.xs[i]
            epilogue.wants_noise = needs.maps[i]
            before = None
            if i > first:
                before = kept.epilogues[i - 1]
                before.wants_noise = needs.maps[i - 1]
            elif needs.x:
                before = Epilogue.identity(x)
            through, direct = plan.kernels_of(layer).backward(
                layer, x, style, epilogue, y, through, before, self.reuse and i > 0
            )
            y = None
            if self.reuse:
                if output is not None:
                    plan.kernels_of(layer).give_back(layer, output)
                output = kept.xs.pop()
            if needs.styles[i]:
                self.found.styles[i] = epilogue.grad_style(style).add_(direct)
            if needs.maps[i]:
                assert epilogue.grad_noise is not None
                grad_map = epilogue.grad_noise[:, None] * layer.noise_gain
                self.found.maps[i] = grad_map if len(maps[i]) == len(grad_map) else grad_map.sum(dim=0, keepdim=True)
        if needs.x:
            self.found.x = through


def _through_modules(
    network: Modules, segment: Segment, inputs: Inputs[Any], needs: Inputs[bool], grads: Sequence[Tensor | None]
) -> Inputs[Tensor | None]:
    """Returns gradients that are themselves differentiable: those of the modules by PyTorch."""
    with torch.enable_grad():
        x = None if inputs.x is None else inputs.x.permute(0, 3, 1, 2)
        y, image = network.run_modules(segment, x, inputs.image, inputs.styles, inputs.colour_styles, inputs.maps)
        pairs = [(y.permute(0, 2, 3, 1), grads[0]), (image, grads[1])]
        outputs = [(out, grad) for out, grad in pairs if out is not None and grad is not None]
        flat, needed = inputs.flat(), needs.flat()
        wanted = [t for t, need in zip(flat, needed, strict=True) if need and t is not None]
        if not outputs or not wanted:
            return Inputs.of(segment, [None] * len(flat))
        found = iter(
            torch.autograd.grad(
                [out for out, _ in outputs], wanted, [grad for _, grad in outputs], create_graph=True, allow_unused=True
            )
        )
    return Inputs.of(segment, [next(found) if need else None for need in needed])


def _graph_is_kept() -> bool:
    """Returns whether this backward may run again (``retain_graph=True``); True where PyTorch does not tell."""
    ask = getattr(torch._C._autograd, "_get_current_graph_task_keep_graph", None)
    return True if ask is None else bool(ask())
