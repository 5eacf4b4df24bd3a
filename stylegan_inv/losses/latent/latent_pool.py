"""The pool of earlier codes on which e4e's latent discriminator is trained as well (Tov et al. 2021, section 5.2)."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number


class LatentPool(nn.Module):
    """A history of codes, so that the discriminator is trained on earlier codes of the encoder as well.

    This is e4e's form of Shrivastava et al. 2017, section 2.3. Until the pool is full, each code is stored and
    returned. Afterwards, with probability 1/2, a code is returned unchanged; otherwise it replaces a random code of the
    pool, which is returned instead.

    The codes and the random state are part of ``state_dict``, so a resumed run continues with the same history. They
    are not buffers, because DDP would replace the pool of every rank by that of the first one in each step.

    Args:
        size: Number of codes in the pool (e4e: 50). With 0 nothing is stored and the input is returned. (The official
            code without a pool uses the codes of the first layer; here a random layer is used in either case.)
        seed: Seed of the random choices; each rank needs its own.

    Raises:
        UserError: The size is negative.
    """

    #: Whether ranks have different states, which `callbacks.reproducible_steps` then saves for each rank.
    differs_by_rank = True

    def __init__(self, size: int = 50, seed: int = 0) -> None:
        super().__init__()
        self.size = whole_number("LatentPool: size", size, least=0)
        self._codes: list[Tensor] = []
        self._random = torch.Generator().manual_seed(seed)

    @torch.no_grad()
    def swap(self, w: Tensor) -> Tensor:
        """Adds codes to the pool and returns codes (B, D) to train the discriminator on.

        Args:
            w: Codes (B, D), or (B, L, D) of the active layers, of which one random layer per image is used.
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
        position = int(torch.randint(self.size, (), generator=self._random))
        old, self._codes[position] = self._codes[position].to(code), code.clone()
        return old

    def get_extra_state(self) -> dict[str, Any]:  # noqa: D102
        codes = torch.stack(self._codes).cpu() if self._codes else torch.empty(0)
        return {"codes": codes, "random": self._random.get_state()}

    def set_extra_state(self, state: dict[str, Any]) -> None:  # noqa: D102
        codes, random = (state.get(name) if isinstance(state, dict) else None for name in ("codes", "random"))
        if not isinstance(codes, Tensor) or not isinstance(random, Tensor) or codes.ndim != (2 if len(codes) else 1):
            raise UserError("LatentPool: the checkpoint has no codes (N, D) and random state, expected those of a pool")
        if len(codes) > self.size:
            raise UserError(f"LatentPool: the checkpoint has {len(codes)} codes, expected at most {self.size}")
        if not codes.is_floating_point() or not bool(codes.isfinite().all()):
            raise UserError("LatentPool: the codes of the checkpoint are no finite floating point numbers")
        self._codes = list(codes.clone())
        try:
            self._random.set_state(random.cpu())
        except (RuntimeError, TypeError) as error:
            raise UserError(f"LatentPool: the checkpoint has no random state of PyTorch ({error})") from error
