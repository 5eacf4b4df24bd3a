"""DataLoaders of training and evaluation: collation, batches without readable images, and worker processes."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

from torch.utils.data import DataLoader, Dataset, dataloader, default_collate

from stylegan_inv.data.datamodules.sampler import DrawnIndex
from stylegan_inv.data.images.image_files import BadImage, to_grey
from stylegan_inv.data.tasks.base import Task
from stylegan_inv.utils.parent_process import worker_ending_with


class EvaluationLoader(DataLoader[Any]):
    """A DataLoader that skips batches of which no image could be read (``on_bad_image=skip``)."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return filter(lambda batch: batch is not None, super().__iter__())


@dataclass
class CollateEvaluation:
    """Collates the samples of an evaluation batch and applies the task; returns None for an empty batch.

    Attributes:
        task: Translation task, or None.
        grey: Whether the images are turned grey, for a grey generator.
    """

    task: Task | None
    grey: bool = False

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any] | None:  # noqa: D102
        if not samples:
            return None
        batch = _collate(samples, self.grey)
        return batch if self.task is None else self.task(batch)


@dataclass
class CollateTraining:
    """Collates the samples of a training batch and applies the task with the random numbers of each sample's draw.

    Attributes:
        task: Translation task, or None.
        seed: Training seed.
        grey: Whether the images are turned grey, for a grey generator.
    """

    task: Task | None
    seed: int
    grey: bool = False

    def __call__(self, samples: list[dict[str, Any]]) -> dict[str, Any]:  # noqa: D102
        if not samples:
            # Skipping the batch would shift the images of this rank against the step count, and a resumed run would
            # see other images than an uninterrupted one.
            raise BadImage(
                "no image of this training batch can be read (the files are named above); give "
                "dataset.on_bad_image=replace, or repair them"
            )
        batch = _collate(samples, self.grey)
        return batch if self.task is None else self.task(batch, batch.pop("draw").tolist(), self.seed)


def _collate(samples: list[dict[str, Any]], grey: bool) -> dict[str, Any]:
    batch: dict[str, Any] = default_collate(samples)
    return {**batch, "image": to_grey(batch["image"])} if grey else batch


class WithDraws(Dataset[dict[str, Any]]):
    """Adds to each sample of a dataset the ``draw`` that it was read for; a plain index is its own draw.

    Args:
        dataset: Dataset whose samples have an ``index``.
    """

    def __init__(self, dataset: Dataset[Any]) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return size_of(self.dataset)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {**self.dataset[index], "draw": _draw(index)}

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the samples of a batch."""
        samples = self.dataset.__getitems__(indices)  # type: ignore[attr-defined]
        remaining = iter(indices)
        drawn = []
        for sample in samples:
            # `on_bad_image=skip` leaves samples out, and the others keep their index; `replace` changes the index and
            # leaves nothing out.
            index = next(
                i for i in remaining if len(samples) == len(indices) or int(i) % len(self) == int(sample["index"])
            )
            drawn.append({**sample, "draw": _draw(index)})
        return drawn


def size_of(dataset: Dataset[Any]) -> int:
    """Returns the number of samples of a map-style dataset."""
    return len(dataset)  # type: ignore[arg-type]


def _draw(index: int) -> int:
    return index.draw if isinstance(index, DrawnIndex) else int(index)


def worker_options(num_workers: int) -> dict[str, Any]:
    """Returns the DataLoader arguments for a number of worker processes."""
    if num_workers:
        _kill_workers_at_exit(os.getpid())
    start = worker_ending_with(os.getpid(), _ignore_signals)
    return {"num_workers": num_workers, "persistent_workers": num_workers > 0, "worker_init_fn": start}


def _ignore_signals() -> None:
    # Ctrl-C and SLURM signal the whole process group, but only the main process decides when to stop.
    for signum in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)):
        signal.signal(signum, signal.SIG_IGN)


@functools.cache
def _kill_workers_at_exit(process: int) -> None:
    # A DataLoader that is still referenced when the process exits leaves its workers to multiprocessing, which would
    # send them SIGTERM, which they ignore, and wait for them for ever.
    Finalize(None, _kill_workers, exitpriority=1)


def _kill_workers() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


def is_worker_death(error: BaseException) -> bool:
    """Returns whether an error means that a worker process died while a batch was received from it.

    PyTorch reports this as a broken connection, without naming the worker.
    """
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, ConnectionError | EOFError) and dataloader.__file__ in files
