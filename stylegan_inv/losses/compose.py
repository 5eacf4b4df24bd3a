"""What a loss term gets, and the weighted sum of terms."""

from __future__ import annotations

import dataclasses
import math
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.crop import face_crop

REGIONS = ("whole", "interest", "crop")
NORMALISE = ("all_pixels", "mask_area")


@dataclass(kw_only=True)
class LossInputs:
    """One reconstruction and what it is compared with.

    Attributes:
        image: reconstruction (B, 3, H, W), nominally in [-1, 1].
        target: what it should be (B, 3, H, W).
        w: codes (B, L, D) it was made from.
        w_avg: mean code of the generator, (D,) or (L, D).
        mask: interest mask (B, 1, H, W) in [0, 1], 1 = interest.
        source: what the encoder saw (B, C, H, W), where that is not the target.
        synthesis: codes (B, L, D) -> pictures of the target's size, for terms that look at other codes.
    """

    image: Tensor
    target: Tensor
    w: Tensor | None = None
    w_avg: Tensor | None = None
    mask: Tensor | None = None
    source: Tensor | None = None
    synthesis: Callable[[Tensor], Tensor] | None = None
    _memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.image.shape != self.target.shape:
            raise UserError(
                f"got a reconstruction of shape {tuple(self.image.shape)} and a target of {tuple(self.target.shape)}, "
                f"expected equal shapes; pool the generator's output to the target's size first"
            )

    def picture(self, which: str, region: str = "whole") -> Tensor:
        """``image``, ``target`` or ``source``, or a region of it.

        ``interest`` multiplies by the mask (the rest becomes mid-grey), ``crop`` is `face_crop`.

        Raises:
            UserError: region ``interest`` without a mask, or no ``source``.
        """
        picture = getattr(self, which)
        if picture is None:
            raise UserError(f"a loss term compares with the {which}, but the method gave none")
        if region == "interest":
            return picture * self._needed_mask()
        return face_crop(picture) if region == "crop" else picture

    def average(self, distances: Tensor, normalise: str = "all_pixels") -> Tensor:
        """Batch mean of distances (B,), which are means over all positions of a picture.

        ``mask_area`` refers them to the interest region instead: its squared area, as both pictures carry the mask
        once. For squared errors this is their mean weighted by the squared mask.
        """
        if normalise == "all_pixels":
            return distances.mean()
        area = self._needed_mask().square().mean(dim=(1, 2, 3))
        return distances.sum() / area.sum().clamp_min(torch.finfo(area.dtype).tiny)  # nothing of interest: 0

    def with_image(self, image: Tensor, w: Tensor) -> LossInputs:
        """The same comparison for another reconstruction; what is known about the target is kept."""
        other = dataclasses.replace(self, image=image, w=w)
        other._memo.update({key: value for key, value in self._memo.items() if key[0] != "image"})
        return other

    def once(self, which: str, region: str, network: nn.Module, compute: Callable[[Tensor], Any]) -> Any:
        """``compute`` on a picture, once for all terms that share ``network``; only the image gets a gradient."""
        key = (which, region, id(network), compute.__name__)
        if key not in self._memo:
            with torch.set_grad_enabled(torch.is_grad_enabled() and which == "image"):
                self._memo[key] = compute(self.picture(which, region))
        return self._memo[key]

    def _needed_mask(self) -> Tensor:
        if self.mask is None:
            raise UserError("a loss term has region=interest, but the batch has no mask; use a dataset with masks")
        return self.mask


class WeightedLoss(NamedTuple):
    """A loss of a discriminator.

    Attributes:
        name: Name in the logs.
        value: Raw value, a scalar.
        weight: Factor of the value in the step.
    """

    name: str
    value: Tensor
    weight: float = 1.0


@runtime_checkable
class LearningTerm(Protocol):
    """A loss term with parameters of its own that learn during the training, such as an image discriminator."""

    def optimizer(self) -> torch.optim.Optimizer | None:
        """Returns the optimiser of the term's parameters; None if they are fixed."""

    def learning_losses(self) -> Iterator[WeightedLoss]:
        """Yields the losses of the term's parameters, each of which is one step of its optimiser."""


@runtime_checkable
class RegionTerm(Protocol):
    """A loss term that is restricted to a region of the image.

    Attributes:
        region: One of `REGIONS`.
    """

    region: str


class LossTerms(nn.Module):
    """The weighted sum of loss terms.

    Args:
        terms: name -> module; ``module(LossInputs)`` gives a scalar.
        weights: name -> finite number. A term of weight 0 is not computed.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(terms) != set(weights):
            raise UserError(f"loss: got terms {sorted(terms)} and weights {sorted(weights)}, expected the same names")
        for name, weight in weights.items():
            if not math.isfinite(weight):
                raise UserError(f"loss.{name}.weight={weight}: expected a finite number")
        check_one_identity(terms, weights)
        self.terms = nn.ModuleDict(dict(terms))
        self.weights = {name: float(weight) for name, weight in weights.items()}
        # Refinement methods compare several reconstructions with one target; its features are computed once.
        self._last_target: tuple[weakref.ref[Tensor], int, dict[Any, Any]] | None = None

    def forward(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the raw value of each term.

        Raises:
            UserError: a term that does not give a scalar.
        """
        target = inputs.target
        last, self._last_target = self._last_target, None
        if last is not None and last[0]() is target and last[1] == _version(target):
            inputs._memo.update(last[2])
        values: dict[str, Tensor] = {}
        total = inputs.image.new_zeros(())
        for name, term in self.terms.items():
            if self.weights[name] == 0:
                continue
            value = term(inputs)
            if value.ndim != 0:
                raise UserError(f"loss.{name}: got a value of shape {tuple(value.shape)}, expected a scalar")
            values[name] = value
            total = total + self.weights[name] * value
        kept = {key: value for key, value in inputs._memo.items() if key[:2] == ("target", "whole")}
        if kept and _version(target) >= 0:
            self._last_target = (weakref.ref(target), _version(target), kept)
        return total, values

    def extra_repr(self) -> str:
        """The weights."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())


def _version(tensor: Tensor) -> int:
    """Counts in-place changes of a tensor; -1 where that is not tracked."""
    return -1 if tensor.is_inference() else tensor._version


def check_region(region: str, allowed: Sequence[str] = REGIONS) -> str:
    """Returns ``region`` or says what it can be."""
    if region not in allowed:
        raise UserError(f"region={region!r}: expected one of {', '.join(allowed)}")
    return region


def check_normalise(normalise: str, region: str) -> str:
    """Returns ``normalise`` or says what it can be in this region."""
    if normalise not in NORMALISE:
        raise UserError(f"normalise={normalise!r}: expected one of {', '.join(NORMALISE)}")
    if normalise == "mask_area" and region != "interest":
        raise UserError(f"normalise=mask_area with region={region}: only region=interest has a mask; set both")
    return normalise


def check_one_identity(terms: Mapping[str, Any], weights: Mapping[str, float]) -> None:
    """Refuses the identity of faces and the likeness of objects (MoCo) in one loss, as pSp's trainer does.

    MoCo's features stand in for a recognition network in domains that have none. Terms of weight 0 do not count.

    Raises:
        UserError: terms with different values of ``compares``.
    """
    compares = {name: term.compares for name, term in terms.items() if weights[name] and hasattr(term, "compares")}
    if len(set(compares.values())) > 1:
        listed = ", ".join(f"loss.{name} ({what})" for name, what in compares.items())
        raise UserError(f"loss: got {listed}; expected identity or MoCo, not both: give one of them weight=0")


def as_network(network: Any) -> nn.Module:
    """A network as given, or a face network by its name or file."""
    if isinstance(network, nn.Module):
        return network
    # Inside the function: losses stay importable alone, and only this convenience needs the encoders.
    from stylegan_inv.encoders.face_network import load_face_network

    return load_face_network(network)
