"""e4e's latent adversary: is a code one of the mapping network's? (Tov et al. 2021, section 5.2).

The losses are those of `adversarial`: on codes, `generator_loss` of the encoder is a mean over active layers and batch,
`discriminator_loss` and `r1_penalty` take codes (B, D) out of a `LatentPool`.
Source: e4e, ``models/discriminator.py``, ``criteria/`` and ``training/coach.py``.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError


class LatentDiscriminator(nn.Module):
    """Fully connected: (..., D) -> logits (..., 1), larger for codes of the mapping network.

    Its state dict has the official names ``mlp.{0,2,4,6}.{weight,bias}``.

    Args:
        w_dim: D.
        layers: linear layers, the last one included.
    """

    def __init__(self, w_dim: int = 512, layers: int = 4) -> None:
        super().__init__()
        hidden: list[nn.Module] = []
        for _ in range(layers - 1):
            hidden += [nn.Linear(w_dim, w_dim), nn.LeakyReLU(0.2)]
        self.mlp = nn.Sequential(*hidden, nn.Linear(w_dim, 1))

    def forward(self, w: Tensor) -> Tensor:
        """The logits."""
        return self.mlp(w)


class LatentPool(nn.Module):
    """A history of codes, so that the discriminator does not only see the encoder's latest ones.

    Shrivastava et al. 2017, section 2.3, in e4e's form: until the pool is full each code is kept and returned; then
    each one either passes, or changes places with a random one of the pool.

    Codes and random state are part of ``state_dict`` and a continued run sees the same history. They are no buffers:
    DDP would replace every rank's pool with the first one's in each step.

    Args:
        size: codes in the pool (e4e: 50); 0 keeps none and returns what it gets. (The official code without a pool
            shows the first layer only; here it is a random one all the same.)
        seed: of the random choices; give each rank its own.
    """

    #: `callbacks.exact` saves it for each rank.
    differs_by_rank = True

    def __init__(self, size: int = 50, seed: int = 0) -> None:
        super().__init__()
        if size < 0:
            raise UserError(f"LatentPool: size={size}, expected at least 0")
        self.size = size
        self._codes: list[Tensor] = []
        self._random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def swap(self, w: Tensor) -> Tensor:
        """Codes to show to the discriminator, (B, D), in exchange for new ones.

        Args:
            w: (B, D), or (B, L, D) of the active layers: of each image one layer is drawn.
        """
        if w.ndim == 3:
            layers = torch.randint(w.shape[1], (len(w),), generator=self._random)
            w = w[torch.arange(len(w)), layers]
        return torch.stack([self._swap_one(code) for code in w.detach()])

    def _swap_one(self, code: Tensor) -> Tensor:
        if len(self._codes) < self.size:
            self._codes.append(code.clone())
            return code
        if self.size == 0 or torch.rand((), generator=self._random) < 0.5:
            return code
        place = int(torch.randint(self.size, (), generator=self._random))
        old, self._codes[place] = self._codes[place].to(code), code.clone()
        return old

    def get_extra_state(self) -> dict[str, Any]:  # noqa: D102
        codes = torch.stack(self._codes).cpu() if self._codes else torch.empty(0)
        return {"codes": codes, "random": self._random.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        if len(state["codes"]) > self.size:
            raise UserError(f"LatentPool: the checkpoint has {len(state['codes'])} codes, expected at most {self.size}")
        self._codes = list(state["codes"].clone())
        self._random.set_state(state["random"].cpu())
