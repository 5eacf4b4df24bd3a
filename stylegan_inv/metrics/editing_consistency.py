"""Latent editing consistency (e4e, Tov et al. 2021, section 5.2): does an edit survive the round trip to the image?"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.generators import Generator
from stylegan_inv.metrics.latent import CodeMetric
from stylegan_inv.utils.frozen_module import Frozen


class LatentEditingConsistency(CodeMetric):
    """Latent editing consistency: ``|w - edit^-1(E(G(edit(w))))|_F`` of each code (e4e, section 5.2).

    With an identity edit it measures the round trip through generator and encoder alone. The official script drops the
    batches beyond the 1st and 99th percentile; here every image counts.

    Args:
        generator: G.
        invert: E, which maps images (B, 3, R, R) of the generator to codes (B, L, D).
        edit: Maps codes and a strength to codes; the negative strength is the inverse edit.
        strength: Strength of the edit.
        name: Name of the edit, for the protocol.
        **kwargs: Arguments of torchmetrics.Metric.
    """

    domain: str | None = None

    def __init__(
        self,
        generator: Generator,
        invert: Callable[[Tensor], Tensor],
        edit: Callable[[Tensor, float], Tensor],
        strength: float,
        name: str = "edit",
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.generator, self.invert, self.edit = Frozen(generator), invert, edit
        self.strength, self.name = strength, name

    def score(self, w: Tensor) -> Tensor:
        """Returns the distances, in units of W."""
        image = self.generator.network.synthesis(self.edit(w, self.strength), noise="const")
        with torch.enable_grad():  # methods that optimise each image need gradients
            inverted = self.invert(image.detach()).detach()
        difference = (w - self.edit(inverted, -self.strength)).flatten(1)
        distances: Tensor = difference.norm(dim=1)
        return distances

    def describe(self) -> str:
        """Returns the edit."""
        return f"latent editing consistency, {self.name} by {self.strength:g}; Frobenius norm in units of W, all images"
