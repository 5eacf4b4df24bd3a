"""DHR: What Decreases Editing Capability? Domain-Specific Hybrid Refinement for Improved GAN Inversion.

Pu Cao, Lu Yang, Dongxv Liu, Xiaoya Yang, Tianrui Huang, Qing Song, WACV 2024, arXiv 2301.12141.
Official code: caopulan/GANInverter, commit e3d5d4d.

Differences: the parser of faces is optional: without it, superpixels alone decide, and a mask may replace it. Of the
tuned weights the differences are kept, as of PTI's. Off by default: the official code gives superpixels the channels in
the wrong order (``superpixels.swap_red_and_blue``), drops those that no sample of a coarse map hits
(``rules.drop_missed``), and divides the squared error of three channels by the number of pixels (``sum_channels``).
"""

from __future__ import annotations

import copy
import dataclasses
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from stylegan_inv.generators.feature_maps import FeatureChange
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference, compress
from stylegan_inv.methods.common.base import InversionMethod, Step, pool
from stylegan_inv.methods.common.per_image import InputImages, OptimizedInversion, PerImageMethod
from stylegan_inv.methods.common.starting_points import check_embedder, codes_alone
from stylegan_inv.methods.regions.domain_mask import DomainRules, domain_mask
from stylegan_inv.methods.regions.superpixels import Superpixels
from stylegan_inv.optim.optimization_state import Monitor, Progress
from stylegan_inv.utils.checks import one_of, whole_number
from stylegan_inv.utils.frozen_module import Frozen

#: Steps between two reports of the progress.
_REPORT_EVERY_STEPS = 10


@dataclass
class Refined:
    """The refinement of one image.

    Attributes:
        feature: The feature map outside of the domain, (1, C, h, w).
        difference: Compressed difference to the shared generator.
        curve: Losses (steps,) before each step.
    """

    feature: Tensor
    difference: dict[str, Tensor]
    curve: Tensor


@dataclass
class RefinementState:
    """The state of a batch whose images are refined one after another.

    Attributes:
        w: Codes of the embedder, (B, L, D).
        noise: Their noise maps, (B, 1, r, r) for each layer.
        own_noise: Whether the embedder found them.
        mask: What the generator can make, (B, 1, H, W).
        refined: Results of the images that are finished.
        seconds: Time spent so far, in all runs together.
    """

    w: Tensor
    noise: list[Tensor]
    own_noise: bool
    mask: Tensor
    refined: list[Refined] = field(default_factory=list)
    seconds: float = 0.0


class DHR(PerImageMethod):
    """Refines what the generator can make by its weights, and everything else by a feature map (section 3).

    A coarse inversion in W shows the domain: superpixels that it misses, and what a parser finds besides the face, are
    foreign. With the mask m (1 in the domain) at the size of the feature map f of ``layer``, the image is rendered
    with ``f m + offset (1 - m)``. The loss outside of the domain moves the offset, that inside moves all weights.

    Args:
        start: Embedder that finds the codes; or ``average`` or ``random``.
        coarse: Method that makes the coarse inversion. Official code: StyleGAN2's projector, 40 steps in W.
        layer: Feature map that is replaced. Official code: that of the block of 128 px.
        steps: Number of steps.
        weight_steps: Number of first steps in which the weights move too.
        feature_lr: Learning rate of Adam on the offset.
        weight_lr: Learning rate of Adam on all weights of the synthesis network.
        pixel: Weight of the mean squared error.
        perceptual: Weight of the perceptual distance.
        sum_channels: Divide squared errors by the pixels of the region, and not by their channels too.
        rules: Thresholds of the superpixels' distances.
        superpixels: Divides the images.
        parser: Maps images to probabilities of `regions.domain_mask.CLASSES`, (B, 19, H, W); None without one. A mask
            (1 in the domain) takes its place.
        rank: Rank of the difference that is kept of each tuned weight; None keeps all of it.
        **kwargs: See :class:`PerImageMethod`.
    """

    takes_mask = True
    tunes_weights = True

    def __init__(
        self,
        *,
        coarse: PerImageMethod,
        layer: str = "b128",
        steps: int = 100,
        weight_steps: int = 50,
        feature_lr: float = 9e-2,
        weight_lr: float = 1.5e-3,
        pixel: float = 1.0,
        perceptual: float = 1.0,
        sum_channels: bool = False,
        rules: DomainRules | None = None,
        superpixels: Superpixels | None = None,
        parser: nn.Module | None = None,
        rank: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.layer = one_of("method.layer", layer, self.generator.synthesis.feature_names()[:-1])
        self.steps = whole_number("method.steps", steps)
        self.weight_steps = whole_number("method.weight_steps", weight_steps, least=0)
        self.feature_lr, self.weight_lr = feature_lr, weight_lr
        self.pixel, self.perceptual, self.sum_channels = pixel, perceptual, sum_channels
        self.rules, self.superpixels = rules or DomainRules(), superpixels or Superpixels()
        self.rank = None if rank is None else whole_number("method.rank", rank)
        check_embedder(self, coarse)
        self.coarse, self.parser = Frozen(coarse), None if parser is None else Frozen(parser)

    def starting_methods(self) -> list[InversionMethod]:  # noqa: D102
        return [*super().starting_methods(), self.coarse.network]

    def start_from(self, start: str | InversionMethod) -> None:  # noqa: D102
        if isinstance(start, InversionMethod):
            check_embedder(self, start)
        super().start_from(start)

    def run(self, inputs: InputImages, monitor: Monitor) -> OptimizedInversion:
        """Finds codes and masks, then refines each image; the state holds the images that are finished."""
        images = inputs.image
        state = monitor.load(RefinementState, images.device) or self._begin(inputs, monitor)
        for row in range(len(state.refined), len(images)):
            started = time.monotonic()
            with self.generator.of_image(row):
                state.refined.append(self._refine(images[row : row + 1], state, row, monitor))
            state.seconds += time.monotonic() - started
            monitor.save(state)
        return self._result(state)

    @torch.no_grad()
    def masks(self, images: Tensor, coarse: Tensor, parsing: Tensor | None = None) -> Tensor:
        """Returns what the generator can make, (B, 1, H, W).

        Args:
            images: (B, 3, H, W).
            coarse: Their coarse inversions at the same size.
            parsing: Mask (B, 1, H, W) that takes the place of the parser; None without one.
        """
        network = self.coarse.network.features.network
        maps = network.distance_maps(network.maps(coarse), network.maps(images))
        labels = self.superpixels(images)
        probabilities = None if self.parser is None or parsing is not None else self.parser.network(images)
        found = []
        for row, numbers in enumerate(labels):
            own = None if probabilities is None else probabilities[row]
            found.append(domain_mask([m[row, 0] for m in maps], numbers, self.rules, own).mask)
        mask = torch.stack(found)[:, None].to(images)
        return mask if parsing is None else mask * parsing

    def refinement_losses(
        self, image: Tensor, target: Tensor, features: Sequence[Tensor], mask: Tensor
    ) -> tuple[Tensor, Tensor]:
        """Returns the loss outside and the loss inside of the domain.

        Args:
            image: Reconstruction (1, 3, H, W).
            target: The image.
            features: Its feature maps.
            mask: 1 in the domain, (1, 1, H, W).
        """
        network = self.features.network
        maps = network.distance_maps(network.maps(image), features)
        error = (image - target).square()
        error = error.sum(1, keepdim=True) if self.sum_channels else error.mean(1, keepdim=True)
        # The maps see the mask at the size of the feature map, as in the official code.
        small = self._small(mask)
        losses = []
        for inside in (False, True):
            loss = self.pixel * _mean(error, mask if inside else 1 - mask)
            for distances in maps:
                own = F.interpolate(small, distances.shape[-2:], mode="nearest")
                loss = loss + self.perceptual * _mean(distances, own if inside else 1 - own)
            losses.append(loss)
        return losses[0], losses[1]

    def _begin(self, inputs: InputImages, monitor: Monitor) -> RefinementState:
        started, images = time.monotonic(), inputs.image
        own = dataclasses.replace(
            monitor, state_file=None if monitor.state_file is None else monitor.state_file.with_suffix(".coarse")
        )
        coarse = self.coarse.network.optimize(images, monitor=own)
        with torch.no_grad():
            w, noise = self._codes(images)
        mask = self.masks(images, pool(coarse.image, images.shape[-1]), inputs.mask)
        maps = noise or [m.expand(len(images), -1, -1, -1) for m in self.generator.synthesis.noise_maps()]
        seconds = time.monotonic() - started
        return RefinementState(w.clone(), [m.clone() for m in maps], noise is not None, mask, seconds=seconds)

    def _codes(self, images: Tensor) -> tuple[Tensor, list[Tensor] | None]:
        if isinstance(self.start, Frozen):
            return codes_alone(self, self.start.network, self.start.network.invert(images))
        return self.constant_codes(len(images)), None

    def _refine(self, image: Tensor, state: RefinementState, row: int, monitor: Monitor) -> Refined:
        network, size, one = self.features.network, image.shape[-1], slice(row, row + 1)
        w, noise, mask = state.w[one], [m[one] for m in state.noise], state.mask[one]
        small = self._small(mask)
        with torch.no_grad():
            target = network.maps(image)
            offset = self.generator.synthesis(w, noise=noise, upto=self.layer).clone().requires_grad_()
        synthesis = copy.deepcopy(self.generator.synthesis).requires_grad_()
        weights = list(synthesis.parameters())
        of_offset = torch.optim.Adam([offset], lr=self.feature_lr)
        of_weights = torch.optim.Adam(weights, lr=self.weight_lr)
        curve = []
        for step in range(self.steps):
            tunes = step < self.weight_steps
            if step == self.weight_steps:
                synthesis.requires_grad_(False)  # the fast path takes over
            change = {self.layer: (small, offset * (1 - small))}
            outside, inside = self.refinement_losses(
                pool(synthesis(w, noise=noise, features=change), size), image, target, mask
            )
            curve.append(float((outside + inside).detach()))
            (offset.grad,) = torch.autograd.grad(outside, [offset], retain_graph=tunes)
            if tunes:
                gradients = torch.autograd.grad(inside, weights, allow_unused=True)
                for parameter, gradient in zip(weights, gradients, strict=True):
                    parameter.grad = gradient
                of_weights.step()
            of_offset.step()
            if monitor.report is not None and (step + 1) % _REPORT_EVERY_STEPS == 0:
                monitor.report(Progress(f"refining {row + 1}/{len(state.w)}", step + 1, self.steps, 1, curve[-1]))
        difference = compress(self.generator.synthesis, synthesis, self.rank)
        return Refined(offset.detach(), dict(difference), torch.tensor(curve, device=image.device))

    @torch.no_grad()
    def _result(self, state: RefinementState) -> OptimizedInversion:
        noise, small = state.noise, self._small(state.mask)
        feature = torch.cat([one.feature for one in state.refined]) * (1 - small)
        changes: dict[str, FeatureChange] = {self.layer: (small, feature)}
        differences = [one.difference for one in state.refined]
        weights = {name: torch.stack([one[name] for one in differences]) for name in differences[0]}
        before = self.generator.synthesis(state.w, noise=noise)
        image = self.generator.synthesis(
            state.w, noise=noise, features=changes, weights=LowRankDifference(weights, self.generator.synthesis)
        )
        return OptimizedInversion(
            state.w,
            image,
            steps=[Step(state.w, before, name="start"), Step(state.w, image, name="refined")],
            noise=noise if state.own_noise else None,
            features=changes,
            weights=weights,
            curves={"refinement": torch.stack([one.curve for one in state.refined], dim=1)},
            seconds=state.seconds,
        )

    def _small(self, mask: Tensor) -> Tensor:
        """Returns a mask (B, 1, H, W) at the size of the feature map."""
        return F.adaptive_avg_pool2d(mask, (self._feature_size(), self._feature_size()))

    def _feature_size(self) -> int:
        return int(self.layer.split(".")[0].removeprefix("b"))


def _mean(values: Tensor, mask: Tensor) -> Tensor:
    """Returns the mean of values (1, 1, h, w) weighted by a mask; 0 where the mask is empty."""
    return (values * mask).sum() / mask.sum().clamp_min(1e-6)
