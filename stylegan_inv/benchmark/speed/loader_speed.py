"""``python -m stylegan_inv.benchmark loader``: steps of a training with its loader, against one batch held back."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Iterator
from typing import Any

from torch.utils.data import DataLoader

from stylegan_inv.runtime.allocator import tune_allocator
from stylegan_inv.runtime.library_messages import silence_library_messages
from stylegan_inv.utils import timing

HELD, LOADER = "one batch, held in memory", "its loader"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Options of this subcommand."""
    parser.add_argument("job", nargs="*", metavar="key=value", help="of the training, as for stylegan_inv.train")
    parser.add_argument("--steps", type=int, default=2, help="timed before the other one has its turn")
    parser.set_defaults(batch=1, resolution=0, repeats=40)


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Train one job, whose batches come from its loader and from memory by turns. The bound is no loader at all."""
    from stylegan_inv.config import compose, instantiate  # Hydra is slow to import and needed only here

    with tempfile.TemporaryDirectory() as scratch:
        cfg = compose("train", [*options.job, f"paths.run_dir='{scratch}'", f"paths.output_root='{scratch}'"])
        silence_library_messages()
        if cfg.tune_allocator:
            tune_allocator()
        data, method = instantiate(cfg.dataset), instantiate(cfg.method)
        data.setup("fit")
        batches = ByTurns(data.train_dataloader(), max(1, options.steps), options.repeats)
        trainer = instantiate(
            cfg.trainer, logger=False, callbacks=[], max_steps=-1, max_epochs=1, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(method, train_dataloaders=batches)
    options.resolution, options.batch = cfg.dataset.resolution, data.batch_size
    held = timing.sample(batches.seconds[HELD])
    rows = []
    for name, seconds in batches.seconds.items():
        row = timing.row(name, "step", timing.sample(seconds), held, held.seconds, None)
        rows.append({**row, "images_per_second": data.batch_size / row["seconds"]})
    return rows


class ByTurns:
    """Batches of a loader and one of them again and again, by turns, with the time of each step.

    Args:
        loader: an endless one.
        steps: timed in a row.
        turns: of both together.

    Attributes:
        seconds: by ``HELD`` and ``LOADER``: wall-clock and processor seconds of fetching a batch and of one step.
    """

    def __init__(self, loader: DataLoader[Any], steps: int, turns: int) -> None:
        self.loader, self.steps, self.turns = loader, steps, turns
        # Workers go on for a while when nobody asks, and have these batches ready when somebody does; and the step
        # after a batch is fetched is that of the one before.
        self.untimed = 1 + loader.num_workers * (loader.prefetch_factor or 0)
        self.seconds: dict[str, list[tuple[float, float]]] = {HELD: [], LOADER: []}

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        held = next(batches)
        yield held  # the first step is slow for other reasons
        for _ in range(self.turns):
            for name, seconds in self.seconds.items():
                for number in range(self.untimed + self.steps):
                    clock, cpu = time.perf_counter(), time.process_time()
                    yield next(batches) if name == LOADER else dict(held)
                    if number >= self.untimed:
                        seconds.append((time.perf_counter() - clock, time.process_time() - cpu))
        yield held
