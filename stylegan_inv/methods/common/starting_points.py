"""The embedder that a refiner starts from: whether the two fit, and the codes that it finds."""

from __future__ import annotations

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.methods.common.base import Inversion, InversionMethod

#: Number of channels of the images that refiners compare with.
_RGB = 3


def check_embedder(method: InversionMethod, start: InversionMethod) -> None:
    """Checks that a refiner can start from an embedder.

    Raises:
        UserError: The embedder has another generator, or reads something else than photographs.
    """
    if start.in_channels != _RGB:
        raise UserError(
            f"method.start: {type(start).__name__} reads inputs of {start.in_channels} channels (a sketch or a label "
            f"map), which {type(method).__name__} cannot compare with an image; expected an embedder of RGB images"
        )
    check_same_generator(method, start)


def codes_alone(
    method: InversionMethod, start: InversionMethod, found: Inversion
) -> tuple[Tensor, list[Tensor] | None]:
    """Returns the codes (B, L, D) of an embedder, and its noise maps if it finds any.

    Raises:
        UserError: The embedder changes weights or feature maps for each image as well.
    """
    changed = {"weights": found.weights, "feature maps": found.features, "networks": found.kept}
    for what, value in changed.items():
        if value is not None:
            raise UserError(
                f"method.start: {type(start).__name__} inverts by {what} of its own for each image, but "
                f"{type(method).__name__} refines codes; give a method that finds codes alone, such as "
                "psp, e4e, restyle or projector"
            )
    return found.w.detach(), None if found.noise is None else [m.detach() for m in found.noise]


def check_same_generator(method: InversionMethod, start: InversionMethod) -> None:
    """Raises a UserError unless the codes of both methods are those of one generator, which several files may hold."""
    own, other = method.generator, start.generator
    if (own.num_ws, own.w_dim) == (other.num_ws, other.w_dim) and (
        own.source_hash == other.source_hash or _same_weights(own, other)
    ):
        return
    raise UserError(
        f"method.start: its generator is {str(other.source_hash)[:12]} ({other.resolution} px), expected "
        f"{str(own.source_hash)[:12]} ({own.resolution} px); give generator=… the one it was trained with"
    )


def _same_weights(first: Generator, second: Generator) -> bool:
    """Returns whether the weights of both synthesis networks are equal; noise maps may differ."""
    a, b = (dict(generator.synthesis.named_parameters()) for generator in (first, second))
    return a.keys() == b.keys() and all(
        value.shape == b[name].shape and torch.equal(value, b[name].to(value)) for name, value in a.items()
    )
