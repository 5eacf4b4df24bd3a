"""StyleGAN2's projector: the code, and noise maps, whose picture is nearest to an image.

"Analyzing and Improving the Image Quality of StyleGAN", Tero Karras, Samuli Laine, Miika Aittala, Janne Hellsten,
Jaakko Lehtinen, Timo Aila, CVPR 2020, arXiv 1912.04958, section 5 and appendix D.
Official code: NVlabs/stylegan2-ada-pytorch (projector.py), commit d72cc7d.

Differences: many images at once; starts from the generator's tracked average of w, where the official code averages
10,000 new samples; W+ on request; the distance is that of any feature network.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.errors import UserError
from stylegan_inv.methods.common.per_image import FIRST_STEP, PerImageMethod
from stylegan_inv.optim.descent import EarlyStop, Stage, Variables, draw


class Projector(PerImageMethod):
    """Descend from the average code while noise on the code fades, and keep the noise maps free of signal.

    Args:
        space: ``w``, one code for all layers, or ``w_plus``.
        steps: Steps.
        rate: Largest learning rate.
        ramp_up: Share of the steps in which the rate rises linearly.
        ramp_down: Share at the end in which it falls as a cosine.
        code_noise: Standard deviation of the noise on w at the start, in units of that of w.
        code_noise_share: Share of the steps after which there is none.
        noise_regularization: Weight of `autocorrelation`.
        pixel: Weight of the mean squared error (the paper: none).
        samples: Codes that tell the standard deviation of w.
        stop: When an image is done early; never in the paper.
        **kwargs: See :class:`PerImageMethod`.
    """

    def __init__(
        self,
        *,
        space: str = "w",
        steps: int = 1000,
        rate: float = 0.1,
        ramp_up: float = 0.05,
        ramp_down: float = 0.25,
        code_noise: float = 0.05,
        code_noise_share: float = 0.75,
        noise_regularization: float = 1e5,
        pixel: float = 0.0,
        samples: int = 10000,
        stop: EarlyStop | None = None,
        noise_start: str = "random",
        **kwargs: Any,
    ) -> None:
        if space not in ("w", "w_plus"):
            raise UserError(f"method.space={space}: expected w or w_plus")
        if steps < 1:
            raise UserError(f"method.steps={steps}: expected a whole number of at least 1")
        super().__init__(noise_start=noise_start, **kwargs)
        self.space, self.steps, self.rate = space, steps, rate
        self.ramp_up, self.ramp_down = ramp_up, ramp_down
        self.code_noise, self.code_noise_share, self.samples = code_noise, code_noise_share, samples
        self.noise_regularization, self.pixel, self.stop = noise_regularization, pixel, stop or EarlyStop()
        self._deviation: float | None = None

    def code_rows(self) -> int:  # noqa: D102
        return 1 if self.space == "w" else self.generator.num_ws

    def stage(self, number: int, given: Mapping[str, Any], before: Tensor) -> Stage:  # noqa: D102
        return Stage(
            name="W" if self.space == "w" else "W+",
            steps=self.steps,
            vary=("w", "noise"),
            loss=self._loss,
            given=given,
            rate=lambda step: self.rate * rate_ramp(step / self.steps, self.ramp_up, self.ramp_down),
            stop=self.stop,
            after=self._normalize,
        )

    def code_noise_at(self, step: int) -> float:
        """Standard deviation of the noise on w at a step."""
        fade = max(0.0, 1.0 - step / self.steps / self.code_noise_share) if self.code_noise_share else 0.0
        return self.w_deviation() * self.code_noise * fade**2

    @torch.no_grad()
    def w_deviation(self) -> float:
        """Root of the mean squared distance of w to its average (the norm over all D, as in the official code)."""
        if self._deviation is None:
            average = self.generator.w_avg
            z = draw(self.seed, 0, self.samples, self.generator.z_dim, like=average)
            w = torch.cat([self.generator.mapping.w(part) for part in z.split(1000)])
            self._deviation = float((w - average).square().sum(1).mean().sqrt())
        return self._deviation

    def _loss(self, variables: Variables, given: Mapping[str, Any], step: int) -> dict[str, Tensor]:
        w = variables["w"]
        noisy = w + self.code_noise_at(step) * draw(self.seed, FIRST_STEP + step, 1, *w.shape[1:], like=w)
        picture = self.render({**variables, "w": noisy}, given["target"].shape[-1])
        network = self.features.network
        terms = {"distance": network.distance(network.maps(picture), given["features"])}
        terms["noise"] = torch.stack([autocorrelation(m) for m in self.maps(variables)]).sum(0)
        total = terms["distance"] + self.noise_regularization * terms["noise"]
        if self.pixel:
            terms["pixel"] = (picture - given["target"]).square().mean((1, 2, 3))
            total = total + self.pixel * terms["pixel"]
        return {**terms, "total": total}

    def _normalize(self, variables: Variables) -> None:
        """Bring every map to mean 0 and variance 1."""
        for part in variables["noise"].split([layer.resolution**2 for layer in self.generator.synthesis.layers()], 1):
            part -= part.mean(1, keepdim=True)
            part *= part.square().mean(1, keepdim=True).rsqrt()


def rate_ramp(t: float, up: float, down: float) -> float:
    """Share of the learning rate at ``t`` in [0, 1): rises linearly, falls as a cosine."""
    falling = 0.5 - 0.5 * math.cos(math.pi * min(1.0, (1.0 - t) / down)) if down else 1.0
    return falling * (min(1.0, t / up) if up else 1.0)


def autocorrelation(maps: Tensor) -> Tensor:
    """How much signal noise maps carry (equation 4 of the paper's appendix), (B,): zero for white noise.

    Squared mean products of neighbours along both axes, on maps averaged down again and again to 8 px.

    Args:
        maps: (B, 1, r, r).
    """
    value = maps.new_zeros(len(maps))
    while True:
        for dimension in (2, 3):
            value = value + (maps * maps.roll(1, dimension)).mean((1, 2, 3)).square()
        if maps.shape[-1] <= 8:
            return value
        maps = F.avg_pool2d(maps, 2)
