"""IntereStyle with two codes, one for the interest region and one for the rest, blended by a predicted mask.

Not a paper. The description of IntereStyle (arXiv 2209.10811) that this project started from differs from the paper,
which has one code and trains it with a filter (`interestyle`). Both can be trained and compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.unet import UNet
from stylegan_inv.generators import Generator
from stylegan_inv.generators.variants.blended_synthesis import blended_synthesis
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.checks import one_of, real_number


class IntereStyleDual(TrainedMethod):
    """An encoder with two heads, a U-Net that predicts the mask, and one reconstruction from both codes.

    Besides the reconstruction losses there are:

    * Style consistency: a hinge loss on the root mean square distance of the two codes, which pushes them at least
      ``margin`` apart.
    * Mask regularisation: the cross entropy with the mask of the data; without one, the entropy of the predicted mask,
      which drives it to 0 and 1.
    * Style mixing: with some probability the outer codes of a batch are mixed with those of the next image, from a
      random layer on, and only the interest region is compared. So the inner code cannot rely on the outer one.

    Args:
        encoder: Called with ``num_ws`` (twice the generator's), ``w_dim`` and ``in_channels``.
        mask_width: Number of channels of the U-Net's finest level.
        consistency_weight: Weight of the style consistency.
        margin: Margin of the style consistency.
        mask_weight: Weight of the mask regularisation.
        mixing_probability: Probability that a batch is mixed.
        stage: ``frozen`` trains encoder and U-Net; ``unfrozen`` also trains a copy of the generator's synthesis
            network, which is part of checkpoints.
        training_noise: Noise of the synthesis network in training: ``random`` or ``const``. Validation and inversion
            use constant noise.
        **kwargs: Arguments of `TrainedMethod`.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        mask_width: int = 16,
        consistency_weight: float = 0.1,
        margin: float = 0.3,
        mask_weight: float = 0.1,
        mixing_probability: float = 0.3,
        stage: str = "frozen",
        training_noise: str = "random",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        one_of("method.stage", stage, ("frozen", "unfrozen"))
        self.training_noise = one_of("method.training_noise", training_noise, ("random", "const"))
        self.mixing_probability = real_number("method.mixing_probability", mixing_probability, least=0, most=1)
        self.consistency_weight, self.margin, self.mask_weight = consistency_weight, margin, mask_weight
        self.encoder = encoder(num_ws=2 * self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=3)
        self.mask_network = UNet(width=mask_width)
        self.tuned: Generator | None = None
        if stage == "unfrozen":
            self.tuned = copy.deepcopy(self.generator).requires_grad_(True)
            self.tuned.mapping.requires_grad_(False)

    def codes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the codes (B, L, D) of the interest region and of the rest."""
        inside, outside = self.encoder(images).chunk(2, dim=1)
        return inside + self.generator.w_avg, outside + self.generator.w_avg

    def mask(self, images: Tensor) -> Tensor:
        """Returns the logits (B, 1, H, W) of the predicted interest mask."""
        logits: Tensor = self.mask_network(images)
        return logits

    def blend(self, inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
        """Returns the image of two codes (B, L, D), whose feature maps are blended by a mask (B, 1, H, W)."""
        synthesis = (self.tuned or self.generator).synthesis
        return blended_synthesis(synthesis, inside, outside, mask, self.training_noise if self.training else "const")

    def invert(self, images: Tensor) -> Inversion:
        """Returns the reconstruction from both codes; ``w`` is the code of the interest region."""
        inside, outside = self.codes(images)
        return Inversion(inside, self.blend(inside, outside, self.mask(images).sigmoid()))

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the reconstruction losses, the style consistency and the mask regularisation."""
        images = self.source(batch)
        (inside, outside), logits = self.codes(images), self.mask(images)
        mask = logits.sigmoid()
        mixed, target = outside, batch
        if self.mixing_probability and torch.rand(()) < self.mixing_probability:
            cut = int(torch.randint(outside.shape[1], ()))
            mixed = torch.cat([outside[:, :cut], outside.roll(1, 0)[:, cut:]], dim=1)
        image = self.blend(inside, mixed, mask)
        if mixed is not outside:
            keep = mask.detach()
            image = image * keep
            target = {**batch, "image": batch["image"] * keep}
        terms = self.losses(Inversion(inside, image), target)
        consistency = self.style_consistency(inside, outside)
        regularisation = self.mask_regularisation(logits, batch.get("mask"))
        total = terms["total"] + self.consistency_weight * consistency + self.mask_weight * regularisation
        return {**terms, "style_consistency": consistency, "mask": regularisation, "total": total}

    def style_consistency(self, inside: Tensor, outside: Tensor) -> Tensor:
        """Returns the mean over the batch of ``max(0, margin - rms(inside - outside))``."""
        distance = (inside - outside).square().flatten(1).mean(1).add(1e-12).sqrt()
        return F.relu(self.margin - distance).mean()

    @staticmethod
    def mask_regularisation(logits: Tensor, mask: Tensor | None) -> Tensor:
        """Returns the cross entropy of the predicted mask with ``mask``; without one, the entropy of the prediction."""
        return F.binary_cross_entropy_with_logits(logits, logits.sigmoid() if mask is None else mask)

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        groups = [
            {"params": list(self.encoder.parameters()), "name": "encoder"},
            {"params": list(self.mask_network.parameters()), "name": "mask"},
        ]
        if self.tuned is not None:
            groups.append({"params": [p for p in self.tuned.parameters() if p.requires_grad], "name": "generator"})
        return groups
