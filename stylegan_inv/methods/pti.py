"""Pivotal Tuning for Latent-based Editing of Real Images.

Daniel Roich, Ron Mokady, Amit H. Bermano, Daniel Cohen-Or, ACM Transactions on Graphics 2022, arXiv 2106.05744.
Official code: danielroich/PTI, commit da94d59.

Differences: the pivot comes from any method; what is kept of a tuned generator is a small difference to the shared one
(`generators.difference`), and the picture that is returned is rendered from it, so it is what can be had again later.
"""

from __future__ import annotations

import copy
import dataclasses
import time
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.variants.difference import Difference, compress, tuned
from stylegan_inv.losses.features import Features
from stylegan_inv.methods.common.base import Inversion, InversionMethod, Step, pool
from stylegan_inv.methods.common.per_image import FIRST_STEP, Optimised, PerImageMethod, check_same_generator
from stylegan_inv.optim.descent import State, Watch, draw
from stylegan_inv.utils.frozen_module import Frozen


@dataclass
class Locality:
    """Keeps codes away from the pivot as they were (section 3.3). Off by default, as in the official code.

    Attributes:
        weight: of its pixel and its perceptual term (official code: 0.1).
        distance: from the pivot, over all rows and dimensions of the code (official code: 30, for 18 x 512).
        psi: truncation of the random codes that give the direction.
        every_steps: how often.
    """

    weight: float = 0.1
    distance: float = 30.0
    psi: float = 0.5
    every_steps: int = 1


class PTI(InversionMethod):
    """Tune the generator around each image's pivot until the picture is near enough (algorithm of section 3.2).

    Args:
        features: What pictures are compared by.
        start: The method that the pivot comes from.
        steps: At most (the official code: 350).
        rate: Learning rate of Adam on all of the synthesis network (the official code: 3e-4).
        pixel: Weight of the mean squared error.
        perceptual: Weight of the perceptual distance.
        goal: The perceptual distance that is near enough (the official code: LPIPS 0.06); None: all steps.
        locality: None: off.
        rank: Of the difference that is kept of each convolution and style layer.
        seed: Of the locality's codes.
        **kwargs: See :class:`InversionMethod`.
    """

    def __init__(
        self,
        *,
        features: Features,
        start: InversionMethod,
        steps: int = 350,
        rate: float = 3e-4,
        pixel: float = 1.0,
        perceptual: float = 1.0,
        goal: float | None = 0.06,
        locality: Locality | None = None,
        rank: int = 16,
        seed: int = 0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        for name, value in (("steps", steps), ("rank", rank)):
            if value < 1:
                raise UserError(f"method.{name}={value}: expected a whole number of at least 1")
        self.features = Frozen(features)
        self.steps, self.rate, self.pixel, self.perceptual, self.goal = steps, rate, pixel, perceptual, goal
        self.locality, self.rank, self.seed = locality, rank, seed
        self.start_from(start)

    def start_from(self, start: InversionMethod) -> None:
        """Set where the pivots come from.

        Raises:
            UserError: Its generator is another.
        """
        check_same_generator(self, start)
        self.start = Frozen(start)

    def invert(self, images: Tensor, watch: Watch | None = None) -> Optimised:
        """Find pivots, then tune a generator for each image (B, 3, H, W); finished images are kept in the file."""
        watch = watch or Watch()
        with torch.inference_mode(False), torch.enable_grad():
            images = images.detach().clone()
            state = None if watch.file is None else State.load(watch.file, watch.key, images.device)
            state = state or self._pivots(images, watch)
            for row in range(state.stage, len(images)):
                started = time.monotonic()
                difference, curve = self._tune(images[row : row + 1], state, row, watch)
                state.kept.update({f"{row:04d}|{name}": tensor for name, tensor in difference.items()})
                state.curves.append(curve[:, None])
                state.stage, state.seconds = row + 1, state.seconds + time.monotonic() - started
                if watch.file is not None:
                    state.save(watch.file, watch.key)
            return self._result(state)

    def _pivots(self, images: Tensor, watch: Watch) -> State:
        started, method = time.monotonic(), self.start.network
        if isinstance(method, PerImageMethod):
            file = None if watch.file is None else watch.file.with_suffix(".pivot")
            pivot: Inversion = method.invert(images, watch=dataclasses.replace(watch, file=file))
        else:
            with torch.no_grad():
                pivot = method.invert(images)
        if pivot.weights is not None:
            raise UserError("method.start: it tunes the generator itself; give a method that finds codes")
        maps = pivot.noise or [m.expand(len(images), -1, -1, -1) for m in self.generator.synthesis.noise_maps()]
        variables = {f"noise{k:02d}": m.detach().clone() for k, m in enumerate(maps)}
        return State({"w": pivot.w.detach().clone(), **variables}, seconds=time.monotonic() - started)

    def _tune(self, image: Tensor, state: State, row: int, watch: Watch) -> tuple[Difference, Tensor]:
        network, size = self.features.network, image.shape[-1]
        w, noise = self._pivot_of(state, row)
        synthesis = copy.deepcopy(self.generator.synthesis).requires_grad_()
        optimizer = torch.optim.Adam(synthesis.parameters(), lr=self.rate)
        with torch.no_grad():
            target = network.maps(image)
        curve: list[float] = []
        for step in range(self.steps):
            picture = pool(synthesis(w, noise=noise), size)
            perceptual = network.distance(network.maps(picture), target).sum()
            loss = self.perceptual * perceptual + self.pixel * (picture - image).square().mean()
            curve.append(float(loss.detach()))
            # As in the official code, the loss before the step decides.
            if self.goal is not None and float(perceptual.detach()) <= self.goal:
                break
            if self.locality is not None and step % self.locality.every_steps == 0:
                loss = loss + self._locality(self.locality, synthesis, w, step)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()
            optimizer.step()
            if watch.report is not None and (step + 1) % 10 == 0:
                watch.report(f"tuning {row + 1}/{len(state.variables['w'])}", step + 1, self.steps, 1, curve[-1])
        difference = compress(self.generator.synthesis, synthesis, self.rank)
        return difference, torch.tensor(curve, device=image.device)

    def _locality(self, locality: Locality, synthesis: torch.nn.Module, w: Tensor, step: int) -> Tensor:
        z = draw(self.seed, FIRST_STEP + step, 1, self.generator.z_dim, like=w)
        with torch.no_grad():
            away = self.generator.mapping(z, psi=locality.psi) - w
            code = w + locality.distance * away / away.norm()
            before = self.generator.synthesis(code, noise="none")
            maps = self.features.network.maps(before)
        after = synthesis(code, noise="none")
        network = self.features.network
        moved: Tensor = (after - before).square().mean() + network.distance(network.maps(after), maps).sum()
        return locality.weight * moved

    def _pivot_of(self, state: State, row: int) -> tuple[Tensor, list[Tensor]]:
        names = sorted(name for name in state.variables if name.startswith("noise"))
        return state.variables["w"][row : row + 1], [state.variables[name][row : row + 1] for name in names]

    @torch.no_grad()
    def _result(self, state: State) -> Optimised:
        before, after, rows = [], [], []
        for row in range(len(state.variables["w"])):
            w, noise = self._pivot_of(state, row)
            start = f"{row:04d}|"
            difference = {name[len(start) :]: t for name, t in state.kept.items() if name.startswith(start)}
            rows.append(difference)
            before.append(self.generator.synthesis(w, noise=noise))
            after.append(tuned(self.generator, difference).synthesis(w, noise=noise))
        w, image = state.variables["w"], torch.cat(after)
        longest = max(len(curve) for curve in state.curves)
        curve = torch.full((longest, len(w)), torch.nan)
        for row, single in enumerate(state.curves):
            curve[: len(single), row] = single[:, 0]
        own = [m.expand(len(w), -1, -1, -1) for m in self.generator.synthesis.noise_maps()]
        noise = [state.variables[f"noise{k:02d}"] for k in range(len(own))]
        return Optimised(
            w,
            image,
            steps=[Step(w, torch.cat(before), name="pivot"), Step(w, image, name="tuned")],
            noise=None if all(map(torch.equal, noise, own)) else noise,
            weights={name: torch.stack([row[name] for row in rows]) for name in rows[0]},
            curves={"tuning": curve},
            seconds=state.seconds,
        )
