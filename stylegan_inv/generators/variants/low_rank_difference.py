"""The difference between a tuned generator and the original, in a fraction of its size."""

from __future__ import annotations

import copy
import math
from collections.abc import Iterator, Mapping

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.generator import Generator

Difference = dict[str, Tensor]
LEFT, RIGHT, SCALE = ".left", ".right", ".scale"
#: The right factor that relative differences of several layers of one shape share.
SHARED_RIGHT = "scale.right"


class LowRankDifference(Mapping[str, Tensor]):
    """Differences of parameters, stored as low-rank factors and expanded on access.

    It is what ``synthesis(weights=…)`` takes: name of a parameter -> difference ``(B, *shape)``. Only the entry that is
    read is expanded, and `synthesis` reads one image at a time.

    Factors have a first axis for the images. For a parameter W of ``shape`` they are one of

    * ``<name>`` ``(B, *shape)``: the difference itself;
    * ``<name>.left`` ``(B, m, rank)`` and ``<name>.right`` ``(B, rank, n)``: the difference is their product, read as
      ``shape``; m is the number of output channels for :func:`compress`;
    * ``<name>.scale`` ``(B, *s)``, where s is ``shape`` or has ones in it: the difference is ``W * scale``;
    * ``<name>.scale.left`` and ``<name>.scale.right``: ``W * (left @ right)``. Without ``<name>.scale.right``, the
      right factor is ``scale.right``, which several layers share.

    Args:
        factors: The factors. Factors that all images share may be expanded views.
        network: The network that the differences belong to; it keeps its parameters.

    Attributes:
        images: Number of images B.

    Raises:
        UserError: The differences belong to another network.
    """

    def __init__(self, factors: Mapping[str, Tensor], network: nn.Module) -> None:
        self.factors = dict(factors)
        parameters = dict(network.named_parameters())
        self._names = sorted({_name_of(key) for key in factors if key != SHARED_RIGHT})
        self.images = max((len(value) for value in self.factors.values()), default=1)
        for name in self._names:
            if name not in parameters:
                raise UserError(
                    f"a difference of another generator: this network has no parameter {name}; "
                    "expected the generator that was tuned"
                )
            self._check(name, tuple(parameters[name].shape))
        self._parameters = {name: parameters[name] for name in self._names}

    def __getitem__(self, name: str) -> Tensor:
        if name not in self._parameters:
            raise KeyError(name)
        weight = self._parameters[name]
        left, right, relative = self._factors_of(name)
        if right is None:
            change = left.to(weight.dtype)
        else:
            # Image by image: a batched product may round in another way than that of a single image.
            rows = [a.to(weight.dtype) @ b.to(weight.dtype) for a, b in zip(left, right, strict=True)]
            change = torch.stack(rows)
        if right is not None or not relative:
            change = change.reshape(len(left), *weight.shape)
        return weight * change if relative else change

    def __iter__(self) -> Iterator[str]:
        return iter(self._names)

    def __len__(self) -> int:
        return len(self._names)

    def of_image(self, row: int) -> LowRankDifference:
        """Returns the differences of one image."""
        other = copy.copy(self)
        other.factors = {key: value[row : row + 1] if len(value) > 1 else value for key, value in self.factors.items()}
        other.images = 1
        return other

    def _check(self, name: str, shape: tuple[int, ...]) -> None:
        left, right, relative = self._factors_of(name)
        if right is not None:
            fits = left.ndim == right.ndim == 3 and left.shape[2] == right.shape[1]
            got = left.shape[1] * right.shape[2] if fits else 0  # factors of different ranks
        elif relative:
            fits = left.ndim == len(shape) + 1
            fits = fits and all(a in (1, b) for a, b in zip(left.shape[1:], shape, strict=True))
            got = math.prod(shape) if fits else left.shape[1:].numel()
            if not fits:
                raise UserError(
                    f"a difference of another generator: the factors of {name} are {tuple(left.shape[1:])}, expected "
                    f"{shape}"
                )
        else:
            got = left.shape[1:].numel()
        if got != math.prod(shape):
            raise UserError(f"a difference of another generator: {name} has {got} numbers, expected {shape}")

    def _factors_of(self, name: str) -> tuple[Tensor, Tensor | None, bool]:
        """Returns the left or only factor, the right one, and whether the difference is relative."""
        for base, relative in ((name, False), (name + SCALE, True)):
            if base in self.factors:
                return self.factors[base], None, relative
        relative = name + SCALE + LEFT in self.factors
        base = name + SCALE if relative else name
        right = base + RIGHT
        if relative and right not in self.factors:
            right = SHARED_RIGHT
        try:
            return self.factors[base + LEFT], self.factors[right], relative
        except KeyError as error:
            raise UserError(f"a damaged difference: it has no {error.args[0]}; invert the image again") from None


def _name_of(key: str) -> str:
    """Returns the parameter that a factor belongs to."""
    return key.removesuffix(LEFT).removesuffix(RIGHT).removesuffix(SCALE)


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
        difference[name + LEFT], difference[name + RIGHT] = (
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
