"""A generator that learns a style: it is trained on until it gives the stylised picture of each code.

Not a paper. It stands in, offline, for generators that were fine-tuned on drawings as GANs (Pinkney and Adler, arXiv
2010.05334), around which pSp and ReStyle toonify. The target is a fixed filter of the original generator's own picture
of the same code: nothing has to be paired, and a code keeps its meaning exactly.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.losses.paired.image_regression import PairedRegression
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.utils.frozen_module import Frozen, check_frozen, frozen_hashes


class StylizedStyleGAN2(StyleGAN2Training):
    """Regression to pictures of another generator; the discriminator stays idle, and so do the pictures of the data.

    Args:
        generator: Trained, usually :func:`.finetuned`, whose mapping network rests.
        discriminator: Of :class:`.StyleGAN2Training`, unused.
        original: The generator it came from.
        style: ``{"image": pictures} -> {"image": stylised pictures}``, for example a
            :class:`.Task`.
        regression: Compares two batches of pictures.
        **kwargs: Of :class:`.StyleGAN2Training`; the rate ``lr_g`` falls along a cosine
            to a tenth at ``total_images``, which has to be given.
    """

    def __init__(
        self,
        generator: Generator,
        discriminator: nn.Module,
        *,
        original: Generator,
        style: Callable[[dict[str, Any]], dict[str, Any]],
        regression: nn.Module | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(generator, discriminator, **kwargs)
        if self.total_images is None:
            raise UserError("method.total_images=null: expected a number of images, which the learning rate falls over")
        if any(parameter.requires_grad for parameter in generator.mapping.parameters()):
            raise UserError("the mapping network would learn and codes change their meaning; give generator=finetuned")
        self._original, self._style = Frozen(original), style
        self.regression = regression or PairedRegression()

    def update(self, batch: Mapping[str, Tensor], seen: int, number: int) -> None:
        """One step of regression on fresh codes, as many as the batch has pictures."""
        optimizer: Any = self.optimizers()[0]  # type: ignore[index]
        assert self.total_images is not None
        share = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, seen / self.total_images)))
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = self.lr_g * share, self.betas
        with torch.no_grad():
            w = self._free_codes(len(batch["image"]))
            target = self._style({"image": self._original.network.synthesis(w).clamp(-1, 1)})["image"]
        loss = self.regression(self.generator.synthesis(w), target)
        self._step(optimizer, self.generator_parameters(), loss, counts=True)
        self.log("train/loss/regression", loss.detach(), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["frozen"] = frozen_hashes(self)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:  # noqa: D102
        check_frozen(self, checkpoint.get("frozen", {}))
