"""HFGI: High-Fidelity GAN Inversion for Image Attribute Editing.

Tengfei Wang, Yong Zhang, Yanbo Fan, Jue Wang, Qifeng Chen, CVPR 2022, arXiv 2109.06590.
Official code: Tengfei-Wang/HFGI, commit e30f33c.

Differences: any embedder takes the place of e4e, and the validation scores inversions, where the official code distorts
their residuals as in training. Off by default: the official code leaves the embedder in training mode, so that its
batch statistics drift (``train_mode_start``), distorts all images of a batch alike (``same_distortion``), and reduces
images without antialiasing (``aliased_residual``; on for its checkpoints, which were trained so).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.data.augment.perspective import random_perspective
from stylegan_inv.encoders.refinement.residual_encoders import ConsultationEncoder, ResidualAligner, resized
from stylegan_inv.errors import UserError
from stylegan_inv.generators.feature_maps import Modulation
from stylegan_inv.methods.common.base import Inversion, InversionMethod, Step
from stylegan_inv.methods.common.starting_points import check_embedder, codes_alone
from stylegan_inv.methods.common.trained import TrainedMethod
from stylegan_inv.utils.checks import one_of
from stylegan_inv.utils.frozen_module import Frozen


class HFGI(TrainedMethod):
    """Passes what an embedder misses, the residual of its reconstruction, to a feature map of the generator.

    For codes w of an image x and edited codes w' (section 3), with the plain images ``y = G(w)`` and ``y' = G(w')``:

        residual = x - y,   aligned = A(residual, y'),   (scale, shift) = C(aligned),
        x' = G(w'; f (1 + scale) + shift),   f: the feature map of ``layer``.

    An inversion is the edit w' = w. In training w' = w too, and the residual is distorted in perspective, so that A
    learns to align it: ``aligned`` is compared with the undistorted residual.

    Args:
        start: Embedder that finds the codes, or ``average``: the latent average for every image.
        layer: Feature map that is modulated. Paper: that of the first convolution at 64 px.
        consultation: Called with ``feature_channels``; returns C.
        aligner: Returns A.
        alignment: Weight of the mean absolute difference of the aligned residual. Official command: 0.1.
        distortion: Largest shift of a corner, as a fraction of half the side. Official command: 0.15.
        distortion_probability: Probability that a residual is distorted. Official command: 0.9.
        training_noise: Noise of the synthesis network in training: ``random`` (official code) or ``const``.
        train_mode_start: Run the embedder in training mode in training, as the official code does.
        same_distortion: Distort all images of a batch alike, as the official code does.
        aliased_residual: Reduce reconstructions without antialiasing, as the official code does.
        **kwargs: Arguments of `TrainedMethod`.
    """

    edits_with_networks = True

    def __init__(
        self,
        *,
        start: str | InversionMethod,
        layer: str = "b64.conv0",
        consultation: Callable[..., nn.Module] = ConsultationEncoder,
        aligner: Callable[..., nn.Module] = ResidualAligner,
        alignment: float = 0.1,
        distortion: float = 0.15,
        distortion_probability: float = 0.9,
        training_noise: str = "random",
        train_mode_start: bool = False,
        same_distortion: bool = False,
        aliased_residual: bool = False,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        layers = self.generator.synthesis.named_layers()
        self.layer = one_of("method.layer", layer, layers)
        self.training_noise = one_of("method.training_noise", training_noise, ("random", "const"))
        self.alignment, self.distortion, self.distortion_probability = alignment, distortion, distortion_probability
        self.train_mode_start, self.same_distortion = train_mode_start, same_distortion
        self.aliased_residual = aliased_residual
        self._feature_size: int = layers[layer].resolution
        self.consultation = consultation(feature_channels=len(layers[layer].weight))
        self.aligner = aligner()
        self.start_from(start)

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [self.start.network] if isinstance(self.start, Frozen) else []

    def start_from(self, start: str | InversionMethod) -> None:
        """Sets the embedder, see ``start``.

        Raises:
            UserError: Neither ``average`` nor a method, or a method that does not fit.
        """
        if isinstance(start, InversionMethod):
            check_embedder(self, start)
        elif start != "average":
            raise UserError(f"method.start={start!r}: expected a run or a shipped encoder, or average")
        self.start = Frozen(start) if isinstance(start, InversionMethod) else start

    def default_input_size(self) -> int:
        """Returns the size of the images that the embedder reads."""
        return self.start.network.input_size if isinstance(self.start, Frozen) else super().default_input_size()

    def invert(self, images: Tensor) -> Inversion:  # noqa: D102
        w, noise, plain = self._embed(images)
        low_fidelity = self._low_fidelity(plain, images.shape[-1])
        residual = images - low_fidelity
        _, conditions = self._conditions(residual, low_fidelity)
        image = self._render(w, noise, conditions)
        steps = [Step(w, plain, name="start"), Step(w, image, name="refined")]
        return Inversion(w, image, steps=steps, noise=noise, kept={"residual": residual})

    def render_edited(self, inversion: Inversion, w: Tensor, noise: Sequence[Tensor] | None = None) -> Tensor:
        """Returns the images of edited codes, with the residual aligned to them, see :class:`InversionMethod`."""
        if inversion.kept is None or "residual" not in inversion.kept:
            raise UserError("HFGI edits with the residual of the inversion, which is missing; invert the image again")
        residual, maps = inversion.kept["residual"], noise or inversion.noise
        plain: Tensor = self.generator.synthesis(w, noise=maps or "const")
        _, conditions = self._conditions(residual, self._low_fidelity(plain, residual.shape[-1]))
        return self._render(w, maps, conditions)

    def training_losses(self, batch: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Returns the losses of the reconstruction, and that of the alignment."""
        images = self.source(batch)
        w, noise, plain = self._embed(images)
        low_fidelity = self._low_fidelity(plain, images.shape[-1])
        residual = (images - low_fidelity).detach()
        aligned, conditions = self._conditions(self.distort(residual), low_fidelity)
        terms = self.losses(Inversion(w, self._render(w, noise, conditions)), batch)
        difference = (aligned - residual).abs().mean()
        return {**terms, "alignment": difference, "total": terms["total"] + self.alignment * difference}

    def distort(self, residual: Tensor) -> Tensor:
        """Returns residuals (B, 3, H, W) in random perspectives."""
        return random_perspective(residual, self.distortion, self.distortion_probability, self.same_distortion)

    @torch.no_grad()
    def _embed(self, images: Tensor) -> tuple[Tensor, list[Tensor] | None, Tensor]:
        """Returns the codes, the noise maps and the plain images of the embedder."""
        if not isinstance(self.start, Frozen):
            w = self.average_codes(len(images))
            return w, None, self.generator.synthesis(w, noise=self._noise(None))
        embedder = self.start.network
        embedder.train(self.training and self.train_mode_start)
        found = embedder.invert(images)
        embedder.eval()
        w, noise = codes_alone(self, embedder, found)
        fresh = self.training and self.training_noise == "random" and noise is None
        return w, noise, self.generator.synthesis(w, noise="random") if fresh else found.image.detach()

    def _low_fidelity(self, plain: Tensor, size: int) -> Tensor:
        return resized(plain.clamp(-1, 1), size, antialias=not self.aliased_residual)

    def _conditions(self, residual: Tensor, image: Tensor) -> tuple[Tensor, Modulation]:
        """Returns the aligned residual, and the modulation of the feature map."""
        aligned: Tensor = self.aligner(torch.cat([residual, image], dim=1))
        scale, shift = self.consultation(aligned, self._feature_size)
        return aligned, (1 + scale, shift)

    def _noise(self, noise: Sequence[Tensor] | None) -> str | Sequence[Tensor]:
        return noise or ("const" if not self.training else self.training_noise)

    def _render(self, w: Tensor, noise: Sequence[Tensor] | None, conditions: Modulation) -> Tensor:
        image: Tensor = self.generator.synthesis(w, noise=self._noise(noise), features={self.layer: conditions})
        return image
