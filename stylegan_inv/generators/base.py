"""The forward pass that all synthesis networks share: it runs, changes, returns and stops at feature maps."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, TypeAlias, TypeVar

import torch
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from stylegan_inv.errors import UserError
from stylegan_inv.generators.feature_maps import FeatureChange, FeaturePlan, Synthesis
from stylegan_inv.generators.frozen.segment import START, Point, Segment
from stylegan_inv.generators.network_parts import NetworkParts, StyledLayer
from stylegan_inv.generators.synthesis_inputs import StyleInputs, check_codes, check_styles, noise_inputs
from stylegan_inv.generators.weight_changes import ChangesOfImages, checked_changes, with_changes

S = TypeVar("S", bound="SynthesisBase")
#: (module, x, number of the layer) -> output.
LayerCall: TypeAlias = Callable[[Any, Tensor, int], Tensor]
#: (segment, x, image, whether x is read afterwards) -> x and image.
Runner: TypeAlias = Callable[[Segment, Tensor | None, Tensor | None, bool], tuple[Tensor | None, Tensor | None]]


class SynthesisBase(NetworkParts):
    """W+ codes -> image.

    Args and attributes are those of :class:`.NetworkParts`.
    """

    def forward(
        self,
        w: Tensor | None = None,
        noise: str | Sequence[Tensor] = "const",
        *,
        features: Mapping[str, FeatureChange] | None = None,
        styles: Mapping[str, Tensor] | None = None,
        weights: Mapping[str, Tensor] | None = None,
        upto: str | None = None,
        return_features: Iterable[str] = (),
    ) -> Tensor | Synthesis:
        """Renders W+ codes.

        Gradients reach all inputs. The fast path of a frozen generator on the CPU covers all arguments: ``features``
        and ``return_features`` divide it at the named feature maps. Where ``weights`` require gradients, the modules
        run.

        Args:
            w: Codes ``(B, num_ws, w_dim)``. None if ``styles`` has a style for every layer that runs.
            noise: ``"const"`` for the stored maps, ``"random"`` for new maps for each image, ``"none"``, or a list with
                one ``(1 or B, 1, r, r)`` tensor per layer (see :meth:`noise_maps`).
            features: Changes of feature maps, by the names of :meth:`feature_names`: a map ``(1 or B, C, h, w)`` that
                replaces the feature map, or a pair ``(scale, shift)`` for ``x * scale + shift``, both of which are
                numbers or broadcast to ``(B, C, h, w)``. ``(1 - m, m * y)`` blends y into the feature map by a mask m.
            styles: Style vectors ``(B, C)``, by the names of :meth:`layer_names`, that replace the outputs of the
                layers' affine transformations of w (the codes of StyleSpace).
            weights: Differences ``(1 or B, *shape)`` that are added to parameters, by the parameters' names. A
                difference for each image runs the images one by one; :class:`.ChangesOfImages` are computed for one
                image at a time.
            upto: Name of the feature map to stop at. No later layer and no ToRGB runs.
            return_features: Names of feature maps to return, each after its change.

        Returns:
            Images ``(B, img_channels, R, R)``, nominally in [-1, 1] but not clamped. With ``return_features`` a
            :class:`.Synthesis` of the image (None with ``upto``) and the feature maps ``(B, C, h, w)``. With ``upto``
            alone that feature map.

        Raises:
            UserError: Names that the network does not have, or tensors of another shape.
        """
        plan = FeaturePlan()
        if features or upto is not None or return_features:
            plan = FeaturePlan.of(self._points(), features, return_features, upto)
        inputs = self._inputs(w, noise, styles or {}, plan)
        if weights is None:
            return self._run(inputs, plan)
        batch = len(inputs.like)
        if isinstance(weights, ChangesOfImages) and weights.images not in (1, batch):
            raise UserError(f"synthesis.weights: differences of {weights.images} images, expected 1 or {batch}")
        if isinstance(weights, ChangesOfImages) and weights.images > 1:
            of_images = (checked_changes(self, weights.of_image(i), 1) for i in range(batch))
        else:
            changes = checked_changes(self, weights, batch)
            if all(len(change) == 1 for change in changes.values()):
                return self.with_weights(changes, 0, batch)._run(inputs, plan)
            of_images = (changes for _ in range(batch))
        return _joined(
            [self.with_weights(own, i, 1)._run(inputs.row(i), plan.row(i)) for i, own in enumerate(of_images)]
        )

    def with_weights(self: S, changes: Mapping[str, Tensor], row: int, batch: int) -> S:
        """Returns this network with other weights for one call of ``batch`` images, see :func:`.with_changes`."""
        return with_changes(self, changes, row)

    def render(
        self,
        batch: int,
        layer: LayerCall,
        colours: LayerCall,
        segment: Segment | None = None,
        x: Tensor | None = None,
        image: Tensor | None = None,
        recompute: bool = False,
    ) -> tuple[Tensor, Tensor | None]:
        """Runs the modules; the caller makes the calls.

        Args:
            batch: Number of images.
            layer: ``(module, x, k)`` -> output of the k-th layer.
            colours: ``(module, x, k)`` -> colours of the ToRGB that reads the k-th layer.
            segment: The part of the network to run; None for all of it.
            x: Input of its first layer ``(B, C, h, w)``; None for the constant.
            image: Image of the blocks before it; None for none.
            recompute: Whether to keep the input of each block alone and compute the block again in backward.

        Returns:
            The output of the last layer and the image, ``(batch, img_channels, r, r)``.
        """
        torgbs, modules = self.colour_layers(), self.layers()
        segment = segment or Segment.between(START, Point(len(modules)), torgbs)
        if x is None:
            # channels_last: the convolutions and filters of a CPU are up to twice as fast in it.
            x = self.const[None].expand(batch, -1, -1, -1).contiguous(memory_format=torch.channels_last)

        def run_block(
            operations: Sequence[tuple[int, bool]], x: Tensor, image: Tensor | None
        ) -> tuple[Tensor, Tensor | None]:
            for k, is_colour in operations:
                if is_colour:
                    image = self.add_colours(image, colours(torgbs[k], x, k))
                else:
                    x = layer(modules[k], x, k)
            return x, image

        run: Callable[..., Any] = partial(checkpoint, run_block, use_reentrant=False) if recompute else run_block
        for operations in self._by_block(segment):
            x, image = run(operations, x, image)
        assert x is not None
        return x, image

    def layer_call(self, inputs: StyleInputs) -> LayerCall:
        """Returns the call of the layers on these inputs, for :meth:`render`."""
        names = list(self.named_layers())

        def layer(module: StyledLayer, x: Tensor, k: int) -> Tensor:
            return module(x, inputs.code(k), inputs.maps[k], inputs.styles.get(names[k]))

        return layer

    def colour_call(self, inputs: StyleInputs) -> LayerCall:
        """Returns the call of the ToRGB layers on these inputs, for :meth:`render`."""
        names = list(self.named_layers())

        def colours(module: Any, x: Tensor, k: int) -> Tensor:
            rgb: Tensor = module(x, *self._colour_style(inputs, names[k], k)) if self.styled_colours else module(x)
            return rgb

        return colours

    def _by_block(self, segment: Segment) -> list[list[tuple[int, bool]]]:
        """Returns the operations of a segment, block by block: numbers of layers, and whether it is their ToRGB."""
        groups: list[list[tuple[int, bool]]] = []
        done = 0
        for block in self.blocks():
            count = len(block.named_layers())
            group = []
            for k in range(done, done + count):
                if k in segment.layers:
                    group.append((k, False))
                if k in segment.colours:
                    group.append((k, True))
            groups += [group] if group else []
            done += count
        return groups

    def _inputs(
        self, w: Tensor | None, noise: str | Sequence[Tensor], styles: Mapping[str, Tensor], plan: FeaturePlan
    ) -> StyleInputs:
        layers = self.layers()
        if w is not None:
            check_codes(w, self.num_ws, self.w_dim)
        count = len(layers) if plan.upto is None else plan.points[plan.upto].layers
        if w is None or styles:
            run = list(self.named_layers())[:count]
            needed = [name for name in self.layer_names() if plan.upto is None or name in run]
            channels = {name: self.get_parameter(f"{name}.affine.bias").numel() for name in self.layer_names()}
            check_styles(styles, channels, w, needed)
        like = StyleInputs(w, styles, []).like
        if not isinstance(noise, str) and len(noise) == len(layers):
            noise = list(noise)[:count]
        maps = noise_inputs(layers[:count], noise, len(like), like)
        return StyleInputs(w, styles, maps)

    def _run(self, inputs: StyleInputs, plan: FeaturePlan) -> Tensor | Synthesis:
        run = self._runner(inputs, plan)
        colours = () if plan.upto is not None else tuple(self.colour_layers())
        found: dict[str, Tensor] = {}
        x: Tensor | None = None
        image: Tensor | None = None
        start = START
        for point, names in plan.cuts().items():
            segment = Segment.between(start, point, colours)
            if segment.layers or segment.colours:
                x, image = run(segment, x, image, True)
            assert x is not None
            for name in names:
                x = plan.changed(name, x)
                if name in plan.returned:
                    found[name] = x
            start = point
        if plan.upto is not None:
            assert x is not None
            return Synthesis(None, found) if plan.returned else x
        segment = Segment.between(start, Point(len(inputs.maps)), colours)
        if segment.layers or segment.colours:
            x, image = run(segment, x, image, False)
        assert image is not None
        image = image.contiguous()
        return Synthesis(image, found) if plan.returned else image

    def _runner(self, inputs: StyleInputs, plan: FeaturePlan) -> Runner:
        """Returns what runs the segments of one call: here the modules."""
        layer, colours = self.layer_call(inputs), self.colour_call(inputs)
        recompute = self.recompute_blocks and torch.is_grad_enabled()

        def run(
            segment: Segment, x: Tensor | None, image: Tensor | None, returns_x: bool
        ) -> tuple[Tensor, Tensor | None]:
            return self.render(len(inputs.like), layer, colours, segment, x, image, recompute)

        return run

    @staticmethod
    def _colour_style(inputs: StyleInputs, layer: str, k: int) -> tuple[Tensor | None, Tensor | None]:
        """Returns the code and the given style of the ToRGB that reads layer k; its row is that of the next layer."""
        block, _ = layer.split(".")
        return inputs.code(k + 1), inputs.styles.get(f"{block}.torgb")


def _joined(results: Sequence[Tensor | Synthesis]) -> Tensor | Synthesis:
    """Returns the results of single images as one."""
    tensors = [r for r in results if isinstance(r, Tensor)]
    if tensors:
        return torch.cat(tensors)
    parts = [r for r in results if isinstance(r, Synthesis)]
    images = [part.image for part in parts if part.image is not None]
    features = {name: torch.cat([part.features[name] for part in parts]) for name in parts[0].features}
    return Synthesis(torch.cat(images) if images else None, features)
