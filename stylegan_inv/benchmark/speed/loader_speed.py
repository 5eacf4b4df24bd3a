"""``python -m stylegan_inv.benchmark loader``: training steps with the data loader, and with one batch in memory."""

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
from stylegan_inv.utils.command_line import whole

MEMORY, LOADER = "one batch in memory", "data loader"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument(
        "job", nargs="*", metavar="key=value", help="overrides of the training, as for stylegan_inv.train"
    )
    parser.add_argument("--steps", **whole(1, 1_000_000), default=2, help="steps in a row with the same source")
    parser.set_defaults(batch=1, resolution=0, repeats=40)


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Trains with batches that come alternately from the data loader and from memory.

    The bound is the time without a data loader.
    """
    from stylegan_inv.config import compose, instantiate  # Hydra is slow to import

    with tempfile.TemporaryDirectory() as scratch:
        cfg = compose("train", [*options.job, f"paths.run_dir='{scratch}'", f"paths.output_root='{scratch}'"])
        silence_library_messages()
        if cfg.tune_allocator:
            tune_allocator()
        data, method = instantiate(cfg.dataset), instantiate(cfg.method)
        data.setup("fit")
        batches = AlternatingBatches(data.train_dataloader(), max(1, options.steps), options.repeats)
        trainer = instantiate(
            cfg.trainer, logger=False, callbacks=[], max_steps=-1, max_epochs=1, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False,
        )  # fmt: skip
        trainer.fit(method, train_dataloaders=batches)
    options.resolution, options.batch = cfg.dataset.resolution, data.batch_size
    reference = timing.sample(batches.seconds[MEMORY])
    rows = []
    for name, seconds in batches.seconds.items():
        row = timing.row(name, "step", timing.sample(seconds), reference, reference.seconds, None)
        rows.append({**row, "images_per_second": data.batch_size / row["seconds"]})
    return rows


class AlternatingBatches:
    """Yields batches of a data loader and, alternately, the same batch from memory, and measures each step.

    Args:
        loader: A data loader without an end.
        steps: Number of measured steps in a row with the same source.
        turns: Number of repetitions.

    Attributes:
        seconds: ``MEMORY`` and ``LOADER`` -> wall-clock and CPU seconds of fetching a batch and of one step.
        untimed: Number of steps before the measured ones of a turn.
    """

    def __init__(self, loader: DataLoader[Any], steps: int, turns: int) -> None:
        self.loader, self.steps, self.turns = loader, steps, turns
        # Workers prefetch batches during the other turn, which then take no time. Besides, the time between two
        # batches includes the step of the first, which may come from the other source.
        self.untimed = 1 + loader.num_workers * (loader.prefetch_factor or 0)
        self.seconds: dict[str, list[tuple[float, float]]] = {MEMORY: [], LOADER: []}

    def __iter__(self) -> Iterator[Any]:
        batches = iter(self.loader)
        stored = next(batches)
        yield stored  # the first step includes the initialisation of the optimiser
        for _ in range(self.turns):
            for name, seconds in self.seconds.items():
                for number in range(self.untimed + self.steps):
                    clock, cpu = time.perf_counter(), time.process_time()
                    yield next(batches) if name == LOADER else dict(stored)
                    if number >= self.untimed:
                        seconds.append((time.perf_counter() - clock, time.process_time() - cpu))
        yield stored
