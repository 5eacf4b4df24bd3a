"""Whether the codes of one method are those of another's generator."""

from __future__ import annotations

import torch

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.methods.common.base import InversionMethod


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
