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
