"""SAM: Spatially-Adaptive Multilayer Selection for GAN Inversion and Editing.

Gaurav Parmar, Yijun Li, Jingwan Lu, Richard Zhang, Jun-Yan Zhu, Krishna Kumar Singh, CVPR 2022, arXiv 2206.08357.
Official code: adobe-research/sam_inversion, commit 93d3bd6. Also: caopulan/GANInverter, commit e3d5d4d.

Differences: where no network predicts the invertibility, it is measured: the image is inverted by each latent alone, as
the paper makes the network's training data. Superpixels are the segments where no segmenter is given. The generator's
stored noise replaces fresh noise in each step (``fresh_noise``). GANInverter's variant changes ``layers`` to the first
convolutions of the blocks, and ``code_penalty``.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.generators.feature_maps import FeatureChange, Synthesis
from stylegan_inv.latents.naturalness import GaussianizedW
from stylegan_inv.latents.statistics import map_codes
from stylegan_inv.methods.common.base import InversionMethod, pool
from stylegan_inv.methods.common.latent_optimization import LatentOptimization
from stylegan_inv.methods.common.per_image import InputImages, OptimizedInversion
from stylegan_inv.methods.common.starting_points import check_embedder
from stylegan_inv.methods.regions.latent_choice import choose_latents, shrunk_mask
from stylegan_inv.methods.regions.superpixels import Superpixels
from stylegan_inv.optim.optimization_state import OptimizationState, Variables
from stylegan_inv.optim.per_image_optimization import Stage, seeded_randn
from stylegan_inv.optim.schedules import lr_ramp
from stylegan_inv.utils.checks import one_of, real_number, whole_number
from stylegan_inv.utils.frozen_module import Frozen

#: The name of the most editable latent, and prefixes of further variables: the start, the masks, the invertibility.
CODES, _START, _MASK, _MAP = "w", "start ", "mask ", "invertibility "


@dataclass
class SamTargets:
    """What the optimisation compares with.

    Attributes:
        image: Target images (B, 3, H, W).
        features: Their feature maps.
    """

    image: Tensor
    features: list[Tensor]


class SAM(LatentOptimization):
    """Inverts each segment by the most editable latent that is good enough: W+, or an offset of a feature map.

    With the masks m_l of the segments, the output x of each candidate layer l becomes ``x + m_l offset_l``. An edit
    renders other codes with these offsets, and restores the inversion's features inside of each mask.

    Args:
        layers: Candidate feature maps, from the most editable one. Official code: the blocks of 16, 32, 64, 128 px.
        threshold: Largest expected perceptual distance of a latent that is chosen (tau).
        steps: Number of steps.
        lr: Learning rate of Adam; it rises in the first twentieth of the steps and falls in the last quarter.
        naturalness: Weight of the distance from W, see `latents.naturalness`.
        delta: Weight of the distances of all rows of the code to the first.
        feature_penalty: Weight of the mean squares of the offsets.
        code_penalty: Weight of the mean square of the change of the codes. Official code: none; GANInverter: 5.
        clamp: Clamp reconstructions to [-1, 1] in the pixel loss too, as the official code does.
        drop_offsets: Leave the offsets out of edits, as the official code does. Where masks are soft, at their borders,
            an edit that leaves the codes as they are then changes the image.
        fresh_noise: Draw new noise in each step and for the result, as the official code does.
        invertibility: Maps images to the expected distances of all latents, (B, K, H, W), from the last layer to W+;
            None measures them.
        measure_steps: Number of steps of each measurement.
        superpixels: The segments.
        w_avg_samples: Number of codes from which the covariance of W is estimated.
        **kwargs: See :class:`.LatentOptimization`.
    """

    def __init__(
        self,
        *,
        layers: Sequence[str] = ("b16", "b32", "b64", "b128"),
        threshold: float = 0.225,
        steps: int = 1001,
        lr: float = 0.05,
        naturalness: float = 1e-8,
        delta: float = 1e-3,
        feature_penalty: float = 5.0,
        code_penalty: float = 0.0,
        clamp: bool = True,
        drop_offsets: bool = False,
        fresh_noise: bool = False,
        invertibility: nn.Module | None = None,
        measure_steps: int = 501,
        superpixels: Superpixels | None = None,
        w_avg_samples: int = 5000,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if isinstance(layers, str) or not layers:
            raise UserError(f"method.layers={layers}: expected a list of feature maps, such as [b16, b32]")
        names = self.generator.synthesis.feature_names()
        self.layers = [one_of("method.layers", layer, names[:-1]) for layer in layers]
        if sorted(self.layers, key=names.index) != self.layers or len(set(self.layers)) < len(self.layers):
            raise UserError(f"method.layers={self.layers}: expected different ones in the order of the generator")
        self.threshold = real_number("method.threshold", threshold)
        self.steps, self.measure_steps = whole_number("method.steps", steps), measure_steps
        self.lr, self.naturalness, self.delta = lr, naturalness, delta
        self.feature_penalty, self.code_penalty = feature_penalty, code_penalty
        self.clamp, self.drop_offsets, self.fresh_noise = clamp, drop_offsets, fresh_noise
        self.invertibility = None if invertibility is None else Frozen(invertibility)
        self.superpixels, self.w_avg_samples = superpixels or Superpixels(), w_avg_samples
        self._gaussian: GaussianizedW | None = None

    def start_from(self, start: str | InversionMethod) -> None:  # noqa: D102
        if isinstance(start, InversionMethod):
            check_embedder(self, start)
        super().start_from(start)

    # -- stages --------------------------------------------------------------------------------------------------------

    @property
    def candidates(self) -> list[str]:
        """The latents, from the last layer, with the best reconstruction, to the codes, the most editable ones."""
        return [*reversed(self.layers), CODES]

    def stage_names(self) -> list[str]:
        """Returns a measurement for each candidate where none is predicted, and the refinement."""
        measured = self.candidates if self.invertibility is None else []
        return [*(f"{'W+' if name == CODES else name} alone" for name in measured), "refinement"]

    @torch.no_grad()
    def stage(self, index: int, inputs: InputImages, initial_image: Tensor) -> Stage[SamTargets]:
        """Returns a measurement, which optimises one latent everywhere, or the refinement of all."""
        name, last = self.stage_names()[index], index == len(self.stage_names()) - 1
        variables = (CODES, *self.layers) if last else (self.candidates[index],)
        steps = self.steps if last else self.measure_steps
        targets = SamTargets(inputs.image, self.features.network.maps(inputs.image))
        return Stage(
            name, steps, variables, self._loss, targets, lambda step: self.lr * lr_ramp(step / steps, 0.05, 0.25)
        )

    @torch.no_grad()
    def initial_variables(self, images: Tensor) -> Variables:
        """Returns the codes, offsets of zero, and masks: of the whole image until the latents are chosen."""
        variables = super().initial_variables(images)
        variables[_START + CODES] = variables[CODES].clone()
        like = variables[CODES]
        found = self.generator.synthesis(like[:1], return_features=self.layers)
        assert isinstance(found, Synthesis)
        for layer in self.layers:
            shape = found.features[layer].shape[1:]
            variables[layer] = like.new_zeros(len(images), *shape)
            variables[_MASK + layer] = like.new_ones(len(images), 1, *shape[1:])
        if self.invertibility is not None:
            self._choose(variables, self.invertibility.network(images), images)
        return variables

    @torch.no_grad()
    def after_stage(self, index: int, state: OptimizationState, inputs: InputImages) -> None:
        """Keeps the distances of a measurement; chooses the latents after the last one."""
        if self.invertibility is not None or index >= len(self.candidates):
            return
        variables, network, size = state.variables, self.features.network, inputs.image.shape[-1]
        image = self.render(variables, size).clamp(-1, 1)
        distances = network.distance_maps(network.maps(image), network.maps(inputs.image))
        large = [F.interpolate(d, (size, size), mode="bilinear", align_corners=False) for d in distances]
        variables[_MAP + self.candidates[index]] = torch.stack(large).sum(0)
        variables[CODES] = variables[_START + CODES].clone()
        for layer in self.layers:
            variables[layer] = torch.zeros_like(variables[layer])
        if index == len(self.candidates) - 1:
            maps = torch.cat([variables.pop(_MAP + name) for name in self.candidates], dim=1)
            self._choose(variables, maps, inputs.image)

    def _choose(self, variables: Variables, maps: Tensor, images: Tensor) -> None:
        """Sets the masks of the layers.

        Args:
            variables: The variables, changed in place.
            maps: Expected distances (B, K, H, W), in the order of `candidates`.
            images: (B, 3, H, W).
        """
        segments = self.superpixels(images)
        for row, own in enumerate(maps):
            choice = choose_latents(own, segments[row], self.threshold)
            for number, name in enumerate(self.candidates[:-1]):
                mask = variables[_MASK + name]
                mask[row, 0] = shrunk_mask((choice == number).to(mask), mask.shape[-1])

    # -- rendering -----------------------------------------------------------------------------------------------------

    def render(self, variables: Variables, size: int | None = None) -> Tensor:  # noqa: D102
        image = self.generator.synthesis(
            self.codes(variables), noise=self._used_noise(variables), features=self._offsets(variables)
        )
        return image if size is None else pool(image, size)

    def _used_noise(self, variables: Variables) -> str | list[Tensor]:
        return "random" if self.fresh_noise else self.noise_maps(variables)

    def _offsets(self, variables: Variables) -> Mapping[str, FeatureChange]:
        return {layer: (1.0, variables[_MASK + layer] * variables[layer]) for layer in self.layers}

    @torch.no_grad()
    def result(self, state: OptimizationState, inputs: InputImages) -> OptimizedInversion:
        """Returns the inversion, with the features that an edit restores inside of the masks."""
        inversion, variables = super().result(state, inputs), state.variables
        found = self.generator.synthesis(
            inversion.w,
            noise=self._used_noise(variables),
            features=self._offsets(variables),
            return_features=self.layers,
        )
        assert isinstance(found, Synthesis)
        inversion.features = self.edit_changes(variables, found.features)
        return inversion

    def edit_changes(self, variables: Variables, features: Mapping[str, Tensor]) -> dict[str, FeatureChange]:
        """Returns the changes of feature maps in an edit.

        With the feature map y of the inversion, an output x becomes ``(1 - m) (x + m offset) + m y``.

        Args:
            variables: The variables of the inversion.
            features: Its feature maps, with their offsets.
        """
        changes: dict[str, FeatureChange] = {}
        for layer in self.layers:
            mask = variables[_MASK + layer]
            kept = mask * features[layer]
            changes[layer] = (1 - mask, kept if self.drop_offsets else kept + (1 - mask) * mask * variables[layer])
        return changes

    # -- losses --------------------------------------------------------------------------------------------------------

    def _loss(self, variables: Variables, targets: SamTargets, step: int) -> dict[str, Tensor]:
        network, w = self.features.network, self.codes(variables)
        image = self.render(variables, targets.image.shape[-1])
        clamped = image.clamp(-1, 1)
        terms = {
            "pixel": ((clamped if self.clamp else image) - targets.image).square().mean((1, 2, 3)),
            "perceptual": network.distance(network.maps(clamped), targets.features),
            "naturalness": self.gaussian().distance(w),
            "delta": (w[:, 1:] - w[:, :1]).norm(dim=2).sum(1),
            "features": torch.stack([variables[layer].square().mean((1, 2, 3)) for layer in self.layers]).sum(0),
        }
        total = terms["pixel"] + terms["perceptual"] + self.naturalness * terms["naturalness"]
        total = total + self.delta * terms["delta"] + self.feature_penalty * terms["features"]
        if self.code_penalty:
            terms["codes"] = (variables[CODES] - variables[_START + CODES]).square().mean((1, 2))
            total = total + self.code_penalty * terms["codes"]
        return {**terms, "total": total}

    def gaussian(self) -> GaussianizedW:
        """Returns the distribution of W, estimated once."""
        if self._gaussian is None:
            z = seeded_randn(self.seed, 0, self.w_avg_samples, self.generator.z_dim, like=self.generator.w_avg)
            self._gaussian = GaussianizedW(map_codes(self.generator, z))
        return self._gaussian
