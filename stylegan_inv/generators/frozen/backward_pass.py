"""The inputs of a segment of the frozen synthesis network, what its forward keeps, and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

from torch import Tensor

from stylegan_inv.generators.frozen.frozen_layer import Epilogue
from stylegan_inv.generators.frozen.network_plan import Plan
from stylegan_inv.generators.frozen.segment import Segment
from stylegan_inv.generators.frozen.torch_layer import activation_gradient

T = TypeVar("T")


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
class Kept:
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


class SegmentGradients:
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
        kept: Kept,
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
