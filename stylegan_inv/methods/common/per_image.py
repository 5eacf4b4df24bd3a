"""What the methods that optimise each image share: variables, starting points, stages, snapshots, continuing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor

from stylegan_inv.data.images.image_files import from_uint8, to_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.losses.features import Features
from stylegan_inv.methods.common.base import Inversion, InversionMethod, Step, pool
from stylegan_inv.optim.descent import Stage, State, Variables, Watch, descend, draw
from stylegan_inv.utils.frozen_module import Frozen

Loss = Callable[[Variables, Mapping[str, Any], int], dict[str, Tensor]]
_START, _NOISE = 1, 2  # streams of random numbers beside those of the steps, which count from 16
FIRST_STEP = 16


@dataclass
class Optimised(Inversion):
    """An inversion with its history.

    Attributes:
        curves: Stage -> losses (steps, B) before each step; NaN where an image had stopped.
        seconds: Spent on the batch, over all sittings.
    """

    curves: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0


def check_same_generator(method: InversionMethod, start: InversionMethod) -> None:
    """Raises UserError unless both methods speak about the codes of one generator."""
    own, other = method.generator, start.generator
    if (own.num_ws, own.w_dim, own.source_hash) != (other.num_ws, other.w_dim, other.source_hash):
        raise UserError(
            f"method.start: its generator is {str(other.source_hash)[:12]} ({other.resolution} px), expected "
            f"{str(own.source_hash)[:12]} ({own.resolution} px); give generator=… the one it was trained with"
        )


def take_rows(found: Optimised, rows: slice) -> Optimised:
    """The same for some of the images."""
    return Optimised(
        found.w[rows],
        found.image[rows],
        steps=[Step(step.w[rows], step.image[rows], step.name) for step in found.steps or []],
        noise=None if found.noise is None else [m[rows] for m in found.noise],
        curves={name: curve[:, rows] for name, curve in found.curves.items()},
        seconds=found.seconds,
    )


class PerImageMethod(InversionMethod):
    """Base of methods that find codes by gradient descent, with the generator and everything else frozen.

    A subclass says how many ``stages`` there are and writes :meth:`stage`. The variables are ``w`` (B, 1 or L, D) and
    ``noise`` (B, N), all maps of an image in one row.

    Args:
        features: What pictures are compared by.
        start: ``average``, ``random`` (one code for all images) or another method, whose
            codes (and noise maps, if it has any) are the start.
        seed: Of everything random.
        snapshots: Pictures of the way that are kept of each stage (8 bits), beside its end.
        noise_start: ``const``, the generator's stored maps, or ``random``.
        noise_floor: Strength that the noise of each layer has at least in the eyes of the optimiser, which moves
            ``map / max(1, floor / strength)``. A generator whose training has left a layer's noise without strength
            would not change with maps of ordinary size. 0 moves the maps themselves.
        **kwargs: See :class:`InversionMethod`.
    """

    stages = 1

    def __init__(
        self,
        *,
        features: Features,
        start: str | InversionMethod = "average",
        seed: int = 0,
        snapshots: int = 2,
        noise_start: str = "const",
        noise_floor: float = 0.0,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if noise_start not in ("const", "random"):
            raise UserError(f"method.noise_start={noise_start}: expected const or random")
        if snapshots < 1:
            raise UserError(f"method.snapshots={snapshots}: expected a whole number of at least 1")
        self.features = Frozen(features)
        self.seed, self.snapshots, self.noise_start, self.noise_floor = seed, snapshots, noise_start, noise_floor
        self.start_from(start)

    # -- what a method defines ---------------------------------------------------------------------------------

    def stage(self, number: int, given: Mapping[str, Any], before: Tensor) -> Stage:
        """Stage ``number``, for what `prepare` gave and the picture (B, 3, R, R) that the stage before ended with."""
        raise NotImplementedError

    def code_rows(self) -> int:
        """Rows of the variable ``w``: 1 searches in W, L in W+."""
        return self.generator.num_ws

    def prepare(self, images: Tensor, second: Tensor | None, mask: Tensor | None) -> dict[str, Any]:
        """Everything that does not change while the codes do."""
        if second is not None or mask is not None:
            raise UserError(f"{type(self).__name__} takes one image and no mask; method=image2stylegan_pp takes more")
        with torch.no_grad():
            return {"target": images, "features": self.features.network.maps(images)}

    # -- the same for all --------------------------------------------------------------------------------------

    def start_from(self, start: str | InversionMethod) -> None:
        """Set where the descent begins, see ``start``.

        Raises:
            UserError: no such run, or one whose generator is another.
        """
        if isinstance(start, str) and start not in ("average", "random"):
            raise UserError(f"method.start={start!r}: expected 'average', 'random' or a method")
        if isinstance(start, InversionMethod):
            check_same_generator(self, start)
        # Held: no part of this method's checkpoint.
        self.start = start if isinstance(start, str) else Frozen(start)

    def invert(
        self, images: Tensor, second: Tensor | None = None, mask: Tensor | None = None, watch: Watch | None = None
    ) -> Optimised:
        """Find codes (and noise maps) of images, each by itself.

        Args:
            images: (B, 3, H, W), RGB in [-1, 1].
            second: Another image for each, of the same shape, for methods that combine two.
            mask: (B, 1, H, W) in [0, 1], for methods that treat a region in its own way.
            watch: A file to continue from and to keep the state in, and who is told of every step.
        """
        watch = watch or Watch()
        # Validation runs in inference mode, whose tensors know no gradients.
        with torch.inference_mode(False), torch.enable_grad():
            images, second, mask = (None if t is None else t.detach().clone() for t in (images, second, mask))  # type: ignore[assignment]
            given = self.prepare(images, second, mask)
            state = None if watch.file is None else State.load(watch.file, watch.key, images.device)
            if state is None:
                state = State(self._begin(given["target"]))
            while state.stage < self.stages:
                if len(state.curves) == state.stage:
                    state.kept["before"] = self.picture(state.variables)
                stage = self.stage(state.stage, given, state.kept["before"])
                if len(state.curves) == state.stage:
                    state.enter(stage)
                descend(stage, state, watch, lambda s, stage=stage: self._keep(s, stage))  # type: ignore[misc]
                state.leave()
                self._shoot(state, f"{stage.name} {len(state.curves[-1])}")
                if watch.file is not None:
                    state.save(watch.file, watch.key)
            return self.result(state, given)

    @torch.no_grad()
    def result(self, state: State, given: Mapping[str, Any]) -> Optimised:
        """The inversion that a finished state stands for."""
        shots = sorted({name.rsplit("|", 1)[0] for name in state.kept if name.startswith("shot|")})
        steps = [
            Step(state.kept[f"{shot}|w"], from_uint8(state.kept[f"{shot}|picture"]), name=shot.split("|")[2])
            for shot in shots
        ]
        image = self.picture(state.variables)
        steps[-1].image = image
        names = [self.stage(number, given, image).name for number in range(self.stages)]
        curves = {f"{n + 1} {name}" if self.stages > 1 else name: state.curves[n] for n, name in enumerate(names)}
        moved = not torch.equal(state.variables["noise"], self._begin_noise(len(image)).to(image.device))
        return Optimised(
            self.codes(state.variables).detach(),
            image,
            steps=steps,
            noise=[m.detach() for m in self.maps(state.variables)] if moved else None,
            curves=curves,
            seconds=state.seconds,
        )

    def codes(self, variables: Variables) -> Tensor:
        """(B, L, D)."""
        return variables["w"].expand(-1, self.generator.num_ws, -1)

    def maps(self, variables: Variables) -> list[Tensor]:
        """Noise maps, (B, 1, r, r) each."""
        layers = self.generator.synthesis.layers()
        sizes = [layer.resolution for layer in layers]
        parts = variables["noise"].split([r * r for r in sizes], dim=1)
        return [p.view(-1, 1, r, r) * g for p, r, g in zip(parts, sizes, self._noise_gains(), strict=True)]

    def render(self, variables: Variables, size: int | None = None) -> Tensor:
        """The pictures of the variables, pooled to ``size``; they carry gradients."""
        picture = self.generator.synthesis(self.codes(variables), noise=self.maps(variables))
        return picture if size is None else pool(picture, size)

    @torch.no_grad()
    def picture(self, variables: Variables) -> Tensor:
        """`render` without gradients, (B, 3, R, R)."""
        return self.render(variables)

    # -- the beginning -----------------------------------------------------------------------------------------

    @torch.no_grad()
    def _begin(self, images: Tensor) -> Variables:
        batch, rows = len(images), self.code_rows()
        noise = self._begin_noise(batch).to(images.device)
        if isinstance(self.start, Frozen):
            begin = self.start.network.invert(images)
            if begin.weights is not None:
                raise UserError("method.start: it tunes the generator, whose codes mean nothing to another; use others")
            w = begin.w if rows > 1 else begin.w.mean(1, keepdim=True)
            if begin.noise is not None:
                maps = [m / g for m, g in zip(begin.noise, self._noise_gains(), strict=True)]
                noise = torch.cat([m.expand(batch, -1, -1, -1).flatten(1) for m in maps], dim=1)
        elif self.start == "average":
            w = self.generator.w_avg.expand(batch, rows, -1)
        else:
            z = draw(self.seed, _START, 1, self.generator.z_dim, like=self.generator.w_avg)
            w = self.generator.mapping(z)[:, :rows].expand(batch, -1, -1)
        return {"w": w.detach().clone(), "noise": noise.clone()}

    @torch.no_grad()
    def _begin_noise(self, batch: int) -> Tensor:
        maps = [m / g for m, g in zip(self.generator.synthesis.noise_maps(), self._noise_gains(), strict=True)]
        flat = torch.cat([m.flatten(1) for m in maps], dim=1)
        if self.noise_start == "random":
            flat = draw(self.seed, _NOISE, *flat.shape, like=flat)
        return flat.expand(batch, -1)

    def _noise_gains(self) -> list[float]:
        gains = []
        for layer in self.generator.synthesis.layers():
            strength = float(layer.noise_strength.abs().mean())
            gains.append(max(1.0, self.noise_floor / strength) if strength else 1.0)
        return gains

    # -- pictures of the way -----------------------------------------------------------------------------------

    def _keep(self, state: State, stage: Stage) -> None:
        marks = {round(stage.steps * k / self.snapshots) for k in range(self.snapshots)}
        # The start of a later stage is the end of the one before.
        if state.step in marks and (state.step or not state.stage):
            self._shoot(state, f"{stage.name} {state.step}" if state.step else "start")

    @torch.no_grad()
    def _shoot(self, state: State, caption: str) -> None:
        number = sum(name.startswith("shot|") for name in state.kept) // 2
        state.kept[f"shot|{number:04d}|{caption}|w"] = self.codes(state.variables).clone()
        state.kept[f"shot|{number:04d}|{caption}|picture"] = to_uint8(self.picture(state.variables))
