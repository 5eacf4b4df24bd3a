"""Losses on the codes themselves."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.losses.compose import LossInputs


class WNorm(nn.Module):
    """Batch mean of the Frobenius norm of ``w - w_avg`` over (L, D): the norm, not its square (pSp, equation 5).

    Args:
        from_average: False measures from zero.
    """

    def __init__(self, from_average: bool = True) -> None:
        super().__init__()
        self.from_average = from_average

    def forward(self, inputs: LossInputs) -> Tensor:
        """The mean norm."""
        if inputs.w is None or (self.from_average and inputs.w_avg is None):
            raise UserError("WNorm got no codes (w, w_avg); give both, or set weight=0")
        w = inputs.w
        if self.from_average and inputs.w_avg is not None:
            w = w - inputs.w_avg
        return torch.linalg.vector_norm(w.flatten(1), dim=1).mean()


class DeltaNorm(nn.Module):
    """Sum over the layers of the batch mean of ``|w_i - w_0|_p`` (e4e, equation 7; its code: a sum, not a mean).

    Layers that e4e's progressive training has not reached equal the first one exactly and add nothing, neither value
    nor gradient; so the sum needs no stage.

    Args:
        p: order of the norm, at least 1 (e4e: 2).
    """

    def __init__(self, p: float = 2) -> None:
        super().__init__()
        if p < 1:
            raise UserError(f"DeltaNorm: p={p}, expected at least 1")
        self.p = p

    def forward(self, inputs: LossInputs) -> Tensor:
        """The sum of mean norms."""
        if inputs.w is None:
            raise UserError("DeltaNorm got no codes (w); give them, or set weight=0")
        deltas = inputs.w[:, 1:] - inputs.w[:, :1]
        return torch.linalg.vector_norm(deltas, self.p, dim=2).mean(dim=0).sum()
