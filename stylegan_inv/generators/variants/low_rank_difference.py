"""The difference between a tuned generator and the original, in a fraction of its size."""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.generator import Generator

Difference = dict[str, Tensor]
_LEFT, _RIGHT = ".left", ".right"


class LowRankDifference(Mapping[str, Tensor]):
    """Differences of parameters, stored as low-rank factors and expanded on access.

    It is what ``synthesis(weights=…)`` takes: name of a parameter -> difference ``(B, *shape)``. Only the entry that is
    read is expanded.

    Args:
        factors: What :func:`compress` returns, with a first axis for the images: ``<name>.left`` ``(B, O, rank)`` and
            ``<name>.right`` ``(B, rank, I)``, or ``<name>`` ``(B, *shape)``.
        network: The network that the differences belong to. Its shapes and dtype are read; it is not kept.

    Raises:
        UserError: The differences belong to another network.
    """

    def __init__(self, factors: Mapping[str, Tensor], network: nn.Module) -> None:
        self.factors = dict(factors)
        self._like = {name: torch.empty_like(p, device="meta") for name, p in network.named_parameters()}
        self._names = sorted({name.removesuffix(_LEFT).removesuffix(_RIGHT) for name in factors})
        for name in self._names:
            if name not in self._like:
                raise UserError(
                    f"a difference of another generator: this network has no parameter {name}; "
                    "expected the generator that was tuned"
                )
            parameter = self._like[name]
            left, right = self._factors_of(name)
            if right is None:
                got = left.shape[1:].numel()
            elif left.ndim == right.ndim == 3 and left.shape[2] == right.shape[1]:
                got = left.shape[1] * right.shape[2]
            else:
                got = 0  # factors of different ranks
            if got != parameter.numel():
                raise UserError(
                    f"a difference of another generator: {name} has {got} numbers, expected {tuple(parameter.shape)}"
                )

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._names:
            raise KeyError(name)
        like = self._like[name]
        left, right = self._factors_of(name)
        if right is None:
            change = left.to(like.dtype)
        else:
            # Image by image: a batched product may round in another way than that of a single image.
            rows = [a.to(like.dtype) @ b.to(like.dtype) for a, b in zip(left, right, strict=True)]
            change = torch.stack(rows)
        return change.reshape(len(left), *like.shape)

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def _factors_of(self, name: str) -> tuple[Tensor, Tensor | None]:
        if name in self.factors:
            return self.factors[name], None
        try:
            return self.factors[name + _LEFT], self.factors[name + _RIGHT]
        except KeyError as error:
            raise UserError(f"a damaged difference: it has no {error.args[0]}; invert the image again") from None


@torch.no_grad()
def compress(base: nn.Module, changed: nn.Module, rank: int | None) -> Difference:
    """Returns the change of every parameter: of matrices and convolutions the ``rank`` largest singular values.

    Args:
        base: A synthesis network.
        changed: The same network, tuned.
        rank: Of each factorisation. The change is kept as it is where its factors would not be smaller; None keeps all.

    Returns:
        In float16, ``<name>.left`` ``(O, rank)`` and ``<name>.right`` ``(rank, I * h * w)`` for a weight
        ``(O, I, h, w)``, or ``<name>`` as it is.
    """
    difference: Difference = {}
    before = dict(base.named_parameters())
    for name, after in changed.named_parameters():
        change = (after - before[name]).detach()
        matrix = change.flatten(1) if change.ndim > 1 else change.reshape(1, -1)
        if rank is None or rank * sum(matrix.shape) >= matrix.numel():
            difference[name] = change.half()
            continue
        u, s, v = torch.linalg.svd(matrix, full_matrices=False)
        root = s[:rank].sqrt()  # shared between both, so that neither leaves the range of float16
        difference[name + _LEFT], difference[name + _RIGHT] = (
            (u[:, :rank] * root).half(),
            (root[:, None] * v[:rank]).half(),
        )
    return difference


@torch.no_grad()
def tuned(generator: Generator, difference: Mapping[str, Tensor]) -> Generator:
    """Returns a frozen copy of a generator with a difference added; ``synthesis(weights=…)`` needs no copy.

    Args:
        generator: The original.
        difference: What :func:`compress` returns, of one image.

    Raises:
        UserError: The difference belongs to another network.
    """
    other = copy.deepcopy(generator)
    changes = LowRankDifference({name: t[None] for name, t in difference.items()}, other.synthesis)
    for name, change in changes.items():
        weight = other.synthesis.get_parameter(name)
        weight.add_(change[0].to(weight))
    return other.freeze()
