"""Gradient descent on latent codes and noise maps, in one stage or several."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from stylegan_inv.data.images.image_files import from_uint8, to_uint8
from stylegan_inv.methods.common.base import Step, pool
from stylegan_inv.methods.common.per_image import (
    NOISE_STREAM,
    InputImages,
    OptimizedInversion,
    PerImageMethod,
)
from stylegan_inv.methods.common.starting_points import codes_alone
from stylegan_inv.optim.optimization_state import Monitor, OptimizationState, Snapshot, Variables
from stylegan_inv.optim.per_image_optimization import Stage, optimize, seeded_randn
from stylegan_inv.utils.checks import one_of, whole_number
from stylegan_inv.utils.frozen_module import Frozen


class LatentOptimization(PerImageMethod):
    """Base of methods that optimise latent codes and noise maps, with the generator and all other networks frozen.

    A subclass writes :meth:`stage_names` and :meth:`stage`. The variables are ``w`` (B, 1 or L, D) and ``noise``
    (B, N), the concatenated noise maps of each image.

    Args:
        snapshots: Number of intermediate results that are kept of each stage, besides its last one.
        noise_start: ``const``, the constant maps of the generator, or ``random``.
        noise_floor: Smallest noise strength that the optimiser assumes of a layer: it moves
            ``map / max(1, noise_floor / strength)``. Where training has left the noise of a layer without strength,
            maps of ordinary size would change nothing. 0 moves the maps themselves.
        **kwargs: See :class:`PerImageMethod`.
    """

    def __init__(
        self, *, snapshots: int = 2, noise_start: str = "const", noise_floor: float = 0.0, **kwargs: Any
    ) -> None:
        super().__init__(**kwargs)
        self.snapshots = whole_number("method.snapshots", snapshots)
        self.noise_start = one_of("method.noise_start", noise_start, ("const", "random"))
        self.noise_floor = noise_floor

    # -- what a method defines ---------------------------------------------------------------------------------

    def stage_names(self) -> list[str]:
        """Returns the names of the stages, in order."""
        raise NotImplementedError

    def stage(self, index: int, inputs: InputImages, initial_image: Tensor) -> Stage[Any]:
        """Returns a stage.

        Args:
            index: Index of the stage.
            inputs: What :meth:`prepare` returns.
            initial_image: Reconstructions (B, 3, R, R) at the start of the stage.
        """
        raise NotImplementedError

    def code_rows(self) -> int:
        """Returns the number of rows of the variable ``w``: 1 optimises in W, L in W+."""
        return self.generator.num_ws

    def after_stage(self, index: int, state: OptimizationState, inputs: InputImages) -> None:
        """Called when a stage has ended; may change the variables of the state.

        Args:
            index: Index of the stage.
            state: The state, after the stage.
            inputs: What :meth:`prepare` returns.
        """

    def prepare(self, inputs: InputImages) -> InputImages:
        """Returns the images that the stages optimise, given the method's inputs."""
        return inputs

    # -- the optimisation --------------------------------------------------------------------------------------

    def run(self, inputs: InputImages, monitor: Monitor) -> OptimizedInversion:
        """Optimises all stages, or those that the monitor's file says are left."""
        inputs, names = self.prepare(inputs), self.stage_names()
        state = monitor.load(OptimizationState, inputs.image.device)
        if state is None:
            state = OptimizationState(self.initial_variables(inputs.image))
        while state.stage < len(names):
            if not state.in_stage or state.initial_image is None:
                state.initial_image = self.reconstruct(state.variables)
            stage = self.stage(state.stage, inputs, state.initial_image)
            if not state.in_stage:
                state.begin_stage(stage.variables, stage.steps)
            optimize(stage, state, monitor, lambda now, stage=stage: self._add_due_snapshot(now, stage))  # type: ignore[misc]
            state.end_stage()
            self._add_snapshot(state, f"{stage.name} {len(state.curves[-1])}")
            self.after_stage(state.stage - 1, state, inputs)
            monitor.save(state)
        return self.result(state, inputs)

    @torch.no_grad()
    def result(self, state: OptimizationState, inputs: InputImages) -> OptimizedInversion:
        """Returns the inversion of a finished state."""
        image, names = self.reconstruct(state.variables), self.stage_names()
        steps = [Step(snapshot.w, from_uint8(snapshot.image), snapshot.name) for snapshot in state.snapshots]
        steps[-1].image = image
        labels = names if len(names) == 1 else [f"{number} {name}" for number, name in enumerate(names, start=1)]
        moved = not torch.equal(state.variables["noise"], self.initial_noise(len(image)).to(image.device))
        return OptimizedInversion(
            self.codes(state.variables).detach(),
            image,
            steps=steps,
            noise=[m.detach() for m in self.noise_maps(state.variables)] if moved else None,
            curves=dict(zip(labels, state.curves, strict=True)),
            seconds=state.seconds,
        )

    def codes(self, variables: Variables) -> Tensor:
        """Returns the latent codes in W+, (B, L, D)."""
        return variables["w"].expand(-1, self.generator.num_ws, -1)

    def noise_maps(self, variables: Variables) -> list[Tensor]:
        """Returns the noise map of each layer, (B, 1, r, r)."""
        sizes = [layer.resolution for layer in self.generator.synthesis.layers()]
        parts = variables["noise"].split([r * r for r in sizes], dim=1)
        return [p.view(-1, 1, r, r) * g for p, r, g in zip(parts, sizes, self._noise_gains(), strict=True)]

    def render(self, variables: Variables, size: int | None = None) -> Tensor:
        """Returns the reconstructions with their gradients, average-pooled to ``size``."""
        image = self.generator.synthesis(self.codes(variables), noise=self.noise_maps(variables))
        return image if size is None else pool(image, size)

    @torch.no_grad()
    def reconstruct(self, variables: Variables) -> Tensor:
        """Returns the reconstructions (B, 3, R, R) without gradients."""
        return self.render(variables)

    # -- the starting point ------------------------------------------------------------------------------------

    @torch.no_grad()
    def initial_variables(self, images: Tensor) -> Variables:
        """Returns the variables of images (B, 3, H, W) before the first step."""
        batch, rows = len(images), self.code_rows()
        noise = self.initial_noise(batch).to(images.device)
        if isinstance(self.start, Frozen):
            found = self.start.network.invert(images)
            codes_alone(self, self.start.network, found)
            w = found.w if rows > 1 else found.w.mean(1, keepdim=True)
            if found.noise is not None:
                maps = [m / g for m, g in zip(found.noise, self._noise_gains(), strict=True)]
                noise = torch.cat([m.expand(batch, -1, -1, -1).flatten(1) for m in maps], dim=1)
        else:
            w = self.constant_codes(batch)[:, :rows]
        return {"w": w.detach().clone(), "noise": noise.clone()}

    @torch.no_grad()
    def initial_noise(self, batch: int) -> Tensor:
        """Returns the variable ``noise`` (B, N) before the first step, unless ``start`` is a method with noise maps."""
        maps = [m / g for m, g in zip(self.generator.synthesis.noise_maps(), self._noise_gains(), strict=True)]
        flat = torch.cat([m.flatten(1) for m in maps], dim=1)
        if self.noise_start == "random":
            flat = seeded_randn(self.seed, NOISE_STREAM, *flat.shape, like=flat)
        return flat.expand(batch, -1)

    def _noise_gains(self) -> list[float]:
        gains = []
        for layer in self.generator.synthesis.layers():
            strength = float(layer.noise_strength.abs().mean())
            gains.append(max(1.0, self.noise_floor / strength) if strength else 1.0)
        return gains

    # -- snapshots ---------------------------------------------------------------------------------------------

    def _add_due_snapshot(self, state: OptimizationState, stage: Stage[Any]) -> None:
        due = {round(stage.steps * k / self.snapshots) for k in range(self.snapshots)}
        # A later stage starts where the stage before it ended, which has a snapshot already.
        if state.step in due and (state.step or not state.stage):
            self._add_snapshot(state, f"{stage.name} {state.step}" if state.step else "start")

    @torch.no_grad()
    def _add_snapshot(self, state: OptimizationState, name: str) -> None:
        w, image = self.codes(state.variables).clone(), to_uint8(self.reconstruct(state.variables))
        state.snapshots.append(Snapshot(name, w, image))
