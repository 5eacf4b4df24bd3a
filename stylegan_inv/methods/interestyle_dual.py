"""One code for the interest region and one for the rest, blended by a predicted mask: a variant of IntereStyle.

Not a paper. Notes from which the project was started describe IntereStyle (arXiv 2209.10811) in this way, where the
paper has one code and trains it with a filter (`interestyle`); both can be run and compared.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.encoders.unet import UNet
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.generators.variants.blended_synthesis import blended_synthesis
from stylegan_inv.methods.common.base import Inversion
from stylegan_inv.methods.common.trained import TrainedMethod


class IntereStyleDual(TrainedMethod):
    """An encoder with two heads, a U-Net that predicts the mask, and one picture from both codes.

    Losses beside the reconstruction's own: **style consistency** pushes the two codes at least ``margin`` apart (root
    mean square distance, a hinge); **mask regularisation** is the cross entropy with the data's mask, or without one
    the mask's entropy, which drives it to 0 and 1. **Style mixing**: with a probability, the outer code of an image is
    taken from its neighbour in the batch from a random layer on, and only the interest region is compared: its code
    must not rely on the other.

    Args:
        encoder: Called with ``num_ws`` (twice the generator's), ``w_dim`` and ``in_channels``.
        mask_width: Channels of the U-Net's finest level.
        consistency_weight: Of the style consistency.
        margin: See there.
        mask_weight: Of the mask regularisation.
        mixing_probability: Of a batch to be mixed.
        stage: ``frozen`` trains encoder and mask; ``unfrozen`` also a copy of the generator, which checkpoints hold.
        training_noise: Noise of the synthesis in training: ``random`` or ``const``.
        **kwargs: See `TrainedMethod`.
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
        if stage not in ("frozen", "unfrozen") or not 0 <= mixing_probability <= 1:
            raise UserError(
                f"method.stage={stage!r}, method.mixing_probability={mixing_probability}: expected 'frozen' or "
                "'unfrozen', and a number from 0 to 1"
            )
        self.encoder = encoder(num_ws=2 * self.generator.num_ws, w_dim=self.generator.w_dim, in_channels=3)
        self.mask_network = UNet(width=mask_width)
        self.tuned: Generator | None = None
        if stage == "unfrozen":
            self.tuned = copy.deepcopy(self.generator).requires_grad_(True)
            self.tuned.mapping.requires_grad_(False)
        self.consistency_weight, self.margin, self.mask_weight = consistency_weight, margin, mask_weight
        self.mixing_probability, self.training_noise = mixing_probability, training_noise

    def codes(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Codes (B, L, D) of the interest region and of the rest."""
        inside, outside = self.encoder(images).chunk(2, dim=1)
        return inside + self.generator.w_avg, outside + self.generator.w_avg

    def mask(self, images: Tensor) -> Tensor:
        """The predicted interest mask (B, 1, H, W) as logits."""
        return self.mask_network(images)

    def blend(self, inside: Tensor, outside: Tensor, mask: Tensor) -> Tensor:
        """The picture of both codes."""
        synthesis = (self.tuned or self.generator).synthesis
        return blended_synthesis(synthesis, inside, outside, mask, self.training_noise if self.training else "const")

    def invert(self, images: Tensor) -> Inversion:
        """The reconstruction from both codes; ``w`` is that of the interest region."""
        inside, outside = self.codes(images)
        return Inversion(inside, self.blend(inside, outside, self.mask(images).sigmoid()))

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Reconstruction, style consistency and mask regularisation."""
        images = self.source(batch)
        (inside, outside), logits = self.codes(images), self.mask(images)
        mask = logits.sigmoid()
        shown, target = outside, batch
        if self.mixing_probability and torch.rand(()) < self.mixing_probability:
            cut = int(torch.randint(outside.shape[1], ()))
            shown = torch.cat([outside[:, :cut], outside.roll(1, 0)[:, cut:]], dim=1)
        image = self.blend(inside, shown, mask)
        if shown is not outside:
            keep = mask.detach()
            image = image * keep
            target = {**batch, "image": batch["image"] * keep}
        terms = self.losses(Inversion(inside, image), target)
        consistency = self.style_consistency(inside, outside)
        regularisation = self.mask_regularisation(logits, batch.get("mask"))
        total = terms["total"] + self.consistency_weight * consistency + self.mask_weight * regularisation
        return {**terms, "style_consistency": consistency, "mask": regularisation, "total": total}

    def style_consistency(self, inside: Tensor, outside: Tensor) -> Tensor:
        """Mean over the batch of ``max(0, margin - rms(inside - outside))``."""
        distance = (inside - outside).square().flatten(1).mean(1).add(1e-12).sqrt()
        return F.relu(self.margin - distance).mean()

    @staticmethod
    def mask_regularisation(logits: Tensor, mask: Tensor | None) -> Tensor:
        """Cross entropy of the predicted mask with the given one, or with itself."""
        return F.binary_cross_entropy_with_logits(logits, logits.sigmoid() if mask is None else mask)

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        groups = [
            {"params": list(self.encoder.parameters()), "name": "encoder"},
            {"params": list(self.mask_network.parameters()), "name": "mask"},
        ]
        if self.tuned is not None:
            groups.append({"params": [p for p in self.tuned.parameters() if p.requires_grad], "name": "generator"})
        return groups
