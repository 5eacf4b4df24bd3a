"""HyperInverter: Improving StyleGAN Inversion via Hypernetwork.

Tan M. Dinh, Anh Tuan Tran, Rang Nguyen, Binh-Son Hua, CVPR 2022, arXiv 2112.00719.
Official code: VinAIResearch/HyperInverter, commit 3966220.

Differences: The codes come from any method; the official code takes them from an encoder into W. Images are low-pass
filtered before they are made smaller; ``antialias=false`` follows the official code. The batch size does not change
when the adversarial loss starts, and the step is not repeated.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.base import Inversion, Step, pool
from stylegan_inv.methods.common.discriminators.image_discriminator_training import ImageDiscriminatorTraining
from stylegan_inv.methods.common.weight_prediction import WeightPrediction, resized
from stylegan_inv.optim.auxiliary import AuxiliaryOptimizer
from stylegan_inv.utils.checks import whole_number


class HyperInverter(WeightPrediction):
    """Predicts changes of the generator's weights in one pass, from features of the image and of its W image.

    With codes w and their image ``y_0 = G(w)`` (section 3.2):

        dW = H(E(y_0), E(x)),    y = G(w, W + dW).

    Args:
        encoder: Called with ``num_maps``, the number of styles, and ``in_channels``; returns a module with
            ``image_size`` and ``features`` that maps images to (B, num_maps, features, 8, 8).
        hypernetwork: Called with the synthesis network and ``features``; returns a module that maps the features of
            both images to factors, see `hypernetworks`.
        adversary: Discriminator at the generator's resolution; None for none.
        loss_resolution: Side of the images that the other losses compare, in pixels; None for that of the targets.
            Official code: 256.
        **kwargs: Arguments of `WeightPrediction`.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., Any],
        hypernetwork: Callable[..., nn.Module],
        adversary: ImageDiscriminatorTraining | None = None,
        loss_resolution: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if loss_resolution is not None:
            whole_number("method.loss_resolution", loss_resolution, 16)
        self.loss_resolution, self.adversary = loss_resolution, adversary
        self.encoder: Any = encoder(num_maps=self.generator.num_ws, in_channels=self.in_channels)
        self.hypernetwork = hypernetwork(self.generator.synthesis, features=self.encoder.features)
        self._adversarial = False
        self.on_step(0)

    def default_input_size(self) -> int:
        """Returns the resolution of the generator, at most 256."""
        return min(self.generator.resolution, 256)

    def on_step(self, step: int) -> None:
        """Uses the discriminator from its first step on."""
        self._adversarial = self.adversary is not None and step >= self.adversary.first_step

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        start = self.embed(images)
        size = self.encoder.image_size
        # In this order, as the batch statistics move with each call.
        of_image = self.encoder(resized(images, size, self.antialias))
        of_w = self.encoder(resized(start.image, size, self.antialias))
        factors = self.hypernetwork(of_w, of_image)
        image = self.render(start, factors)
        steps = [Step(start.w, start.image, "start"), Step(start.w, image, "weights")]
        return Inversion(start.w, image, steps=steps, noise=start.noise, weights=factors)

    def training_losses(self, batch: Mapping[str, Tensor]) -> Iterator[dict[str, Tensor]]:
        """Yields the losses of the encoder and the hypernetwork, then updates the discriminator.

        Raises:
            UserError: Targets that the discriminator cannot compare with.
        """
        inversion = self.invert(self.source(batch))
        terms = self.losses(inversion, self._for_losses(batch))
        if self.adversary is None or not self._adversarial:
            yield terms
            return
        target, image = batch["image"], inversion.image
        if target.shape != image.shape:
            raise UserError(
                f"method.adversary: compares images of {image.shape[-1]} px, the targets have {target.shape[-1]}; give "
                f"dataset.resolution={image.shape[-1]}, or method.adversary=null"
            )
        value = self.adversary.encoder_loss(image)
        yield {**terms, "adversarial": value, "total": terms["total"] + self.adversary.weight * value}
        self.step_auxiliary("discriminator", self.adversary.learning_losses(target, image))

    def auxiliary_optimizers(self) -> list[AuxiliaryOptimizer]:  # noqa: D102
        own = [] if self.adversary is None else [self.adversary.auxiliary_optimizer()]
        return [*own, *super().auxiliary_optimizers()]

    def parameter_groups(self) -> list[dict[str, Any]]:  # noqa: D102
        parameters = [*self.encoder.parameters(), *self.hypernetwork.parameters()]
        return [{"params": parameters, "name": "hypernetwork"}]

    def on_load_checkpoint(self, checkpoint: Mapping[str, Any]) -> None:
        """Restores whether the discriminator is used."""
        super().on_load_checkpoint(checkpoint)
        self.on_step(checkpoint.get("global_step", 0))

    def _for_losses(self, batch: Mapping[str, Tensor]) -> Mapping[str, Tensor]:
        size = self.loss_resolution
        if size is None:
            return batch
        # Data sets of files add lists, such as the names.
        images = {name: value for name, value in batch.items() if isinstance(value, Tensor) and value.ndim == 4}
        return {**batch, **{name: pool(value, size) for name, value in images.items()}}
