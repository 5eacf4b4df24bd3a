"""Changes of the feature maps inside a synthesis network: their names, their checks, and what a call returns."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TypeAlias

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.frozen.segment import Point
from stylegan_inv.utils.checks import one_of

Modulation: TypeAlias = tuple[Tensor | float, Tensor | float]
FeatureChange: TypeAlias = Tensor | Modulation


@dataclass(frozen=True)
class Synthesis:
    """What a synthesis network returns when features are asked for.

    Attributes:
        image: ``(B, img_channels, R, R)``; None where the call stops before the end.
        features: Name of a layer or block -> its feature map ``(B, C, h, w)``.
    """

    image: Tensor | None
    features: dict[str, Tensor]


@dataclass(frozen=True)
class FeaturePlan:
    """Where one call changes, returns or ends with feature maps.

    Attributes:
        points: Where the named feature maps are, in the order of the network.
        changes: Name -> what becomes of that feature map.
        returned: Names of the feature maps that the caller gets.
        upto: Name of the feature map that the call ends with; None to render the image.
    """

    points: Mapping[str, Point] = field(default_factory=dict)
    changes: Mapping[str, FeatureChange] = field(default_factory=dict)
    returned: tuple[str, ...] = ()
    upto: str | None = None

    @classmethod
    def of(
        cls,
        points: Mapping[str, Point],
        changes: Mapping[str, FeatureChange] | None,
        returned: Iterable[str],
        upto: str | None,
    ) -> FeaturePlan:
        """Checks the names.

        Raises:
            UserError: A name that the network does not have, or one after the end of the call.
        """
        plan = cls(points, changes or {}, tuple(returned), upto)
        names = list(points)
        for argument, given in (("features", plan.changes), ("return_features", plan.returned)):
            for name in given:
                one_of(f"synthesis.{argument}", name, names)
        if names[-1] in plan.changes:
            raise UserError(
                f"synthesis.features={names[-1]}: no layer reads the output of the last block; "
                f"expected {names[-2]} to change the feature map that the last ToRGB reads"
            )
        if upto is not None:
            one_of("synthesis.upto", upto, names)
            late = [n for n in (*plan.changes, *plan.returned) if names.index(n) > names.index(upto)]
            if late:
                raise UserError(f"synthesis.upto={upto}: {late[0]} comes after it; expected a layer up to {upto}")
        return plan

    def cuts(self) -> dict[Point, list[str]]:
        """Returns the points at which the network pauses, in order, with the names of the feature maps there."""
        used = {*self.changes, *self.returned, *([] if self.upto is None else [self.upto])}
        found: dict[Point, list[str]] = {}
        for name, point in self.points.items():
            if name in used:
                found.setdefault(point, []).append(name)
        return found

    def tensors(self) -> list[Tensor]:
        """Returns all tensors of the changes."""
        values = [v for change in self.changes.values() for v in (change if isinstance(change, tuple) else (change,))]
        return [v for v in values if isinstance(v, Tensor)]

    def changed(self, name: str, x: Tensor) -> Tensor:
        """Returns the feature map ``x`` of layer ``name`` after its change.

        Raises:
            UserError: A map, scale or shift of another shape.
        """
        if name not in self.changes:
            return x
        change = self.changes[name]
        if isinstance(change, Tensor):
            if change.ndim != 4 or change.shape[0] not in (1, len(x)) or change.shape[1:] != x.shape[1:]:
                expected = f"(1 or {len(x)}, {', '.join(map(str, x.shape[1:]))})"
                raise UserError(f"synthesis.features: the map of {name} is {tuple(change.shape)}, expected {expected}")
            return change.to(x.dtype).expand_as(x)
        scale, shift = change
        for what, value in (("scale", scale), ("shift", shift)):
            if isinstance(value, Tensor) and not _broadcasts(value, x):
                raise UserError(
                    f"synthesis.features: the {what} of {name} is {tuple(value.shape)}, "
                    f"expected a number or a tensor that broadcasts to {tuple(x.shape)}"
                )
        return (x * scale + shift).to(x.dtype)

    def row(self, i: int) -> FeaturePlan:
        """Returns the changes of image ``i`` alone."""

        def of_row(value: Tensor | float) -> Tensor | float:
            return value[i : i + 1] if isinstance(value, Tensor) and value.ndim == 4 and len(value) > 1 else value

        changes: dict[str, FeatureChange] = {}
        for name, change in self.changes.items():
            if isinstance(change, Tensor):
                changes[name] = change[i : i + 1] if len(change) > 1 else change
            else:
                changes[name] = (of_row(change[0]), of_row(change[1]))
        return FeaturePlan(self.points, changes, self.returned, self.upto)


def check_change(network: nn.Module, name: str, change: FeatureChange) -> None:
    """Checks a change of a feature map before a network runs.

    Args:
        network: A synthesis network, see :class:`.NetworkParts`.
        name: Name of the feature map.
        change: The change, for one image or for several.

    Raises:
        UserError: A name that the network does not have, or tensors of another shape.
    """
    names = network.feature_names()  # type: ignore[operator]
    one_of("synthesis.features", name, names)
    layers = network.named_layers()  # type: ignore[operator]
    layer = name if name in layers else [n for n in layers if n.startswith(f"{name}.")][-1]
    side = layers[layer].resolution
    shape = (len(layers[layer].weight), side, side)
    if isinstance(change, Tensor):
        fits = change.ndim == 4 and tuple(change.shape[1:]) == shape
    else:
        like = torch.empty((1, *shape), device="meta")
        fits = all(not isinstance(v, Tensor) or _broadcasts(v[:1] if v.ndim == 4 else v, like) for v in change)
    if not fits:
        raise UserError(f"synthesis.features: the change of {name} is of another size than the feature map {shape}")


def change_rows(change: FeatureChange, rows: slice | Tensor) -> FeatureChange:
    """Returns the change of some of the images; what is shared by all of them stays as it is.

    Args:
        change: A map (B, C, h, w), or a pair of numbers or tensors; only tensors with four axes have a row for each
            image.
        rows: A slice, or indices (N,).
    """
    if isinstance(change, Tensor):
        return change[rows]
    scale, shift = (v[rows] if isinstance(v, Tensor) and v.ndim == 4 and len(v) > 1 else v for v in change)
    return scale, shift


def join_changes(changes: Sequence[FeatureChange]) -> FeatureChange:
    """Returns the changes of several batches as one: maps, or pairs of tensors (B, ...)."""
    if all(isinstance(change, Tensor) for change in changes):
        return torch.cat([change for change in changes if isinstance(change, Tensor)])
    pairs = [change for change in changes if not isinstance(change, Tensor)]
    scale, shift = (torch.cat([torch.as_tensor(pair[i]) for pair in pairs]) for i in (0, 1))
    return scale, shift


def _broadcasts(value: Tensor, x: Tensor) -> bool:
    pairs = zip(reversed(value.shape), reversed(x.shape), strict=False)
    return value.ndim <= x.ndim and all(a in (1, b) for a, b in pairs)
