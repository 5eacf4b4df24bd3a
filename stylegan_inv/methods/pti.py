"""Pivotal Tuning for Latent-based Editing of Real Images.

Daniel Roich, Ron Mokady, Amit H. Bermano, Daniel Cohen-Or, ACM Transactions on Graphics 2022, arXiv 2106.05744.
Official code: danielroich/PTI, commit da94d59.

Differences: the pivot comes from any method. Of each tuned generator, a low-rank difference to the shared generator is
kept (`generators.variants.low_rank_difference`), and the returned reconstruction is rendered with it, so that it can be
rendered again later.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from stylegan_inv.errors import UserError
from stylegan_inv.generators.variants.low_rank_difference import LowRankDifference, compress
from stylegan_inv.methods.common.base import InversionMethod, Step, pool
from stylegan_inv.methods.common.per_image import FIRST_STEP_STREAM, InputImages, OptimizedInversion, PerImageMethod
from stylegan_inv.methods.common.starting_points import codes_alone
from stylegan_inv.optim.optimization_state import Monitor, Progress
from stylegan_inv.optim.per_image_optimization import seeded_randn
from stylegan_inv.utils.checks import whole_number

#: Steps between two reports of the progress.
_REPORT_EVERY_STEPS = 10


@dataclass
class Locality:
    """The locality regularisation (section 3.3): keeps the images of other codes as they were.

    Off by default, as in the official code.

    Attributes:
        weight: Weight of its pixel and its perceptual term. Official code: 0.1.
        distance: Distance of the regularised codes from the pivot, over all rows and dimensions of the code. Official
            code: 30, for 18 x 512.
        psi: Truncation of the random codes that give the direction.
        every_steps: Steps between two uses of the regularisation.
    """

    weight: float = 0.1
    distance: float = 30.0
    psi: float = 0.5
    every_steps: int = 1


@dataclass
class TunedGenerator:
    """The generator that was tuned for one image.

    Attributes:
        difference: Compressed difference to the shared generator.
        curve: Losses (steps,) before each step.
    """

    difference: dict[str, Tensor]
    curve: Tensor


@dataclass
class TuningState:
    """The state of a batch whose images are tuned one after another.

    Attributes:
        w: Pivots in W+, (B, L, D).
        noise: Noise maps of the pivots, (B, 1, r, r) for each layer.
        tuned: Results of the images that are finished.
        seconds: Time spent so far, in all runs together.
    """

    w: Tensor
    noise: list[Tensor]
    tuned: list[TunedGenerator] = field(default_factory=list)
    seconds: float = 0.0

    def pivot(self, row: int) -> tuple[Tensor, list[Tensor]]:
        """Returns the pivot of one image, (1, L, D), and its noise maps."""
        return self.w[row : row + 1], [m[row : row + 1] for m in self.noise]


class PTI(PerImageMethod):
    """Tunes the generator around the pivot of each image until the reconstruction is close enough (section 3.2).

    Args:
        start: Method that finds the pivots.
        steps: Largest number of steps. Official code: 350.
        lr: Learning rate of Adam on all weights of the synthesis network. Official code: 3e-4.
        pixel: Weight of the mean squared error.
        perceptual: Weight of the perceptual distance.
        distance_threshold: Perceptual distance at which tuning stops. Official code: LPIPS 0.06. None takes all steps.
        locality: The locality regularisation; None leaves it out.
        rank: Rank of the difference that is kept of each convolution and style layer.
        **kwargs: See :class:`PerImageMethod`.
    """

    tunes_weights = True

    def __init__(
        self,
        *,
        start: InversionMethod,
        steps: int = 350,
        lr: float = 3e-4,
        pixel: float = 1.0,
        perceptual: float = 1.0,
        distance_threshold: float | None = 0.06,
        locality: Locality | None = None,
        rank: int = 16,
        **kwargs: Any,
    ) -> None:
        super().__init__(start=start, **kwargs)
        self.steps, self.rank = whole_number("method.steps", steps), whole_number("method.rank", rank)
        self.lr, self.pixel, self.perceptual = lr, pixel, perceptual
        self.distance_threshold, self.locality = distance_threshold, locality

    def start_from(self, start: str | InversionMethod) -> None:
        """Sets the method that finds the pivots.

        Raises:
            UserError: Not a method, or a method of another generator.
        """
        if not isinstance(start, InversionMethod):
            raise UserError(f"method.start={start!r}: expected a method or the folder of a run, which finds the pivots")
        super().start_from(start)

    def run(self, inputs: InputImages, monitor: Monitor) -> OptimizedInversion:
        """Finds the pivots, then tunes a generator for each image; the state holds the images that are finished."""
        images = inputs.image
        state = monitor.load(TuningState, images.device) or self._find_pivots(images, monitor)
        for row in range(len(state.tuned), len(images)):
            started = time.monotonic()
            with self.generator.of_image(row):
                state.tuned.append(self._tune(images[row : row + 1], state, row, monitor))
            state.seconds += time.monotonic() - started
            monitor.save(state)
        return self._result(state)

    def _find_pivots(self, images: Tensor, monitor: Monitor) -> TuningState:
        started, method = time.monotonic(), self.start.network  # type: ignore[union-attr]
        if isinstance(method, PerImageMethod):
            file = monitor.state_file
            own = dataclasses.replace(monitor, state_file=None if file is None else file.with_suffix(".pivot"))
            found = method.optimize(images, monitor=own)
        else:
            with torch.no_grad():
                found = method.invert(images)
        codes_alone(self, method, found)
        noise = found.noise or [m.expand(len(images), -1, -1, -1) for m in self.generator.synthesis.noise_maps()]
        return TuningState(
            found.w.detach().clone(), [m.detach().clone() for m in noise], seconds=time.monotonic() - started
        )

    def _tune(self, image: Tensor, state: TuningState, row: int, monitor: Monitor) -> TunedGenerator:
        network, size = self.features.network, image.shape[-1]
        w, noise = state.pivot(row)
        synthesis = copy.deepcopy(self.generator.synthesis).requires_grad_()
        optimizer = torch.optim.Adam(synthesis.parameters(), lr=self.lr)
        with torch.no_grad():
            target = network.maps(image)
        curve: list[float] = []
        for step in range(self.steps):
            reconstruction = pool(synthesis(w, noise=noise), size)
            perceptual = network.distance(network.maps(reconstruction), target).sum()
            loss = self.perceptual * perceptual + self.pixel * (reconstruction - image).square().mean()
            curve.append(float(loss.detach()))
            # As in the official code, the distance before the step decides.
            if self.distance_threshold is not None and float(perceptual.detach()) <= self.distance_threshold:
                break
            if self.locality is not None and step % self.locality.every_steps == 0:
                loss = loss + self._locality_loss(self.locality, synthesis, w, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if monitor.report is not None and (step + 1) % _REPORT_EVERY_STEPS == 0:
                monitor.report(Progress(f"tuning {row + 1}/{len(state.w)}", step + 1, self.steps, 1, curve[-1]))
        difference = compress(self.generator.synthesis, synthesis, self.rank)
        return TunedGenerator(dict(difference), torch.tensor(curve, device=image.device))

    def _locality_loss(self, locality: Locality, synthesis: nn.Module, w: Tensor, step: int) -> Tensor:
        """Returns the change of the image of a code at a fixed distance from the pivot, in a random direction."""
        network = self.features.network
        z = seeded_randn(self.seed, FIRST_STEP_STREAM + step, 1, self.generator.z_dim, like=w)
        with torch.no_grad():
            direction = self.generator.mapping(z, psi=locality.psi) - w
            code = w + locality.distance * direction / direction.norm()
            before = self.generator.synthesis(code, noise="none")
            before_features = network.maps(before)
        after = synthesis(code, noise="none")
        change: Tensor = (after - before).square().mean() + network.distance(network.maps(after), before_features).sum()
        return locality.weight * change

    @torch.no_grad()
    def _result(self, state: TuningState) -> OptimizedInversion:
        before, after = [], []
        for row, result in enumerate(state.tuned):
            w, noise = state.pivot(row)
            before.append(self.generator.synthesis(w, noise=noise))
            factors = {name: t[None] for name, t in result.difference.items()}
            weights = LowRankDifference(factors, self.generator.synthesis)
            after.append(self.generator.synthesis(w, noise=noise, weights=weights))
        image = torch.cat(after)
        own = [m.expand(len(image), -1, -1, -1) for m in self.generator.synthesis.noise_maps()]
        differences = [result.difference for result in state.tuned]
        return OptimizedInversion(
            state.w,
            image,
            steps=[Step(state.w, torch.cat(before), name="pivot"), Step(state.w, image, name="tuned")],
            noise=None if all(map(torch.equal, state.noise, own)) else state.noise,
            weights={name: torch.stack([one[name] for one in differences]) for name in differences[0]},
            curves={"tuning": _stack_curves([result.curve for result in state.tuned])},
            seconds=state.seconds,
        )


def _stack_curves(curves: list[Tensor]) -> Tensor:
    """Returns the loss curves of several images, (steps, B), filled with NaN."""
    stacked = torch.full((max(map(len, curves)), len(curves)), torch.nan)
    for row, curve in enumerate(curves):
        stacked[: len(curve), row] = curve
    return stacked
