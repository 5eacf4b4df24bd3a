"""Progress of per-image optimisation: a bar over images and one over steps, or a line now and then in a log."""

from __future__ import annotations

import time
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn


class DescentProgress:
    """A context whose :meth:`report` fits `Watch.report`.

    Args:
        images: in all.
        every_seconds: between lines where the output is no terminal.
    """

    def __init__(self, images: int, every_seconds: float = 20.0) -> None:
        self._console, self._images, self._every = Console(), images, every_seconds
        self._done, self._last = 0, time.monotonic()
        self._bars = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self._console,
            disable=not self._console.is_terminal,
        )
        self._over_images = self._bars.add_task("images", total=images)
        self._over_steps = self._bars.add_task("steps", total=None)

    def __enter__(self) -> DescentProgress:
        self._bars.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._bars.stop()

    def report(self, stage: str, step: int, steps: int, moving: int, loss: float) -> None:
        """One step of a batch is done."""
        text = f"{stage}: {moving} moving, loss {loss:.4g}"
        self._bars.update(self._over_steps, completed=step, total=steps, description=text)
        if not self._console.is_terminal and time.monotonic() - self._last > self._every:
            self._last = time.monotonic()
            print(f"images {self._done}/{self._images}  {stage} step {step}/{steps}  loss {loss:.4g}", flush=True)

    def advance(self, images: int) -> None:
        """So many more images are done."""
        self._done += images
        self._bars.update(self._over_images, completed=self._done)
