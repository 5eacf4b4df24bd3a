"""e4e: Designing an Encoder for StyleGAN Image Manipulation.

Omer Tov, Yuval Alaluf, Yotam Nitzan, Or Patashnik, Daniel Cohen-Or, SIGGRAPH 2021, arXiv 2102.02766.
Official code: omertov/encoder4editing, commit 99ea505.

Differences: The discriminator is trained with the codes of the encoder's own step. The official code encodes the batch
a second time, which gives the same codes, but updates the batch statistics twice (``second_pass``).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.methods.common.editability_training import EditabilityTraining
from stylegan_inv.methods.psp import PSP


class E4E(EditabilityTraining, PSP):
    """pSp with codes close to W: few and small offsets ``w_i - w_0``, which a latent discriminator cannot detect.

    The delta regularisation (equation 7) is the loss term `losses.regularization.DeltaNorm`.

    Args:
        second_pass: Encode each batch a second time, as the official code does.
        **kwargs: Arguments of `EditabilityTraining` and `PSP`.
    """

    def __init__(self, *, second_pass: bool = False, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.second_pass = second_pass

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Updates the discriminator, then returns the losses of the encoder."""
        source = self.source(batch)
        if self.second_pass:
            with torch.no_grad():
                self.encoder(source)
        w = self.encode(source)
        self.train_discriminator(w)
        return self.with_adversarial_loss(self.losses(self.decode(w), batch), w)
