"""What a loss term gets, and the weighted sum of terms."""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError

REGIONS = ("whole", "interest")


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
    """

    image: Tensor
    target: Tensor
    w: Tensor | None = None
    w_avg: Tensor | None = None
    mask: Tensor | None = None
    source: Tensor | None = None
    _memo: dict[Any, Any] = field(default_factory=dict, init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        if self.image.shape != self.target.shape:
            raise UserError(
                f"got a reconstruction of shape {tuple(self.image.shape)} and a target of {tuple(self.target.shape)}, "
                f"expected equal shapes; pool the generator's output to the target's size first"
            )

    def picture(self, which: str, region: str = "whole") -> Tensor:
        """``image`` or ``target``; with region ``interest`` multiplied by the mask (the rest becomes mid-grey)."""
        picture = getattr(self, which)
        if region == "whole":
            return picture
        if self.mask is None:
            raise UserError("a loss term has region=interest, but the batch has no mask; use a dataset with masks")
        return picture * self.mask

    def once(self, which: str, region: str, network: nn.Module, compute: Callable[[Tensor], Any]) -> Any:
        """``compute`` on a picture, at most once for all terms that share ``network``; the target without gradient."""
        key = (which, region, id(network), compute.__name__)
        if key not in self._memo:
            with torch.set_grad_enabled(torch.is_grad_enabled() and which != "target"):
                self._memo[key] = compute(self.picture(which, region))
        return self._memo[key]


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


def check_region(region: str) -> str:
    """Returns ``region`` or says what it can be."""
    if region not in REGIONS:
        raise UserError(f"region={region!r}: expected one of {', '.join(REGIONS)}")
    return region


def as_network(network: Any) -> nn.Module:
    """A network as given, or a face network by its name or file."""
    if isinstance(network, nn.Module):
        return network
    # Inside the function: losses stay importable alone, and only this convenience needs the encoders.
    from stylegan_inv.encoders.face import load_face_network

    return load_face_network(network)
