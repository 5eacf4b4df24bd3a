"""The inputs of a loss term and the weighted sum of terms."""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, Protocol, runtime_checkable

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.crop import face_crop
from stylegan_inv.utils.checks import one_of, real_number

ImageName = Literal["image", "target", "source"]
REGIONS = ("whole", "interest", "crop")
NORMALISE = ("all_pixels", "mask_area")


@dataclass(kw_only=True)
class LossInputs:
    """A batch of reconstructions with their targets.

    Attributes:
        image: Reconstructions (B, 3, H, W), nominally in [-1, 1].
        target: Target images (B, 3, H, W).
        w: Latent codes (B, L, D) of the reconstructions.
        w_avg: Latent average of the generator, (D,) or (L, D).
        mask: Interest mask (B, 1, H, W) in [0, 1], 1 = interest.
        source: Input of the encoder (B, C, H, W), if it differs from the target.
        synthesis: Function from codes (B, L, D) to images of the target's size, for terms that render other codes.
    """

    image: Tensor
    target: Tensor
    w: Tensor | None = None
    w_avg: Tensor | None = None
    mask: Tensor | None = None
    source: Tensor | None = None
    synthesis: Callable[[Tensor], Tensor] | None = None
    _cache: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.image.shape != self.target.shape:
            raise UserError(
                f"got a reconstruction of shape {tuple(self.image.shape)} and a target of {tuple(self.target.shape)}, "
                f"expected equal shapes; pool the generator's output to the target's size first"
            )

    def select(self, name: ImageName, region: str = "whole") -> Tensor:
        """Returns the reconstruction, the target or the source, or a region of it.

        Args:
            name: Which of the three.
            region: ``whole``; ``interest`` multiplies by the mask (the rest becomes mid-grey); ``crop`` is `face_crop`.

        Raises:
            UserError: The region is ``interest`` without a mask, or there is no source.
        """
        image = {"image": self.image, "target": self.target, "source": self.source}[name]
        if image is None:
            raise UserError(f"a loss term compares with the {name}, but the method did not pass one")
        if region == "interest":
            return image * self._required_mask()
        return face_crop(image) if region == "crop" else image

    def average(self, distances: Tensor, normalise: str = "all_pixels") -> Tensor:
        """Returns the batch mean of distances (B,), each a mean over all positions of an image.

        ``mask_area`` divides by the area of the interest region instead. The area is that of the squared mask, because
        both images are multiplied by the mask; for squared errors the result is the mean weighted by the squared mask.
        """
        if normalise == "all_pixels":
            return distances.mean()
        area = self._required_mask().square().mean(dim=(1, 2, 3))
        return distances.sum() / area.sum().clamp_min(torch.finfo(area.dtype).tiny)  # an empty mask gives 0

    def with_image(self, image: Tensor, w: Tensor) -> LossInputs:
        """Returns inputs with another reconstruction; cached results of the target and the source are kept."""
        other = dataclasses.replace(self, image=image, w=w)
        other._cache.update({key: value for key, value in self._cache.items() if key[0] != "image"})
        return other

    def compute_once(self, name: ImageName, region: str, network: nn.Module, compute: Callable[[Tensor], Any]) -> Any:
        """Returns ``compute(self.select(name, region))``, cached for all terms that share the network.

        Only the reconstruction receives a gradient.

        Args:
            name: See `select`.
            region: See `select`.
            network: The network that ``compute`` is a method of.
            compute: A method of the network.
        """
        key = (name, region, id(network), compute.__name__)
        if key not in self._cache:
            with torch.set_grad_enabled(torch.is_grad_enabled() and name == "image"):
                self._cache[key] = compute(self.select(name, region))
        return self._cache[key]

    def _required_mask(self) -> Tensor:
        if self.mask is None:
            raise UserError(
                "a loss term compares the region of interest, but the batch has no mask; give loss_region=whole, or "
                "dataset.mask_root"
            )
        return self.mask


@dataclass(frozen=True)
class WeightedLoss:
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


@runtime_checkable
class IdentityTerm(Protocol):
    """A term that compares what an image shows: the identity of ``faces``, or the likeness of ``objects``."""

    compares: str


class LossTerms(nn.Module):
    """Computes the weighted sum of loss terms.

    Args:
        terms: Name -> module that maps `LossInputs` to a scalar.
        weights: Name -> finite number. A term of weight 0 is not computed.

    Raises:
        UserError: The names differ, a weight is not finite, or identity and MoCo are combined.
    """

    def __init__(self, terms: Mapping[str, nn.Module], weights: Mapping[str, float]) -> None:
        super().__init__()
        if set(terms) != set(weights):
            raise UserError(f"loss: got terms {sorted(terms)} and weights {sorted(weights)}, expected the same names")
        check_one_identity(terms, weights)
        self.terms = nn.ModuleDict(dict(terms))
        self.weights = {name: real_number(f"loss.{name}.weight", weight) for name, weight in weights.items()}
        # Refinement methods compare several reconstructions with one target, whose features are computed once.
        self._last_target: tuple[weakref.ref[Tensor], int, dict[Any, Any]] | None = None

    def forward(self, inputs: LossInputs) -> tuple[Tensor, dict[str, Tensor]]:
        """Returns the weighted sum and the raw value of each term.

        Raises:
            UserError: A term does not return a scalar.
        """
        target = inputs.target
        last, self._last_target = self._last_target, None
        if last is not None and last[0]() is target and last[1] == _version(target):
            inputs._cache.update(last[2])
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
        kept = {key: value for key, value in inputs._cache.items() if key[:2] == ("target", "whole")}
        if kept and _version(target) >= 0:
            self._last_target = (weakref.ref(target), _version(target), kept)
        return total, values

    def extra_repr(self) -> str:
        """Returns the weights as text."""
        return ", ".join(f"{name}={weight:g}" for name, weight in self.weights.items())


def _version(tensor: Tensor) -> int:
    """Returns the counter of in-place changes of a tensor; -1 if the tensor has none."""
    return -1 if tensor.is_inference() else tensor._version


def check_region(region: str, allowed: Sequence[str] = REGIONS) -> str:
    """Returns the region, or raises a UserError that lists the allowed ones."""
    return one_of("region", region, allowed)


def check_normalise(normalise: str, region: str) -> str:
    """Returns the kind of normalisation, or raises a UserError if it is unknown or does not fit the region."""
    one_of("normalise", normalise, NORMALISE)
    if normalise == "mask_area" and region != "interest":
        raise UserError(
            f"normalise=mask_area with region={region}: only interest has a mask; give loss_region=interest"
        )
    return normalise


def check_one_identity(terms: Mapping[str, object], weights: Mapping[str, float]) -> None:
    """Refuses to combine the identity of faces with the likeness of objects (MoCo), as pSp's trainer does.

    MoCo's features replace a recognition network in domains that have none. Terms of weight 0 are ignored.

    Raises:
        UserError: Terms have different values of ``compares``.
    """
    compares = {n: term.compares for n, term in terms.items() if weights[n] and isinstance(term, IdentityTerm)}
    if len(set(compares.values())) > 1:
        listed = ", ".join(f"loss.{name} ({what})" for name, what in compares.items())
        raise UserError(
            f"loss: got {listed}; expected identity or MoCo, not both: give loss.{min(compares)}.weight=0, "
            "or leave one of them out"
        )
