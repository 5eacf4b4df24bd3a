"""SeFa: directions from the weights alone.

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


def style_weights(generator: Generator, layers: Sequence[int] | None = None) -> list[Tensor]:
    """Weights (C, D) of the affine layers that turn w into the styles of the convolutions; None: of all layers."""
    found = [layer.affine.weight.detach() for layer in generator.synthesis.layers()]
    wrong = [k for k in layers or () if not 0 <= k < len(found)]
    if wrong:
        raise UserError(f"sefa: got layer {wrong[0]}, the generator has convolutions 0 to {len(found) - 1}")
    return found if layers is None else [found[k] for k in layers]


def factorize(weights: Sequence[Tensor], normalize: bool = True) -> tuple[Tensor, Tensor]:
    """Eigenvalues (D,) and unit eigenvectors (D, D; one a row) of ``sum A^T A`` (equation 6), largest first.

    Args:
        weights: (C, D) each.
        normalize: scale the weight of each style to unit length first, as the official code does.

    The sign, which is arbitrary, is chosen so that the largest entry is positive.
    """
    stacked = torch.cat([weight.double() for weight in weights])
    if normalize:
        stacked = stacked / stacked.norm(dim=1, keepdim=True).clamp_min(1e-12)
    values, vectors = torch.linalg.eigh(stacked.T @ stacked)
    values, rows = values.flip(0), vectors.T.flip(0)
    largest = rows.gather(1, rows.abs().argmax(1, keepdim=True))
    return values.to(weights[0]), (rows * largest.sign()).to(weights[0])


def sefa_directions(generator: Generator, layers: Sequence[int] | None = None, count: int = 5) -> list[Direction]:
    """The ``count`` first directions of some layers, which are also the layers that they move."""
    values, rows = factorize(style_weights(generator, layers))
    if not 1 <= count <= len(rows):
        raise UserError(f"sefa: got count={count}, expected 1 to {len(rows)}")
    return [
        Direction(
            rows[k].cpu(),
            f"sefa_{k}",
            layers=None if layers is None else tuple(layers),
            generator_hash=generator.source_hash,
            made={"by": "SeFa", "eigenvalue": f"{float(values[k]):.6g}"},
        )
        for k in range(count)
    ]
