"""SeFa: directions computed from the weights alone.

"Closed-Form Factorization of Latent Semantics in GANs", Shen, Zhou, CVPR 2021, arXiv 2007.06600. Official code:
https://github.com/genforce/sefa (0d16060).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.latents.directions import Direction
from stylegan_inv.utils.checks import whole_number

#: Name of the directions, before their number.
SEFA = "sefa"


def style_weights(generator: Generator, layers: Sequence[int] | None = None) -> list[Tensor]:
    """Returns the weights (C, D) of the affine layers that map w to the styles of the convolutions.

    Args:
        generator: The generator.
        layers: Indices of the convolutions; None for all.

    Raises:
        UserError: A layer does not exist.
    """
    weights = [layer.affine.weight.detach() for layer in generator.synthesis.layers()]
    wrong = [k for k in layers or () if not 0 <= k < len(weights)]
    if wrong:
        raise UserError(f"sefa: got layer {wrong[0]}, the generator has convolutions 0 to {len(weights) - 1}")
    return weights if layers is None else [weights[k] for k in layers]


def factorize(weights: Sequence[Tensor], normalize: bool = True) -> tuple[Tensor, Tensor]:
    """Returns eigenvalues (D,) and unit eigenvectors (D, D) of ``sum A^T A`` (equation 6), largest first.

    Eigenvectors are rows. Their sign, which is arbitrary, is chosen such that the largest entry is positive.

    Args:
        weights: Matrices A (C, D).
        normalize: Whether to scale each row of A to unit length first, as the official code does.
    """
    stacked = torch.cat([weight.double() for weight in weights])
    if normalize:
        stacked = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(stacked.T @ stacked)
    values, rows = values.flip(0), vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return values.to(weights[0]), (rows * largest.sign()).to(weights[0])


def sefa_directions(generator: Generator, layers: Sequence[int] | None = None, count: int = 5) -> list[Direction]:
    """Returns the first directions of some layers.

    Args:
        generator: The generator.
        layers: Indices of the convolutions whose weights are factorised; the directions change the same layers. None
            for all.
        count: Number of directions.

    Raises:
        UserError: A layer does not exist, or there are fewer directions.
    """
    values, rows = factorize(style_weights(generator, layers))
    whole_number("sefa: count", count, 1, len(rows))
    return [
        Direction(
            rows[k].cpu(),
            f"{SEFA}_{k}",
            layers=None if layers is None else tuple(layers),
            generator_hash=generator.source_hash,
            made={"by": "SeFa", "eigenvalue": f"{float(values[k]):.6g}"},
        )
        for k in range(count)
    ]
