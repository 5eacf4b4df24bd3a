"""Gradient descent on a batch of images that do not influence one another, and that can be killed and continued.

Each image has its own variables, its own loss and its own early stop. What is random is drawn from (seed, step) and is
the same for all images, so a result depends neither on an image's neighbours nor on its place among them.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write

Variables = dict[str, Tensor]
_CHECK_EVERY = 10  # steps between looks at the losses: on a GPU a look waits for all work


@dataclass
class EarlyStop:
    """When an image is done before the last step.

    Attributes:
        patience_steps: its lowest loss of so many last steps must lie below the lowest before; None: no such rule.
        least_gain: by this share.
        goal: a loss that is low enough; None: no such rule.
    """

    patience_steps: int | None = None
    least_gain: float = 0.01
    goal: float | None = None

    def __post_init__(self) -> None:
        if self.patience_steps is not None and self.patience_steps < 1:
            raise UserError(f"stop.patience_steps={self.patience_steps}: expected a whole number of at least 1 or null")
        if not 0 <= self.least_gain < 1:
            raise UserError(f"stop.least_gain={self.least_gain}: expected a share in [0, 1)")

    def done(self, curve: Tensor) -> Tensor:
        """Which images stop, (B,), given the losses of all steps so far (T, B)."""
        done = torch.zeros_like(curve[-1], dtype=torch.bool)
        if self.goal is not None:
            done |= curve[-1] <= self.goal
        if self.patience_steps is not None and len(curve) > self.patience_steps:
            before, recent = curve[: -self.patience_steps].amin(0), curve[-self.patience_steps :].amin(0)
            done |= recent > before * (1 - self.least_gain)
        return done


@dataclass
class Stage:
    """One descent.

    Attributes:
        name: for the progress bar and the curves.
        steps: at most.
        vary: names of the variables that move.
        loss: ``(variables, given, step)`` -> the terms of each image, (B,), with their weighted sum as ``total``.
        given: what the loss compares with: tensors, or lists of tensors, whose first dimension is the image.
        rate: step -> learning rate.
        betas: of Adam.
        stop: when an image is done early.
        after: changes the variables in place after each step, image by image.
    """

    name: str
    steps: int
    vary: tuple[str, ...]
    loss: Callable[[Variables, Mapping[str, Any], int], dict[str, Tensor]]
    given: Mapping[str, Any]
    rate: Callable[[int], float]
    betas: tuple[float, float] = (0.9, 0.999)
    stop: EarlyStop = field(default_factory=EarlyStop)
    after: Callable[[Variables], None] | None = None


@dataclass
class Watch:
    """Who looks on: a file that keeps the state, and a function that is told of every step.

    Attributes:
        file: where to keep the state; None: nowhere.
        key: says what is being done to which images; a file with another key is not continued.
        every_seconds: between two writings.
        report: called now and then with stage, step (from 1), the stage's steps, images still moving, their mean loss.
    """

    file: Path | None = None
    key: str = ""
    every_seconds: float = 20.0
    report: Callable[[str, int, int, int, float], None] | None = None


@dataclass
class State:
    """Where the descent of a batch stands.

    Attributes:
        variables: name -> (B, ...).
        moments: ``<variable>.mean`` and ``<variable>.square`` of Adam, in the present stage.
        moving: (B,) bool, images that are not done with the present stage.
        stage: number of the present stage.
        step: steps done in it.
        curves: losses of each stage (steps, B), NaN where an image had stopped.
        kept: tensors that belong to the state for other reasons (snapshots, the picture before the stage).
        seconds: spent so far.
    """

    variables: Variables
    moments: dict[str, Tensor] = field(default_factory=dict)
    moving: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    stage: int = 0
    step: int = 0
    curves: list[Tensor] = field(default_factory=list)
    kept: dict[str, Tensor] = field(default_factory=dict)
    seconds: float = 0.0

    def enter(self, stage: Stage) -> None:
        """Prepare for a stage that has not begun."""
        batch = len(next(iter(self.variables.values())))
        device = next(iter(self.variables.values())).device
        self.moving = torch.ones(batch, dtype=torch.bool, device=device)
        for name in stage.vary:
            for moment in ("mean", "square"):
                self.moments[f"{name}.{moment}"] = torch.zeros_like(self.variables[name])
        like = self.variables[stage.vary[0]]
        self.curves.append(like.new_full((stage.steps, batch), torch.nan))

    def leave(self) -> None:
        """Go on to the next stage."""
        self.curves[-1] = self.curves[-1][: self.step]
        self.moments, self.stage, self.step = {}, self.stage + 1, 0

    def save(self, path: Path, key: str) -> None:
        """Write it, atomically."""
        groups: dict[str, Mapping[str, Tensor]] = {
            "variables": self.variables,
            "moments": self.moments,
            "kept": self.kept,
            "curves": {str(number): curve for number, curve in enumerate(self.curves)},
            "state": {"moving": self.moving},
        }
        tensors = {f"{group}/{name}": t.detach().contiguous() for group, ts in groups.items() for name, t in ts.items()}
        metadata = {"key": key, "stage": str(self.stage), "step": str(self.step), "seconds": repr(self.seconds)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_write(path) as temporary:
            save_file(tensors, temporary, metadata)

    @classmethod
    def load(cls, path: Path, key: str, device: torch.device) -> State | None:
        """Read it back; None where there is none, or one of something else.

        Raises:
            UserError: the file is damaged.
        """
        if not path.is_file():
            return None
        try:
            with safe_open(path, framework="pt", device=str(device)) as file:
                metadata = file.metadata() or {}
                if metadata.get("key") != key:
                    return None
                groups: dict[str, dict[str, Tensor]] = {}
                for full in file.keys():  # noqa: SIM118 (not a dict)
                    group, name = full.split("/", 1)
                    # Copied into memory of its own: results depend on alignment in the last bit.
                    groups.setdefault(group, {})[name] = file.get_tensor(full).clone()
            curves = groups.get("curves", {})
            return cls(
                variables=groups["variables"],
                moments=groups.get("moments", {}),
                moving=groups["state"]["moving"],
                stage=int(metadata["stage"]),
                step=int(metadata["step"]),
                curves=[curves[str(number)] for number in range(len(curves))],
                kept=groups.get("kept", {}),
                seconds=float(metadata["seconds"]),
            )
        except (SafetensorError, OSError, KeyError, ValueError) as error:
            raise UserError(f"{path}: cannot be continued from ({error}); remove it to start anew") from error


def descend(stage: Stage, state: State, watch: Watch, snapshot: Callable[[State], None] | None = None) -> None:
    """Carry out a stage, or what is left of it; the state is changed in place.

    Args:
        stage: what to do.
        state: entered (`State.enter`) or loaded.
        watch: who looks on.
        snapshot: called before every step.
    """
    curve = state.curves[state.stage]
    rows: Any = None
    given: Mapping[str, Any] = stage.given
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    all_move = bool(state.moving.all())
    while state.step < stage.steps and (all_move or bool(state.moving.any())):
        if snapshot is not None:
            snapshot(state)
        if rows is None:  # which images move has changed
            # A slice gives views, so nothing is copied while all move.
            rows = slice(None) if all_move else state.moving.nonzero()[:, 0]
            given = stage.given if all_move else take(stage.given, rows)
        leaves = {name: v[rows].detach() for name, v in state.variables.items()}
        for name in stage.vary:
            leaves[name].requires_grad_()
        total = stage.loss(leaves, given, state.step)["total"]
        gradients = torch.autograd.grad(total.sum(), [leaves[name] for name in stage.vary])
        with torch.no_grad():
            curve[state.step, rows] = total.detach()
            state.step += 1
            for name, gradient in zip(stage.vary, gradients, strict=True):
                mean, square = (state.moments[f"{name}.{moment}"][rows] for moment in ("mean", "square"))
                value = leaves[name].detach()
                adam(value, gradient, mean, square, state.step, stage.rate(state.step - 1), stage.betas)
                leaves[name] = value
                if not all_move:
                    state.moments[f"{name}.mean"][rows], state.moments[f"{name}.square"][rows] = mean, square
            if stage.after is not None:
                stage.after(leaves)
            if not all_move:
                for name in stage.vary:
                    state.variables[name][rows] = leaves[name]
            if (stage.stop.goal or stage.stop.patience_steps) and state.step % _CHECK_EVERY == 0:
                done = state.moving & stage.stop.done(curve[: state.step])
                if bool(done.any()):
                    state.moving &= ~done
                    rows, all_move = None, False
        if watch.report is not None and (state.step % _CHECK_EVERY == 0 or state.step == stage.steps):
            seen = curve[state.step - 1]
            watch.report(stage.name, state.step, stage.steps, int(state.moving.sum()), float(seen.nanmean()))
        if watch.file is not None and time.monotonic() - saved > watch.every_seconds:
            state.seconds = time.monotonic() - started
            state.save(watch.file, watch.key)
            saved = time.monotonic()
    state.seconds = time.monotonic() - started


def adam(
    value: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    rate: float,
    betas: tuple[float, float],
    epsilon: float = 1e-8,
) -> None:
    """One step of Adam (Kingma and Ba 2015, algorithm 1) in place; written out so that single images can leave.

    Args:
        value: moved.
        gradient: at it.
        mean: first moment.
        square: second moment.
        step: from 1.
        rate: learning rate.
        betas: of the moments.
        epsilon: added to the root of the second moment.
    """
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    root = square.sqrt().mul_((1 - betas[1] ** step) ** -0.5).add_(epsilon)
    value.addcdiv_(mean, root, value=-rate / (1 - betas[0] ** step))


def take(given: Mapping[str, Any], rows: Tensor) -> dict[str, Any]:
    """The same for some of the images."""
    return {
        name: value[rows] if isinstance(value, Tensor) else value if value is None else [v[rows] for v in value]
        for name, value in given.items()
    }


def draw(seed: int, step: int, *shape: int, like: Tensor) -> Tensor:
    """Standard normal numbers that are a function of (seed, step) alone, so that nothing needs to be kept."""
    generator = torch.Generator().manual_seed((seed << 32) + step)
    return torch.randn(*shape, generator=generator, dtype=like.dtype).to(like.device)
