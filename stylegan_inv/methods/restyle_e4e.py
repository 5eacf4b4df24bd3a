"""ReStyle over e4e: residual refinement with codes that stay editable.

Yuval Alaluf, Or Patashnik, Daniel Cohen-Or, ICCV 2021, arXiv 2104.02699, on top of e4e (arXiv 2102.02766).
Official code: yuval-alaluf/restyle-encoder, commit 5e80276, ``training/coach_restyle_e4e.py``.

Differences: the official discriminator is trained on the residuals of the first step, which lie around 0, but judges
whole codes in the encoder's loss. Here it learns from what it judges; ``learn_from="residuals"`` is the official way.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.near_w import NearW
from stylegan_inv.methods.restyle import ReStyle


class ReStyleE4E(NearW, ReStyle):
    """ReStyle with e4e's progressive offsets and latent discriminator, which plays once a batch.

    Args:
        learn_from: What the discriminator takes for the encoder's codes: the ``codes`` of the first step, or its
            ``residuals``.
        **kwargs: See `NearW` and `ReStyle`.
    """

    def __init__(self, *, learn_from: str = "codes", **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if learn_from not in ("codes", "residuals"):
            raise UserError(f"method.learn_from={learn_from!r}: expected 'codes' or 'residuals'")
        self.learn_from = learn_from

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """The discriminator's step on the codes of the first refinement; the encoder's losses of every one."""
        for number, step in enumerate(self.refine(self.source(batch))):
            if number == 0 and self.adversary is not None:
                start = self.generator.w_avg if self.learn_from == "residuals" else 0
                self.adversary.learn(self, step.w.detach() - start)
            yield self.add_adversarial(self.losses(step, batch), step.w)
