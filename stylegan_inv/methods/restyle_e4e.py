"""ReStyle over e4e: residual refinement with editable codes.

Yuval Alaluf, Or Patashnik, Daniel Cohen-Or, ICCV 2021, arXiv 2104.02699, combined with e4e (arXiv 2102.02766).
Official code: yuval-alaluf/restyle-encoder, commit 5e80276, ``training/coach_restyle_e4e.py``.

Differences: The official code trains the discriminator with the residuals of the first step, which are centred on 0,
but applies it to whole codes in the encoder's loss. Here it is trained with whole codes; ``learn_from=residuals``
follows the official code.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.methods.common.editability_training import EditabilityTraining
from stylegan_inv.methods.restyle import ReStyle
from stylegan_inv.utils.checks import one_of


class ReStyleE4E(EditabilityTraining, ReStyle):
    """ReStyle with e4e's progressive offsets and latent discriminator, which is updated once per batch.

    Args:
        learn_from: What the discriminator is trained with: the ``codes`` of the first step, or its ``residuals``.
        **kwargs: Arguments of `EditabilityTraining` and `ReStyle`.
    """

    def __init__(self, *, learn_from: str = "codes", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.learn_from = one_of("method.learn_from", learn_from, ("codes", "residuals"))

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Updates the discriminator with the codes of the first step, and yields the encoder's losses of each step."""
        for number, step in enumerate(self.refine(self.source(batch))):
            if number == 0 and self.adversary is not None:
                offset = self.generator.w_avg if self.learn_from == "residuals" else 0
                self.train_discriminator(step.w.detach() - offset)
            yield self.with_adversarial_loss(self.losses(step, batch), step.w)
