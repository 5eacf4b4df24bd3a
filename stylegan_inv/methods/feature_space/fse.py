"""A Style-Based GAN Encoder for High Fidelity Reconstruction of Images and Videos: the Feature-Style encoder.

Xu Yao, Alasdair Newson, Yann Gousseau, Pierre Hellier, ECCV 2022, arXiv 2202.02183.
Official code: InterDigitalInc/FeatureStyleEncoder, commit 4aa0069.

Differences:

* Synthetic images are rendered in the step that uses them. The official code stores 100,000 of them as JPEG.
* The second reconstruction has the noise maps that made the synthetic image. The official code draws others, from
  another random generator than the images were made with (``mismatched_noise``).
* Batch norm uses the statistics of the batch in all steps. The official code switches the encoder to evaluation after
  the first epoch of 10,000 steps and never back (``batch_norm_steps: 10000``).
* The layer, the number of styles and the codes (``start``) are arguments.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.methods.common.base import Inversion, InversionMethod, pool
from stylegan_inv.methods.common.feature_layers import FeatureLayer, frozen_start, rendered, resized, start_codes
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.checks import one_of, real_number, whole_number

#: Index of the layer in the paper: 16 px.
PAPER_INDEX = 5


class FSE(TrainedMethod):
    """Predicts codes and a feature map F, which replaces that of one layer: ``y = G(w; F at k)``.

    An edit keeps the difference of F from the map of the codes: ``F' = F + G_k(w') - G_k(w)``, so that the map that is
    added, ``F - G_k(w)``, is what an inversion holds.

    In training the map is blended with the generator's own, ``(1 - s) G_k(w) + s F``, where s grows from 0 to 1. Part
    of each batch are random images of the generator, whose noise is known.

    Args:
        encoder: Called with ``num_ws``, ``w_dim``, ``in_channels``, ``feature_channels`` and ``feature_size``; returns
            an `encoders.feature_space.feature_style.FeatureEncoder`.
        feature_index: Index k of the layer, see `FeatureLayer`; None for the paper's 5 (16 px).
        start: Method whose codes are used; None for those of the encoder.
        synthetic_share: Share of each batch that is replaced by random images of the generator. Official code: 0.5.
        pixel: Weight of the mean squared error of synthetic images. Official code: 1, and none for photographs.
        feature_weight: Weight of the mean squared error between F and the map of the codes. Official code: 0.01.
        scale_steps: Steps until s is 1. Official code: 10,000.
        training_noise: Noise of the first reconstruction in training: ``random`` (official code), and the second one
            has known noise; or ``const`` for both, which are then one.
        mismatched_noise: Whether the known noise is drawn anew, as in the official code.
        batch_norm_steps: Steps after which batch norm uses its running statistics; None for never.
        **kwargs: Arguments of `TrainedMethod`.
    """

    def __init__(
        self,
        *,
        encoder: Callable[..., nn.Module],
        feature_index: int | None = None,
        start: InversionMethod | None = None,
        synthetic_share: float = 0.5,
        pixel: float = 1.0,
        feature_weight: float = 0.01,
        scale_steps: int = 10000,
        training_noise: str = "random",
        mismatched_noise: bool = False,
        batch_norm_steps: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer = FeatureLayer.of(self.generator, feature_index, PAPER_INDEX)
        self.encoder: Any = encoder(
            num_ws=self.generator.num_ws,
            w_dim=self.generator.w_dim,
            in_channels=self.in_channels,
            feature_channels=self.layer.channels,
            feature_size=self.layer.size,
        )
        self.synthetic_share = real_number("method.synthetic_share", synthetic_share, least=0, most=1)
        self.pixel, self.feature_weight = pixel, feature_weight
        self.scale_steps = whole_number("method.scale_steps", scale_steps, least=0)
        self.training_noise = one_of("method.training_noise", training_noise, ("random", "const"))
        self.mismatched_noise, self.batch_norm_steps = mismatched_noise, batch_norm_steps
        self.start_from(start)
        self.on_step(0)

    def start_from(self, start: object) -> None:
        """Sets the method whose codes are used, see the argument ``start``.

        Raises:
            UserError: Not a method, or one of another generator.
        """
        self.start = frozen_start(self, start)

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [] if self.start is None else [self.start.network]

    def on_step(self, step: int) -> None:
        """Sets the share of F in training and, with ``batch_norm_steps``, what batch norm uses."""
        self.scale = 1.0 if self.scale_steps == 0 else min(1.0, step / self.scale_steps)
        self._fixed_statistics = self.batch_norm_steps is not None and step >= self.batch_norm_steps

    def encode(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """Returns the codes (B, L, D) and the feature maps (B, C, r, r) of images (B, 3, H, W)."""
        codes, features = self.encoder(resized(images, self.encoder.input_size, by_halves=True))
        return codes + self.generator.w_avg if self.start is None else start_codes(self, self.start, images), features

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        w, features = self.encode(images)
        image, own = rendered(self.generator, self.layer, w, features=self.layer.replaced(features))
        return Inversion(w, image, features=self.layer.added(features - own))

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the losses of both reconstructions of photographs and synthetic images."""
        batch, noise, count = self._with_synthetic_images(batch)
        self.encoder.train(not self._fixed_statistics)
        return self.reconstruction_losses(batch, "const" if noise is None else self.training_noise, noise, count)

    def reconstruction_losses(
        self, batch: Mapping[str, Tensor], noise: str, known_noise: list[Tensor] | None, count: int
    ) -> dict[str, Tensor]:
        """Returns the raw losses and their weighted sum; terms of the perceptual losses are sums of both images.

        Args:
            batch: ``image`` (B, 3, H, W).
            noise: Noise of the first reconstruction.
            known_noise: Noise maps of the second one; None if there is no other than the first.
            count: Number of synthetic images, which come first.
        """
        w, features = self.encode(self.source(batch))
        changes = self.layer.replaced(features, self.scale)
        first, own = rendered(self.generator, self.layer, w, noise=noise, features=changes)
        terms = self.losses(Inversion(w, first), batch)
        others = terms
        if known_noise is not None:
            second = self.generator.synthesis(w, noise=known_noise, features=changes)
            others = self.losses(Inversion(w, second), batch)
        terms = {name: value + others[name] for name, value in terms.items()}
        terms["features"] = F.mse_loss(features, own.detach())
        total = terms["total"] + self.feature_weight * terms["features"]
        if count and self.pixel:
            target = batch["image"][:count]
            terms["pixel"] = F.mse_loss(pool(first[:count], target.shape[-1]), target)
            total = total + self.pixel * terms["pixel"]
        return {**terms, "total": total}

    @torch.no_grad()
    def _with_synthetic_images(
        self, batch: Mapping[str, Tensor]
    ) -> tuple[Mapping[str, Tensor], list[Tensor] | None, int]:
        """Replaces the first images of a batch; returns it, the known noise of all images, and how many are new."""
        images, generator = self.source(batch), self.generator
        batch_size, size = len(images), images.shape[-1]
        count = round(self.synthetic_share * batch_size)
        known = None
        if self.training_noise == "random":
            # Photographs get the noise of a synthetic image, as their own is not known.
            known = [
                torch.randn(max(count, 1), *m.shape[1:], device=images.device, dtype=m.dtype)
                for m in generator.synthesis.noise_maps()
            ]
        if count:
            z = torch.randn(batch_size, generator.z_dim, device=images.device)
            w = generator.mapping(z)[:count]
            made = pool(generator.synthesis(w, noise=known or "const"), size)
            images = torch.cat([made.to(images), images[count:]])
        if known is not None:
            if self.mismatched_noise:
                known = [torch.randn_like(m) for m in known]
            rows = torch.arange(batch_size, device=images.device) % max(count, 1)
            known = [m[rows] for m in known]
        return {**batch, "image": images, "source": images}, known, count
