"""Image2StyleGAN++: How to Edit the Embedded Images?

Rameen Abdal, Yipeng Qin, Peter Wonka, CVPR 2020, arXiv 1911.11544. No official code.

Differences: optimises a batch of images at once. The weights of the loss terms are relative to one another: Adam
ignores a common factor such as the paper's 1e-5, so the noise maps take an ordinary learning rate where the paper's 5
compensates for gradients below Adam's epsilon. The stages of the applications other than embedding follow the paper's
description; it gives neither their numbers of steps nor their blurs.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from stylegan_inv.errors import UserError
from stylegan_inv.losses.style import gram, style_distance
from stylegan_inv.methods.common.base import pool
from stylegan_inv.methods.common.embedding_stage import EmbeddingStage
from stylegan_inv.methods.common.latent_optimization import LatentOptimization
from stylegan_inv.methods.common.per_image import InputImages
from stylegan_inv.optim.optimization_state import Variables
from stylegan_inv.optim.per_image_optimization import Stage
from stylegan_inv.utils.checks import whole_number


@dataclass
class StageTargets:
    """What a stage compares with; the symbols are those of `EmbeddingStage`.

    Attributes:
        x: Target images (B, 3, H, W).
        y: Reference images (B, 3, H, W); None without one.
        pixel_mask: M_m, (B, 1, H, W).
        perceptual_mask: M_p, (B, 1, H, W).
        style_mask: M_s, (B, 1, H, W).
        x_features: Feature maps of M_p x.
        y_features: Feature maps of (1 - M_p) y.
        y_gram: Gram matrix of y inside M_s.
    """

    x: Tensor
    y: Tensor | None
    pixel_mask: Tensor
    perceptual_mask: Tensor
    style_mask: Tensor | None = None
    x_features: list[Tensor] | None = None
    y_features: list[Tensor] | None = None
    y_gram: Tensor | None = None


class Image2StyleGANPP(LatentOptimization):
    """Embeds images into W+ and noise maps, with masks and reference images.

    Args:
        stages: Name -> stage, in order.
        rounds: Number of passes over the stages; each pass takes an equal part of a stage's steps.
        **kwargs: See :class:`LatentOptimization`.
    """

    takes_mask = True
    takes_reference = True

    def __init__(self, *, stages: Mapping[str, EmbeddingStage], rounds: int = 1, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.rounds = whole_number("method.rounds", rounds)
        if not stages:
            raise UserError("method.stages={}: expected at least one stage; give application=…")
        for name, stage in stages.items():
            for row in stage.layers or ():
                if not 0 <= row < self.generator.num_ws:
                    last = self.generator.num_ws - 1
                    raise UserError(f"method.stages.{name}.layers: no layer {row}, expected 0 to {last}")
        self.stages = dict(stages)

    @property
    def needs_reference(self) -> bool:
        """Whether a stage needs a reference image."""
        return any(stage.needs_reference for stage in self.stages.values())

    @property
    def needs_mask(self) -> bool:
        """Whether a stage needs a mask."""
        return any(stage.needs_mask for stage in self.stages.values())

    def stage_names(self) -> list[str]:
        """Returns the names of the stages, once for each round."""
        return list(self.stages) * self.rounds

    @torch.no_grad()
    def stage(self, index: int, inputs: InputImages, initial_image: Tensor) -> Stage[StageTargets]:
        """Returns a stage of a round."""
        current, name = index // len(self.stages), self.stage_names()[index]
        settings = self.stages[name]
        # Steps that cannot be divided equally go to the first rounds.
        steps = settings.steps // self.rounds + (current < settings.steps % self.rounds)

        def loss(variables: Variables, targets: StageTargets, step: int) -> dict[str, Tensor]:
            return self._loss(settings, variables, targets)

        targets = self._targets(settings, inputs, initial_image)
        return Stage(
            name, steps, (settings.variable,), loss, targets, lambda step: settings.lr, early_stop=settings.early_stop
        )

    def _targets(self, settings: EmbeddingStage, inputs: InputImages, initial_image: Tensor) -> StageTargets:
        x, mask, network = inputs.image, inputs.mask, self.features.network
        y = inputs.reference if settings.reference == "image" else pool(initial_image, x.shape[-1])
        targets = StageTargets(
            x=x,
            y=y,
            pixel_mask=region(mask, settings.pixel_mask, x),
            perceptual_mask=region(mask, settings.perceptual_mask, x),
        )
        if settings.blur:
            targets.pixel_mask = _blur(targets.pixel_mask, settings.blur * x.shape[-1])
        if settings.perceptual:
            targets.x_features = network.maps(x * targets.perceptual_mask)
        if settings.perceptual_reference:
            assert y is not None
            targets.y_features = network.maps(y * (1 - targets.perceptual_mask))
        if settings.style:
            targets.style_mask = region(mask, settings.style_mask, x)
            targets.y_gram = gram(network.style(y), targets.style_mask)
        return targets

    def _loss(self, settings: EmbeddingStage, variables: Variables, targets: StageTargets) -> dict[str, Tensor]:
        w, network = variables["w"], self.features.network
        if settings.layers is not None:
            optimized = torch.zeros(w.shape[1], 1, dtype=torch.bool, device=w.device)
            optimized[list(settings.layers)] = True
            variables = {**variables, "w": torch.where(optimized, w, w.detach())}
        image = self.render(variables, targets.x.shape[-1])
        terms: dict[str, Tensor] = {}
        total = image.new_zeros(len(image))

        def add(name: str, weight: float, value: Tensor) -> None:
            nonlocal total
            terms[name] = value
            total = total + weight * value

        if settings.pixel:
            add("pixel", settings.pixel, (targets.pixel_mask * (image - targets.x)).square().mean((1, 2, 3)))
        if settings.pixel_reference:
            assert targets.y is not None
            error = (1 - targets.pixel_mask) * (image - targets.y)
            add("pixel_reference", settings.pixel_reference, error.square().mean((1, 2, 3)))
        if settings.perceptual:
            features = network.maps(image * targets.perceptual_mask)
            add("perceptual", settings.perceptual, network.distance(features, targets.x_features))
        if settings.perceptual_reference:
            features = network.maps(image * (1 - targets.perceptual_mask))
            distance = network.distance(features, targets.y_features)
            add("perceptual_reference", settings.perceptual_reference, distance)
        if settings.style:
            assert targets.y_gram is not None
            own = gram(network.style(image), targets.style_mask)
            add("style", settings.style, style_distance(own, targets.y_gram))
        return {**terms, "total": total}


def region(mask: Tensor | None, where: str, like: Tensor) -> Tensor:
    """Returns the mask of a region.

    Args:
        mask: (B, 1, H, W) in [0, 1]; None for words that do not need one.
        where: ``everywhere``, ``inside``, ``outside`` or ``nowhere``.
        like: Images (B, 3, H, W) that the mask is for.
    """
    if where in ("everywhere", "nowhere") or mask is None:
        return torch.full_like(like[:, :1], where != "nowhere")
    return mask if where == "inside" else 1 - mask


def _blur(mask: Tensor, sigma: float) -> Tensor:
    # Reflection padding requires a kernel smaller than twice the side.
    size = min(2 * round(3 * sigma) + 1, 2 * mask.shape[-1] - 1)
    blurred: Tensor = gaussian_blur(mask, [size, size], [sigma, sigma])
    return blurred
