"""Gradient descent on a batch of independent images, which can be interrupted and continued.

Each image has its own variables, its own loss and its own early stop. Random numbers are a function of (seed, step) and
are the same for all images, so the result of an image depends neither on the other images nor on its position.
"""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

import torch
from torch import Tensor

from stylegan_inv.optim.optimization_state import Monitor, OptimizationState, Progress, Variables
from stylegan_inv.utils.checks import real_number, whole_number

Targets = TypeVar("Targets")
#: A slice selects rows as a view, an index tensor as a copy.
Rows = slice | Tensor
#: Steps between two reads of the losses: on a GPU each read waits for all queued work.
_CHECK_EVERY_STEPS = 10


@dataclass
class EarlyStop:
    """Decides when an image stops before the last step.

    Attributes:
        patience: Number of steps within which the lowest loss must improve; None disables the rule.
        min_delta: Smallest relative decrease of the lowest loss that counts as an improvement, in [0, 1).
        loss_threshold: Loss at which an image stops; None disables the rule.
    """

    patience: int | None = None
    min_delta: float = 0.01
    loss_threshold: float | None = None

    def __post_init__(self) -> None:
        if self.patience is not None:
            whole_number(
                "method.early_stop.patience", self.patience, 1, hint="null never stops for a lack of improvement"
            )
        real_number("method.early_stop.min_delta", self.min_delta, 0, 1)

    @property
    def is_active(self) -> bool:
        """Whether any of the two rules applies."""
        return bool(self.loss_threshold or self.patience)

    def should_stop(self, curve: Tensor) -> Tensor:
        """Returns which images stop, (B,), given the losses of all steps so far (T, B)."""
        stop = torch.zeros_like(curve[-1], dtype=torch.bool)
        if self.loss_threshold is not None:
            stop |= curve[-1] <= self.loss_threshold
        if self.patience is not None and len(curve) > self.patience:
            before, recent = curve[: -self.patience].amin(0), curve[-self.patience :].amin(0)
            stop |= recent > before * (1 - self.min_delta)
        return stop


@dataclass
class Stage(Generic[Targets]):
    """One run of Adam over some of the variables.

    Attributes:
        name: Name in the progress bar and in the loss curves.
        steps: Largest number of steps.
        variables: Names of the variables that are optimised.
        loss: ``(variables, targets, step)`` -> the loss terms of each image, (B,), with their weighted sum as
            ``total``.
        targets: Dataclass that the loss compares with; the first dimension of each of its tensors, and of the tensors
            in each of its lists, is the image.
        lr: Step -> learning rate.
        betas: Betas of Adam.
        early_stop: When an image stops before the last step.
        project: Changes the variables in place after each step, independently for each image.
    """

    name: str
    steps: int
    variables: tuple[str, ...]
    loss: Callable[[Variables, Targets, int], dict[str, Tensor]]
    targets: Targets
    lr: Callable[[int], float]
    betas: tuple[float, float] = (0.9, 0.999)
    early_stop: EarlyStop = field(default_factory=EarlyStop)
    project: Callable[[Variables], None] | None = None


def optimize(
    stage: Stage[Any],
    state: OptimizationState,
    monitor: Monitor,
    before_step: Callable[[OptimizationState], None] | None = None,
) -> None:
    """Carries out a stage, or the rest of it; changes the state in place.

    Args:
        stage: The stage.
        state: A state in which the stage was begun (`OptimizationState.begin_stage`), or a loaded one.
        monitor: Where the state is saved, and the function that receives the progress.
        before_step: Called with the state before every step.
    """
    curve = state.curves[state.stage]
    started, saved = time.monotonic() - state.seconds, time.monotonic()
    rows, targets = _active_rows(state, stage.targets)
    while state.step < stage.steps and (isinstance(rows, slice) or len(rows)):
        if before_step is not None:
            before_step(state)
        _step(stage, state, rows, targets, curve)
        if stage.early_stop.is_active and state.step % _CHECK_EVERY_STEPS == 0:
            stop = state.active & stage.early_stop.should_stop(curve[: state.step])
            if bool(stop.any()):
                state.active &= ~stop
                rows, targets = _active_rows(state, stage.targets)
        if monitor.report is not None and (state.step % _CHECK_EVERY_STEPS == 0 or state.step == stage.steps):
            loss = float(curve[state.step - 1].nanmean())
            monitor.report(Progress(stage.name, state.step, stage.steps, int(state.active.sum()), loss))
        if monitor.state_file is not None and time.monotonic() - saved > monitor.save_every_seconds:
            state.seconds = time.monotonic() - started
            monitor.save(state)
            saved = time.monotonic()
    state.seconds = time.monotonic() - started


def _active_rows(state: OptimizationState, targets: Targets) -> tuple[Rows, Targets]:
    """Returns the images that have not stopped, and their targets."""
    if bool(state.active.all()):
        return slice(None), targets
    rows = state.active.nonzero()[:, 0]
    return rows, select_rows(targets, rows)


def _step(stage: Stage[Targets], state: OptimizationState, rows: Rows, targets: Targets, curve: Tensor) -> None:
    variables = {name: value[rows].detach() for name, value in state.variables.items()}
    for name in stage.variables:
        variables[name].requires_grad_()
    total = stage.loss(variables, targets, state.step)["total"]
    gradients = torch.autograd.grad(total.sum(), [variables[name] for name in stage.variables])
    with torch.no_grad():
        curve[state.step, rows] = total.detach()
        state.step += 1
        lr = stage.lr(state.step - 1)
        for name, gradient in zip(stage.variables, gradients, strict=True):
            moments = state.moments[name]
            mean, square, value = moments.mean[rows], moments.square[rows], variables[name].detach()
            adam(value, gradient, mean, square, state.step, lr, stage.betas)
            variables[name] = value
            if isinstance(rows, Tensor):
                moments.mean[rows], moments.square[rows] = mean, square
        if stage.project is not None:
            stage.project(variables)
        if isinstance(rows, Tensor):
            for name in stage.variables:
                state.variables[name][rows] = variables[name]


def adam(
    value: Tensor,
    gradient: Tensor,
    mean: Tensor,
    square: Tensor,
    step: int,
    lr: float,
    betas: tuple[float, float],
    eps: float = 1e-8,
) -> None:
    """Carries out one step of Adam (Kingma and Ba 2015, algorithm 1) in place.

    ``torch.optim.Adam`` cannot leave out single rows of a tensor, which images that have stopped need.

    Args:
        value: The optimised values.
        gradient: The gradient at ``value``.
        mean: First moment.
        square: Second moment.
        step: Number of the step, from 1.
        lr: Learning rate.
        betas: Decay of the first and of the second moment.
        eps: Added to the root of the second moment.
    """
    mean.lerp_(gradient, 1 - betas[0])
    square.mul_(betas[1]).addcmul_(gradient, gradient, value=1 - betas[1])
    root = square.sqrt().mul_((1 - betas[1] ** step) ** -0.5).add_(eps)
    value.addcdiv_(mean, root, value=-lr / (1 - betas[0] ** step))


def select_rows(targets: Targets, rows: Rows) -> Targets:
    """Returns a dataclass of tensors, lists of tensors and None, restricted to some of the images."""
    selected: dict[str, Any] = {}
    for item in dataclasses.fields(targets):  # type: ignore[arg-type]
        value = getattr(targets, item.name)
        selected[item.name] = [part[rows] for part in value] if isinstance(value, list) else value
        if isinstance(value, Tensor):
            selected[item.name] = value[rows]
    return dataclasses.replace(targets, **selected)  # type: ignore[type-var]


def seeded_randn(seed: int, step: int, *shape: int, like: Tensor) -> Tensor:
    """Returns standard normal numbers that depend on (seed, step) alone, so that no state has to be saved.

    Args:
        seed: Seed of the run.
        step: Number of the draw.
        *shape: Shape of the result.
        like: Tensor whose dtype and device the result has.
    """
    generator = torch.Generator().manual_seed((seed << 32) + step)
    return torch.randn(*shape, generator=generator, dtype=like.dtype).to(like.device)
