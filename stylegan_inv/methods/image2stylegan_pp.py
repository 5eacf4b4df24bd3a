"""Image2StyleGAN++: How to Edit the Embedded Images?

Rameen Abdal, Yipeng Qin, Peter Wonka, CVPR 2020, arXiv 1911.11544. No official code.

Differences: optimises a batch of images at once. The weights of the loss terms are relative to one another: Adam
ignores a common factor such as the paper's 1e-5, so the noise maps take an ordinary learning rate where the paper's 5
compensates for gradients below Adam's epsilon. The stages of the applications other than embedding follow the paper's
description; it gives neither their numbers of steps nor their blurs.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torchvision.transforms.functional import gaussian_blur

from stylegan_inv.errors import UserError
from stylegan_inv.losses.style import gram, style_distance
from stylegan_inv.methods.common.base import pool
from stylegan_inv.methods.common.latent_optimization import LatentOptimization
from stylegan_inv.methods.common.per_image import InputImages
from stylegan_inv.optim.optimization_state import Variables
from stylegan_inv.optim.per_image_optimization import EarlyStop, Stage
from stylegan_inv.utils.checks import one_of, whole_number

REGIONS = ("everywhere", "inside", "outside", "nowhere")


@dataclass
class EmbeddingStage:
    """One of the paper's building blocks: ``W_l`` (``variable="w"``) or ``Mk_n`` (``variable="noise"``).

    With the target x, the reference y and the reconstruction G, a stage minimises (the paper's equation 1)

        style S(M_s, G, y) + perceptual P(M_p, G, x)
        + pixel |M_m (G - x)|^2 / N + pixel_reference |(1 - M_m) (G - y)|^2 / N

    Attributes:
        variable: ``w`` or ``noise``.
        steps: Number of steps.
        lr: Learning rate of Adam.
        pixel: Weight of the mean squared error to x.
        pixel_reference: Weight of the mean squared error to y.
        perceptual: Weight of the perceptual distance to x; both images are multiplied by M_p.
        perceptual_reference: Weight of the perceptual distance to y; both images are multiplied by 1 - M_p. Paper:
            none.
        style: Weight of the distance of the Gram matrices.
        pixel_mask: M_m: ``everywhere``, ``inside`` or ``outside`` the mask, or ``nowhere``.
        perceptual_mask: M_p, in the same words.
        style_mask: M_s, in the same words.
        blur: Standard deviation of the Gaussian blur of M_m, as a fraction of the image's side.
        reference: What y is: ``image``, the reference image, or ``initial``, the reconstruction at the start of the
            stage.
        layers: Rows of the code that are optimised; None optimises all.
        early_stop: When an image stops before the last step.
    """

    variable: str
    steps: int
    lr: float
    pixel: float = 0.0
    pixel_reference: float = 0.0
    perceptual: float = 0.0
    perceptual_reference: float = 0.0
    style: float = 0.0
    pixel_mask: str = "everywhere"
    perceptual_mask: str = "everywhere"
    style_mask: str = "inside"
    blur: float = 0.0
    reference: str = "image"
    layers: Sequence[int] | None = None
    early_stop: EarlyStop = field(default_factory=EarlyStop)

    def __post_init__(self) -> None:
        one_of("method.stages: variable", self.variable, ("w", "noise"))
        one_of("method.stages: reference", self.reference, ("image", "initial"))
        for name, region in self._regions().items():
            one_of(f"method.stages: {name}", region, REGIONS)
        whole_number("method.stages: steps", self.steps)

    def _regions(self) -> dict[str, str]:
        return {
            "pixel_mask": self.pixel_mask, "perceptual_mask": self.perceptual_mask, "style_mask": self.style_mask
        }  # fmt: skip

    @property
    def needs_reference(self) -> bool:
        """Whether it compares with the reference image."""
        weighted = self.pixel_reference or self.perceptual_reference or self.style
        return self.reference == "image" and bool(weighted)

    @property
    def needs_mask(self) -> bool:
        """Whether a loss term with a weight is restricted to one side of the mask."""
        used = {
            self.pixel_mask if self.pixel or self.pixel_reference else "",
            self.perceptual_mask if self.perceptual or self.perceptual_reference else "",
            self.style_mask if self.style else "",
        }
        return bool(used & {"inside", "outside"})


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
        where: One of `REGIONS`.
        like: Images (B, 3, H, W) that the mask is for.
    """
    if where in ("everywhere", "nowhere") or mask is None:
        return torch.full_like(like[:, :1], where != "nowhere")
    return mask if where == "inside" else 1 - mask


def _blur(mask: Tensor, sigma: float) -> Tensor:
    # Reflection padding requires a kernel smaller than twice the side.
    size = min(2 * round(3 * sigma) + 1, 2 * mask.shape[-1] - 1)
    return gaussian_blur(mask, [size, size], [sigma, sigma])
