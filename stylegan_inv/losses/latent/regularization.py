"""Regularisers of latent codes."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs
from stylegan_inv.utils.checks import real_number


class WNorm(nn.Module):
    """Batch mean of the Frobenius norm of ``w - w_avg`` over (L, D). The norm is not squared (pSp, equation 5).

    Args:
        from_average: If False, the norm of ``w`` itself is used.
    """

    domain: str | None = None

    def __init__(self, from_average: bool = True) -> None:
        super().__init__()
        self.from_average = from_average

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the mean norm.

        Raises:
            UserError: The inputs have no ``w``, or no ``w_avg`` although it is used.
        """
        if inputs.w is None or (self.from_average and inputs.w_avg is None):
            raise UserError("WNorm got no codes (w, w_avg); give both, or loss.w_norm.weight=0")
        w = inputs.w
        if self.from_average and inputs.w_avg is not None:
            w = w - inputs.w_avg
        norms: Tensor = torch.linalg.vector_norm(w.flatten(1), dim=1)
        return norms.mean()


class DeltaNorm(nn.Module):
    """Sum over the layers of the batch mean of ``|w_i - w_0|_p`` (e4e, equation 7; its code sums over the layers).

    Layers that e4e's progressive training has not reached equal the first one exactly. They contribute neither a value
    nor a gradient, so the sum does not depend on the stage.

    Args:
        p: Order of the norm, at least 1 (e4e: 2).
    """

    domain: str | None = None

    def __init__(self, p: float = 2) -> None:
        super().__init__()
        self.p = real_number("DeltaNorm: p", p, least=1)

    def forward(self, inputs: LossInputs) -> Tensor:
        """Returns the sum of the mean norms.

        Raises:
            UserError: The inputs have no ``w``.
        """
        if inputs.w is None:
            raise UserError("DeltaNorm got no codes (w); give them, or loss.delta.weight=0")
        deltas = inputs.w[:, 1:] - inputs.w[:, :1]
        norms: Tensor = torch.linalg.vector_norm(deltas, self.p, dim=2)
        return norms.mean(dim=0).sum()
