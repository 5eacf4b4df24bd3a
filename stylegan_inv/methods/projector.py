"""The projector of StyleGAN2: the latent code and noise maps whose image is closest to a target.

"Analyzing and Improving the Image Quality of StyleGAN", Tero Karras, Samuli Laine, Miika Aittala, Janne Hellsten,
Jaakko Lehtinen, Timo Aila, CVPR 2020, arXiv 1912.04958, section 5 and appendix D.
Official code: NVlabs/stylegan2-ada-pytorch (projector.py), commit d72cc7d.

Differences: optimises a batch of images at once; starts from the generator's tracked latent average, where the official
code averages 10,000 new samples; optionally optimises in W+; takes the distance from any feature network.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.methods.common.latent_optimization import LatentOptimization
from stylegan_inv.methods.common.per_image import FIRST_STEP_STREAM, InputImages
from stylegan_inv.optim.optimization_state import Variables
from stylegan_inv.optim.per_image_optimization import EarlyStop, Stage, seeded_randn
from stylegan_inv.optim.schedules import lr_ramp
from stylegan_inv.utils.checks import one_of, real_number, whole_number


@dataclass
class ProjectorTargets:
    """What the projector compares with.

    Attributes:
        image: Target images (B, 3, H, W).
        features: Their feature maps.
    """

    image: Tensor
    features: list[Tensor]


class Projector(LatentOptimization):
    """Optimises the code from the latent average, with decaying noise on it, and regularised noise maps.

    Args:
        space: ``w``, one code for all layers, or ``w_plus``.
        steps: Number of steps.
        lr: Largest learning rate.
        lr_rampup_length: Fraction of the steps, at the start, in which the learning rate rises linearly.
        lr_rampdown_length: Fraction of the steps, at the end, in which it falls as a cosine.
        initial_noise_factor: Standard deviation of the noise on w at the start, relative to that of w.
        noise_ramp_length: Fraction of the steps in which this noise decays to zero.
        regularize_noise_weight: Weight of `autocorrelation`.
        pixel: Weight of the mean squared error. Paper: none.
        w_avg_samples: Number of codes from which the standard deviation of w is estimated.
        early_stop: When an image stops before the last step. Paper: never.
        **kwargs: See :class:`LatentOptimization`.
    """

    def __init__(
        self,
        *,
        space: str = "w",
        steps: int = 1000,
        lr: float = 0.1,
        lr_rampup_length: float = 0.05,
        lr_rampdown_length: float = 0.25,
        initial_noise_factor: float = 0.05,
        noise_ramp_length: float = 0.75,
        regularize_noise_weight: float = 1e5,
        pixel: float = 0.0,
        w_avg_samples: int = 10000,
        early_stop: EarlyStop | None = None,
        noise_start: str = "random",
        **kwargs: Any,
    ) -> None:
        self.space = one_of("method.space", space, ("w", "w_plus"))
        self.steps = whole_number("method.steps", steps)
        super().__init__(noise_start=noise_start, **kwargs)
        self.lr = real_number("method.lr", lr, above=0)
        self.lr_rampup_length = real_number("method.lr_rampup_length", lr_rampup_length, least=0, most=1)
        self.lr_rampdown_length = real_number("method.lr_rampdown_length", lr_rampdown_length, least=0, most=1)
        self.initial_noise_factor, self.noise_ramp_length = initial_noise_factor, noise_ramp_length
        self.regularize_noise_weight, self.pixel = regularize_noise_weight, pixel
        self.w_avg_samples, self.early_stop = w_avg_samples, early_stop or EarlyStop()
        self._w_std: float | None = None

    def code_rows(self) -> int:
        """Returns 1 in W, L in W+."""
        return 1 if self.space == "w" else self.generator.num_ws

    def stage_names(self) -> list[str]:
        """Returns the name of the only stage."""
        return ["W" if self.space == "w" else "W+"]

    def stage(self, index: int, inputs: InputImages, initial_image: Tensor) -> Stage[ProjectorTargets]:
        """Returns the only stage."""
        with torch.no_grad():
            targets = ProjectorTargets(inputs.image, self.features.network.maps(inputs.image))
        return Stage(
            name=self.stage_names()[index],
            steps=self.steps,
            variables=("w", "noise"),
            loss=self._loss,
            targets=targets,
            lr=lambda step: self.lr * lr_ramp(step / self.steps, self.lr_rampup_length, self.lr_rampdown_length),
            early_stop=self.early_stop,
            project=self._normalize_noise,
        )

    def w_noise_scale(self, step: int) -> float:
        """Returns the standard deviation of the noise on w at a step."""
        decay = max(0.0, 1.0 - step / self.steps / self.noise_ramp_length) if self.noise_ramp_length else 0.0
        return self.w_std() * self.initial_noise_factor * decay**2

    @torch.no_grad()
    def w_std(self) -> float:
        """Returns the root mean squared distance of w from the latent average, with the norm over all D dimensions."""
        if self._w_std is None:
            # Of all classes where each image has a class of its own, so that the result is the same for all batches.
            average = self.generator.mapping.w_avg if self.generator.class_per_image else self.generator.w_avg
            z = seeded_randn(self.seed, 0, self.w_avg_samples, self.generator.z_dim, like=average)
            w = torch.cat([self.generator.mapping.w(part) for part in z.split(1000)])
            self._w_std = float((w - average).square().sum(1).mean().sqrt())
        return self._w_std

    def _loss(self, variables: Variables, targets: ProjectorTargets, step: int) -> dict[str, Tensor]:
        w, network = variables["w"], self.features.network
        w_noise = seeded_randn(self.seed, FIRST_STEP_STREAM + step, 1, *w.shape[1:], like=w)
        noisy = w + self.w_noise_scale(step) * w_noise
        image = self.render({**variables, "w": noisy}, targets.image.shape[-1])
        terms = {"distance": network.distance(network.maps(image), targets.features)}
        terms["noise"] = torch.stack([autocorrelation(m) for m in self.noise_maps(variables)]).sum(0)
        total = terms["distance"] + self.regularize_noise_weight * terms["noise"]
        if self.pixel:
            terms["pixel"] = (image - targets.image).square().mean((1, 2, 3))
            total = total + self.pixel * terms["pixel"]
        return {**terms, "total": total}

    def _normalize_noise(self, variables: Variables) -> None:
        """Normalises every map to mean 0 and variance 1."""
        for part in variables["noise"].split([layer.resolution**2 for layer in self.generator.synthesis.layers()], 1):
            part -= part.mean(1, keepdim=True)
            part *= part.square().mean(1, keepdim=True).rsqrt()


def autocorrelation(maps: Tensor) -> Tensor:
    """Returns the noise regularisation of the paper's appendix D, (B,): zero in expectation for white noise.

    Sums the squared mean products of adjacent values along both axes, over the map and its 2 x 2 averages down to 8 px.

    Args:
        maps: Noise maps (B, 1, r, r).
    """
    value = maps.new_zeros(len(maps))
    while True:
        for dimension in (2, 3):
            value = value + (maps * maps.roll(1, dimension)).mean((1, 2, 3)).square()
        if maps.shape[-1] <= 8:
            return value
        maps = F.avg_pool2d(maps, 2)
