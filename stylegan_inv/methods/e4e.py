"""e4e: Designing an Encoder for StyleGAN Image Manipulation.

Omer Tov, Yuval Alaluf, Yotam Nitzan, Or Patashnik, Daniel Cohen-Or, SIGGRAPH 2021, arXiv 2102.02766.
Official code: omertov/encoder4editing, commit 99ea505.

Differences: the discriminator judges the codes that the encoder's own step uses; the official code passes the batch
through the encoder a second time, which gives the same codes and moves the batch statistics twice (``second_pass``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.methods.common.near_w import NearW
from stylegan_inv.methods.psp import PSP


class E4E(NearW, PSP):
    """pSp with codes that stay near W: offsets ``w_i - w_0`` that are few, small, and look like the mapping network's.

    The delta regularisation (equation 7) is a term of the loss, `losses.regularization.DeltaNorm`.

    Args:
        second_pass: Move the batch statistics a second time in each step, as the official code does.
        **kwargs: See `NearW` and `PSP`.
    """

    def __init__(self, *, second_pass: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.second_pass = second_pass

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """The discriminator's step, then the encoder's losses, from one pass of the encoder."""
        source = self.source(batch)
        if self.second_pass:
            with torch.no_grad():
                self.encoder(source)
        w = self.encode(source)
        if self.adversary is not None:
            self.adversary.learn(self, w)
        return self.add_adversarial(self.losses(self.decode(w), batch), w)
