"""``python -m stylegan_inv.benchmark gan``: training steps of StyleGAN2, and of other implementations."""

from __future__ import annotations

import argparse
import math
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from torch import Tensor

from stylegan_inv.benchmark.speed.other_trainers import Step, other_trainer
from stylegan_inv.methods.generator.stylegan2 import StyleGAN2Training
from stylegan_inv.runtime.allocator import leave_new_tensors_unfilled
from stylegan_inv.runtime.library_messages import silence_library_messages
from stylegan_inv.utils import timing

OWN, PLAIN = "ours", "ours, plain PyTorch operations"


def arguments(parser: argparse.ArgumentParser) -> None:
    """Adds the options of this subcommand."""
    parser.add_argument(
        "job", nargs="*", metavar="key=value", help="overrides of the training, as for stylegan_inv.train"
    )
    parser.add_argument("--against", type=Path, action="append", default=[], help="checkout of another implementation")
    parser.set_defaults(batch=1, resolution=0, repeats=5)


def run(options: argparse.Namespace, limits: timing.Roofline) -> list[dict[str, Any]]:
    """Trains with one batch in memory; the implementations take turns of one cycle of all lazy regularisers.

    The bound is the time of our steps.
    """
    from stylegan_inv.config import compose, instantiate  # Hydra is slow to import

    with tempfile.TemporaryDirectory() as scratch:
        cfg = compose(
            "train",
            ["method=stylegan2", *options.job, f"paths.run_dir='{scratch}'", f"paths.output_root='{scratch}'"],
        )
        silence_library_messages()
        leave_new_tensors_unfilled()
        data, method = instantiate(cfg.dataset), instantiate(cfg.method)
        data.setup("fit")
        images = next(iter(data.train_dataloader()))["image"]
        trainers = [other_trainer(checkout, method) for checkout in options.against]
        others = {trainer.name: trainer.step for trainer in trainers}
        turns = Turns(method, images, others, options.repeats)
        trainer = instantiate(
            cfg.trainer, logger=False, callbacks=[], max_steps=-1, max_epochs=1, limit_val_batches=0,
            enable_checkpointing=False, enable_progress_bar=False,
        )  # fmt: skip
        method.export_path = None
        trainer.fit(method, train_dataloaders=turns)
    options.resolution, options.batch = cfg.dataset.resolution, len(images)
    reference = timing.sample(turns.seconds[OWN])
    rows = []
    for name, seconds in turns.seconds.items():
        row = timing.row(name, f"{turns.cycle} steps", timing.sample(seconds), reference, reference.seconds, None)
        rows.append({**row, "images_per_second": turns.cycle * len(images) / row["seconds"]})
    return rows


class Turns:
    """Yields a batch for each step of our training and, between them, runs cycles of other implementations.

    Args:
        method: Our training.
        images: Batch (B, C, R, R) in [-1, 1].
        others: Name -> step of another implementation.
        repeats: Number of measured turns of each implementation.

    Attributes:
        seconds: Name -> wall-clock and CPU seconds of each turn.
        cycle: Steps of a turn, in which every regulariser runs as often as in a long training.
    """

    def __init__(self, method: StyleGAN2Training, images: Tensor, others: dict[str, Step], repeats: int) -> None:
        self.method, self.images, self.others, self.repeats = method, images, others, repeats
        self.cycle = math.lcm(max(method.extra_g_steps, 1), max(method.extra_d_steps, 1))
        self.seconds: dict[str, list[tuple[float, float]]] = {name: [] for name in (OWN, PLAIN, *others)}

    def __len__(self) -> int:
        """Returns the number of our steps. Lightning would fetch a batch too early if it did not know the end."""
        return (self.repeats + 1) * 2 * self.cycle + 1

    def __iter__(self) -> Iterator[dict[str, Tensor]]:
        for turn in range(self.repeats + 1):  # the first one warms up
            for name, seconds in self.seconds.items():
                start = time.perf_counter(), time.process_time()
                if name in self.others:
                    for number in range(self.cycle):
                        self.others[name](self.images, number)
                else:
                    self._use("ref" if name == PLAIN else "auto")
                    for _ in range(self.cycle):
                        yield {"image": self.images}
                if turn:
                    seconds.append((time.perf_counter() - start[0], time.process_time() - start[1]))

        yield {"image": self.images}  # after the last batch that it expects, Lightning would not come back

    def _use(self, implementation: str) -> None:
        for module in (*self.method.generator.modules(), *self.method.discriminator.modules()):
            if "ops" in vars(module):
                module.ops = implementation
