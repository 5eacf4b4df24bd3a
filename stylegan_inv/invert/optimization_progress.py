"""Progress of per-image optimisation: bars over images and steps in a terminal, lines in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as ProgressBars

from stylegan_inv.optim.optimization_state import Progress


class OptimizationProgress:
    """A context manager whose :meth:`report` fits `Monitor.report`.

    Args:
        images: Number of images.
        every_seconds: Time between two lines where the output is not a terminal.
    """

    def __init__(self, images: int, every_seconds: float = 20.0) -> None:
        self._console, self._images, self._every_seconds = Console(), images, every_seconds
        self._done, self._printed = 0, time.monotonic()
        self._bars = ProgressBars(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._over_images = self._bars.add_task("images", total=images)
        self._over_steps = self._bars.add_task("steps", total=None)

    def __enter__(self) -> OptimizationProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def report(self, progress: Progress) -> None:
        """Shows the progress of the current batch."""
        step, steps, loss = progress.step, progress.steps, progress.loss
        text = f"{progress.stage}: {progress.active} active, loss {loss:.4g}"
        self._bars.update(self._over_steps, completed=step, total=steps, description=text)
        if not self._console.is_terminal and time.monotonic() - self._printed > self._every_seconds:
            self._printed = time.monotonic()
            line = f"images {self._done}/{self._images}  {progress.stage} step {step}/{steps}  loss {loss:.4g}"
            print(line, flush=True)

    def advance(self, images: int) -> None:
        """Adds images that are finished."""
        self._done += images
        self._bars.update(self._over_images, completed=self._done)
