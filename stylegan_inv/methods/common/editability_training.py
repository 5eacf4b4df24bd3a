"""e4e's training towards editable codes: progressive offsets and a latent discriminator (Tov et al. 2021, section 5).

Its third part, the delta regularisation, is a loss term (`losses.regularization.DeltaNorm`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.encoders.base import ProgressiveEncoder
from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.discriminators.latent_discriminator_training import LatentDiscriminatorTraining
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer
from stylegan_inv.optim.schedules import ProgressiveStages


class EditabilityTraining(TrainedMethod):
    """Mixin that keeps the codes of an encoder close to W.

    It precedes the class of the method, which defines ``encoder``: ``class E4E(EditabilityTraining, PSP)``.

    Args:
        adversary: Called with ``w_dim``, returns a `LatentDiscriminatorTraining`; None for no discriminator.
        stages: Schedule of the layers' offsets; None activates all of them from the start. Requires a progressive
            encoder (``encoder.progressive=true``).
        **kwargs: Arguments of the method.
    """

    encoder: Any

    def __init__(
        self,
        *,
        adversary: Callable[..., LatentDiscriminatorTraining] | None = None,
        stages: ProgressiveStages | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if stages is not None and not isinstance(self.encoder, ProgressiveEncoder):
            name = type(self.encoder).__name__
            raise UserError(f"method.stages: got the encoder {name}, expected one with stages; set method.stages=null")
        self.adversary = None if adversary is None else adversary(w_dim=self.generator.w_dim)
        self.stages = stages
        self.on_step(0)

    def on_step(self, step: int) -> None:
        """Activates the layers whose offsets are trained from this step on."""
        if self.stages is not None:
            self.encoder.set_stage(self.stages.stage(step))

    @property
    def active_layers(self) -> int:
        """Number of layers with a code of their own, the first layer included."""
        return self.generator.num_ws if self.stages is None else self.encoder.stage + 1

    def train_discriminator(self, codes: Tensor) -> None:
        """Updates the latent discriminator with codes of the encoder (B, L, D) and as many of the mapping network."""
        if self.adversary is None:
            return
        # `callbacks.SkipNonFinite` skips a step with codes that are not finite; the pools must not keep them.
        if not self.trainer.strategy.reduce_boolean_decision(bool(torch.isfinite(codes).all()), all=True):
            return
        z = torch.randn(len(codes), self.generator.z_dim, device=codes.device)
        real, fake = self.generator.mapping.w(z), codes[:, : self.active_layers].float()
        self.step_auxiliary("latent_discriminator", self.adversary.learning_losses(real, fake))

    def with_adversarial_loss(self, terms: dict[str, Tensor], w: Tensor) -> dict[str, Tensor]:
        """Returns loss terms with the adversarial loss of the active layers of codes (B, L, D) added."""
        if self.adversary is None:
            return terms
        value = self.adversary.encoder_loss(w[:, : self.active_layers])
        return {**terms, "latent_adversarial": value, "total": terms["total"] + self.adversary.weight * value}

    def auxiliary_optimizers(self) -> list[AuxiliaryOptimizer]:  # noqa: D102
        own = [] if self.adversary is None else [self.adversary.auxiliary_optimizer()]
        return [*own, *super().auxiliary_optimizers()]

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        return [{"params": list(self.encoder.parameters()), "name": "encoder"}]

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores the stage of the encoder."""
        super().on_load_checkpoint(checkpoint)
        self.on_step(checkpoint["global_step"])
