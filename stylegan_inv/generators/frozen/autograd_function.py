"""The forward and backward passes of a segment of the frozen synthesis network as one autograd function."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol

import torch
from torch import Tensor

from stylegan_inv.generators.frozen.backward_pass import Inputs, Kept, SegmentGradients
from stylegan_inv.generators.frozen.network_plan import Plan, is_plain
from stylegan_inv.generators.frozen.segment import Segment
from stylegan_inv.utils.compat import backward_keeps_graph


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
) -> tuple[Tensor | None, Tensor | None, Kept]:
    kept = Kept()
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
        keep = backward_keeps_graph()
        found = SegmentGradients(ctx.plan, ctx.segment, inputs, needs, ctx.kept, y, reuse=not keep).run(*grads)
        if not keep:
            ctx.kept = None
        return None, None, None, None, *found.flat()


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
