"""What e4e adds to an encoder method: progressive offsets and a discriminator of codes (Tov et al. 2021, section 5)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.methods.common.latent_adversary import LatentAdversary
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.optim.schedules import ProgressiveStages


class NearW(TrainedMethod):
    """A method whose codes are kept near W: mix in before the method that makes them.

    Args:
        adversary: Called with ``w_dim``; see `LatentAdversary`. None plays without a discriminator.
        stages: When the offsets of the layers begin to be learnt; None activates them all from the start. The encoder
            must be progressive (``encoder.progressive=true``).
        **kwargs: Of the method.
    """

    encoder: Any

    def __init__(
        self,
        *,
        adversary: Callable[..., LatentAdversary] | None = None,
        stages: ProgressiveStages | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.adversary = None if adversary is None else adversary(w_dim=self.generator.w_dim)
        self.stages = stages
        self.on_step(0)

    def on_step(self, step: int) -> None:  # noqa: D102
        if self.stages is not None:
            self.encoder.set_stage(self.stages.stage(step))

    @property
    def active_layers(self) -> int:
        """Layers that differ from the first one so far, itself included."""
        return self.generator.num_ws if self.stages is None else self.encoder.stage + 1

    def add_adversarial(self, terms: dict[str, Tensor], w: Tensor) -> dict[str, Tensor]:
        """Loss terms with the discriminator's judgement of codes (B, L, D) added: its mean over the active layers."""
        if self.adversary is None:
            return terms
        value = self.adversary.judge(w[:, : self.active_layers])
        return {**terms, "latent_adversarial": value, "total": terms["total"] + self.adversary.weight * value}

    def further_optimizers(self) -> list[torch.optim.Optimizer]:  # noqa: D102
        own = [] if self.adversary is None else [self.adversary.optimizer()]
        return [*own, *super().further_optimizers()]

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        return [{"params": list(self.encoder.parameters()), "name": "encoder"}]

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:  # noqa: D102
        super().on_load_checkpoint(checkpoint)
        self.on_step(checkpoint["global_step"])
