"""Fine-tunes a generator until it synthesises the stylised image of each code.

Not a paper. It stands in, offline, for generators that were fine-tuned on drawings as GANs (Pinkney and Adler, arXiv
2010.05334), around which pSp and ReStyle are trained for toonification. The target is the original generator's image of
the same code after a fixed filter. So no paired data are needed, and the codes keep their meaning.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators import Discriminator, Generator
from stylegan_inv.losses.paired.image_regression import PairedRegression
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.utils.frozen_module import Frozen, check_frozen, frozen_hashes


class StylizedStyleGAN2(StyleGAN2Training):
    """Regression to stylised images of another generator; the discriminator and the images of the data are unused.

    Args:
        generator: Generator to train, usually `finetuned`, whose mapping network is fixed.
        discriminator: Discriminator of `StyleGAN2Training`, unused.
        original: Generator that ``generator`` was copied from.
        style: Maps ``{"image": images}`` to ``{"image": stylised images}``, for example a `data.tasks` task.
        regression: Loss of two batches of images; None for `PairedRegression`.
        **kwargs: Arguments of `StyleGAN2Training`. The learning rate ``lr_g`` decays along a cosine to a tenth at
            ``total_images``, which is required.

    Raises:
        UserError: ``total_images`` is missing, or the mapping network would be trained.
    """

    learns_classes = False

    def __init__(
        self,
        generator: Generator,
        discriminator: Discriminator,
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
        """Takes a step of the regression with random codes, as many as the batch has images."""
        optimizer, _ = self.both_optimizers()
        assert self.total_images is not None
        decay = 0.1 + 0.9 * 0.5 * (1 + math.cos(math.pi * min(1.0, seen / self.total_images)))
        for group in optimizer.param_groups:
            group["lr"], group["betas"] = self.lr_g * decay, self.betas
        with torch.no_grad():
            w = self.random_codes(len(batch["image"]))
            target = self._style({"image": self._original.network.synthesis(w).clamp(-1, 1)})["image"]
        loss = self.regression(self.generator.synthesis(w), target)
        self.take_step(optimizer, self.generator_parameters(), loss, counts=True)
        self.log("train/loss/regression", loss.detach(), prog_bar=True)

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:  # noqa: D102
        checkpoint["frozen"] = frozen_hashes(self)

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Checks that the original generator is that of the checkpoint."""
        check_frozen(self, checkpoint.get("frozen", {}))
