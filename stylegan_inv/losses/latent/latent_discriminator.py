"""e4e's latent discriminator, which tells codes of the mapping network from others (Tov et al. 2021, section 5.2).

The losses are those of `adversarial`. On codes, `generator_loss` of the encoder is a mean over the active layers and
the batch; `discriminator_loss` and `r1_penalty` are computed on codes (B, D) returned by a `LatentPool`.
Source: e4e, ``models/discriminator.py``, ``criteria/`` and ``training/coach.py``.
"""

from __future__ import annotations

from torch import Tensor, nn


class LatentDiscriminator(nn.Module):
    """Fully connected network from codes (..., D) to logits (..., 1); larger means "from the mapping network".

    The state dict has the official names ``mlp.{0,2,4,6}.{weight,bias}``.

    Args:
        w_dim: Size D of the codes.
        layers: Number of linear layers, including the last one.
    """

    domain: str | None = None

    def __init__(self, w_dim: int = 512, layers: int = 4) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(layers - 1):
            hidden += [nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*hidden, nn.Linear(w_dim, 1))

    def forward(self, w: Tensor) -> Tensor:
        """Returns the logits."""
        logits: Tensor = self.mlp(w)
        return logits
