"""The state of an unfinished per-image optimisation, and the file from which it is continued."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor

from stylegan_inv.utils.files import TolerantWriter
from stylegan_inv.utils.safetensors_files import load_dataclass, save_dataclass

#: Name -> tensor (B, ...).
Variables = dict[str, Tensor]
T = TypeVar("T")


@dataclass
class Moments:
    """The moments of Adam for one variable.

    Attributes:
        mean: First moment, in the shape of the variable.
        square: Second moment, in the shape of the variable.
    """

    mean: Tensor
    square: Tensor


@dataclass
class Snapshot:
    """An intermediate result.

    Attributes:
        name: Stage and step, for captions.
        w: Latent codes in W+, (B, L, D).
        image: Reconstructions in 8 bits, (B, 3, R, R) uint8.
    """

    name: str
    w: Tensor
    image: Tensor


@dataclass
class OptimizationState:
    """The state of the optimisation of a batch.

    Attributes:
        variables: The variables, (B, ...) each.
        moments: The moments of the variables that the current stage optimises.
        active: (B,) bool, images that have not stopped in the current stage.
        stage: Index of the current stage.
        step: Number of steps done in the current stage.
        curves: Losses of each stage that has begun, (steps, B) each; NaN after an image has stopped.
        snapshots: Intermediate results, first to last.
        initial_image: Reconstructions (B, 3, R, R) at the start of the current stage; None before the first.
        seconds: Time spent so far, in all runs together.
    """

    variables: Variables
    moments: dict[str, Moments] = field(default_factory=dict)
    active: Tensor = field(default_factory=lambda: torch.zeros(0, dtype=torch.bool))
    stage: int = 0
    step: int = 0
    curves: list[Tensor] = field(default_factory=list)
    snapshots: list[Snapshot] = field(default_factory=list)
    initial_image: Tensor | None = None
    seconds: float = 0.0

    @property
    def in_stage(self) -> bool:
        """Whether the current stage has begun."""
        return len(self.curves) > self.stage

    def begin_stage(self, names: tuple[str, ...], steps: int) -> None:
        """Begins a stage.

        Args:
            names: Variables that the stage optimises.
            steps: Largest number of steps.
        """
        first = self.variables[names[0]]
        self.active = torch.ones(len(first), dtype=torch.bool, device=first.device)
        for name in names:
            value = self.variables[name]
            self.moments[name] = Moments(torch.zeros_like(value), torch.zeros_like(value))
        self.curves.append(first.new_full((steps, len(first)), torch.nan))

    def end_stage(self) -> None:
        """Ends the current stage; the next one has not begun."""
        self.curves[-1] = self.curves[-1][: self.step]
        self.moments, self.stage, self.step = {}, self.stage + 1, 0


@dataclass(frozen=True)
class Progress:
    """The progress of an optimisation.

    Attributes:
        stage: Name of the stage.
        step: Number of steps done in the stage.
        steps: Largest number of steps of the stage.
        active: Number of images that have not stopped.
        loss: Mean loss of these images.
    """

    stage: str
    step: int
    steps: int
    active: int
    loss: float


@dataclass
class Monitor:
    """Where an optimisation saves its state, and the function that receives its progress.

    Attributes:
        state_file: File of the state; None saves nothing.
        key: Identifies the images and the settings; a file with another key is not continued.
        save_every_seconds: Time between two writes of the file.
        report: Called every few steps.
        writer: Warns if the file cannot be written.
    """

    state_file: Path | None = None
    key: str = ""
    save_every_seconds: float = 20.0
    report: Callable[[Progress], None] | None = None
    writer: TolerantWriter = field(default_factory=TolerantWriter)

    def save(self, state: object) -> None:
        """Writes a state, a dataclass, to the file, if there is one; a full disk is a warning."""
        if self.state_file is not None:
            with self.writer.writing(self.state_file):
                save_dataclass(state, self.state_file, self.key)

    def load(self, kind: type[T], device: torch.device) -> T | None:
        """Returns the state in the file; None without a file, or if its key is another.

        Raises:
            UserError: The file is damaged, or was written by another version.
        """
        return None if self.state_file is None else load_dataclass(kind, self.state_file, self.key, device)
