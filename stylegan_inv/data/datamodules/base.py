"""What all Lightning DataModules share: splits, loaders, exact resume, checks before any work starts.

They hand out batches (dicts of tensors, at least ``image`` (B, 3, R, R) in [-1, 1] and ``index``) in an order
that is a pure function of the seed and the draw number: a resumed run continues with the images it would have seen.
"""

from __future__ import annotations

import functools
import logging
import multiprocessing
import os
import signal
import traceback
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from multiprocessing.util import Finalize
from typing import Any

import pytorch_lightning as pl
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, dataloader, default_collate

from stylegan_inv.data.datamodules.image_set import ImageSet
from stylegan_inv.data.datamodules.sampler import EvaluationSampler, ResumableSampler
from stylegan_inv.data.images.image_files import BadImage, name_list
from stylegan_inv.data.tasks.translation import Task, WithDraws
from stylegan_inv.errors import UserError

_log = logging.getLogger(__name__)
#: The names of the parts of a data set.
SPLITS = ("train", "val", "test")


class ImageDataModule(pl.LightningDataModule):
    """What all DataModules here share; a subclass writes :meth:`make`.

    Args:
        batch_size: Training images a step and rank.
        val_batch_size: The same for validation and test; None takes ``batch_size``.
        num_workers: Loader processes a rank; the images do not depend on it.
        seed: Chooses the order of the training images.
        train_shuffle: False keeps the data set's order.
        task: Gives batches a ``source`` for the method to see instead of the ``image``, which stays the target.
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        val_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_shuffle: bool = True,
        task: Task | None = None,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_batch_size", batch_size if val_batch_size is None else val_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            check_whole(f"dataset.{name}", value, least)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.num_workers, self.seed, self.train_shuffle = num_workers, seed, train_shuffle
        self.task = task
        self._sets: dict[str, Dataset[Any]] = {}
        self._resumed: dict[str, int] = {}

    def make(self, split: str) -> Dataset[Any]:
        """Build the data set of a split: ``train``, ``val`` or ``test``."""
        raise NotImplementedError

    def where(self, split: str) -> str:
        """Where the images of a split come from, for messages."""
        return type(self).__name__

    def get(self, split: str) -> Dataset[Any]:
        """The data set of a split, built once."""
        if split not in SPLITS:
            raise UserError(f"split {split!r}: expected one of {', '.join(SPLITS)}")
        if split not in self._sets:
            self._sets[split] = self.make(split)
        return self._sets[split]

    def entries(self, split: str) -> set[str]:
        """Names of the entries of a split's images, read off the first ones (empty if none of these can be read)."""
        data = self.get(split)
        items = data.__getitems__(range(min(8, _size(data))))  # type: ignore[attr-defined]
        return set(items[0]) if items else set()

    def panel_batch(self, count: int) -> dict[str, Any]:
        """The first ``count`` validation items (fewer if there are not so many) as a batch, for panels.

        With a task, ``shown`` (B, 1 or 3, R, R) is its source as a picture.
        """
        held_out = self.get("val")
        items = held_out.__getitems__(range(min(count, _size(held_out))))  # type: ignore[attr-defined]
        batch = _CollateEvaluation(self.task)(items)
        if batch is None:
            raise UserError(f"{self.where('val')}: none of the first {count} images can be read, expected some to show")
        return batch if self.task is None else {**batch, "shown": self.task.show(batch["source"])}

    def panel_images(self, count: int) -> Tensor:
        """The images of :meth:`panel_batch`, (B, 3, R, R)."""
        return self.panel_batch(count)["image"]

    # -- Lightning ---------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Build and check what a stage needs.

        Raises:
            UserError: A folder that is missing or empty, a missing split, or fewer images than one batch on every rank.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for split in needed.get(stage or "", SPLITS):
            size, world = _size(self.get(split)), self._ranks()[1]
            if split == "train" and size < self.batch_size * world:
                raise UserError(
                    f"{self.where(split)}: got {size} training images, expected at least one batch: "
                    f"{self.batch_size} x {world} ranks = {self.batch_size * world}; give a smaller dataset.batch_size"
                )
            if size < world:
                raise UserError(
                    f"{self.where(split)}: got {size} {split} images for {world} ranks, expected at least one a rank; "
                    "give fewer trainer.devices or more images"
                )

    def train_dataloader(self) -> DataLoader[Any]:
        """An endless loader that starts at the draw where the loaded checkpoint stopped."""
        self.setup("fit")  # again: only now is the number of ranks known
        rank, world = self._ranks()
        train = self.get("train")
        size = _size(train)
        if self._resumed and (self._resumed["size"], self._resumed["seed"]) != (size, self.seed):
            _log.warning(
                "the training images changed since the checkpoint (%d images and seed %d, now %d and %d): their order "
                "is a new one, so this run does not repeat what an uninterrupted one would have done",
                *(self._resumed["size"], self._resumed["seed"], size, self.seed),
            )
        sampler = ResumableSampler(
            size, self.seed, self.batch_size, self.next_draw, rank=rank, world_size=world, shuffle=self.train_shuffle
        )
        if self.task is not None:
            train = WithDraws(train)
        collate = _CollateTraining(self.task, self.seed)
        return DataLoader(train, self.batch_size, sampler=sampler, collate_fn=collate, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("test")

    def loader_of(self, split: str, batches: Sequence[Sequence[int]]) -> DataLoader[Any]:
        """These items of a split in these batches, None in place of one of which no image can be read."""
        collate = _CollateEvaluation(self.task)
        return DataLoader(
            self.get(split),
            batch_sampler=[list(batch) for batch in batches],
            collate_fn=collate,
            **self._loader_options(),
        )

    def next_draw(self) -> int:
        """The draw, over all ranks, of the first training image that no finished step has seen."""
        done = self._batches_done() - self._resumed.get("batches", 0)
        return self._resumed.get("draw", 0) + done * self.batch_size * self._ranks()[1]

    def state_dict(self) -> dict[str, int]:
        """What a checkpoint holds: as draws, so that batch size and number of ranks may change on resume."""
        if "train" not in self._sets:
            return {}
        return {
            "draw": self.next_draw(),
            "batches": self._batches_done(),
            "seed": self.seed,
            "size": _size(self.get("train")),
        }

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:  # noqa: D102
        self._resumed = dict(state_dict)

    def teardown(self, stage: str) -> None:
        """Say once more which files were unreadable."""
        for split, data in self._sets.items():
            bad = data.bad_images if isinstance(data, ImageSet) else []
            if bad:
                _log.warning("%s: %d unreadable %s images: %s", self.where(split), len(bad), split, name_list(bad))

    # ----------------------------------------------------------------------------------------------------------

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        data = self.get(split)
        rank, world = self._ranks()
        sampler = EvaluationSampler(_size(data), rank=rank, world_size=world)
        collate = _CollateEvaluation(self.task)
        return _EvaluationLoader(
            data, self.val_batch_size, sampler=sampler, collate_fn=collate, **self._loader_options()
        )

    def _loader_options(self) -> dict[str, Any]:
        if self.num_workers:
            _end_workers_at_exit(os.getpid())
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "worker_init_fn": _ignore_signals,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        }

    def _ranks(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _batches_done(self) -> int:
        # Not `global_step`, which counts every optimiser of a GAN, and gradient accumulation as one. `processed` grows
        # right after the optimiser step, before any callback could save a checkpoint.
        progress: Any = None if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.total
        return 0 if progress is None else int(progress.processed)


def _ignore_signals(worker: int) -> None:
    # Ctrl-C and SLURM signal the whole process group: when to end is the main process's decision.
    for signum in (signal.SIGINT, signal.SIGTERM, getattr(signal, "SIGUSR1", signal.SIGTERM)):
        signal.signal(signum, signal.SIG_IGN)


@functools.cache
def _end_workers_at_exit(process: int) -> None:
    # Of loaders that somebody still holds when the process ends. multiprocessing would send them SIGTERM, which they
    # ignore, and wait for them for ever.
    Finalize(None, _end_workers, exitpriority=1)


def _end_workers() -> None:
    for process in multiprocessing.active_children():
        if process.daemon:
            process.kill()


class _EvaluationLoader(DataLoader[Any]):
    """Passes over batches of which no image could be read (``on_bad_image=skip``)."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return filter(lambda batch: batch is not None, super().__iter__())


@dataclass
class _CollateEvaluation:
    task: Task | None

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any] | None:
        if not items:
            return None
        batch = default_collate(items)
        return batch if self.task is None else self.task(batch)


@dataclass
class _CollateTraining:
    task: Task | None
    seed: int

    def __call__(self, items: list[dict[str, Any]]) -> dict[str, Any]:
        if not items:
            # Passing over it would shift the images of this rank against the step count, and resume would not be exact.
            raise BadImage(
                "no image of this training batch can be read (the files are named above); give "
                "dataset.on_bad_image=replace, or repair them"
            )
        batch = default_collate(items)
        return batch if self.task is None else self.task(batch, batch.pop("draw").tolist(), self.seed)


def _size(data: Dataset[Any]) -> int:
    return len(data)  # type: ignore[arg-type]


def check_whole(name: str, value: Any, least: int) -> None:
    """Raises UserError unless a config value is a whole number of at least ``least``."""
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}={value!r}: expected a whole number of at least {least}")


def is_broken_hand_over(error: BaseException) -> bool:
    """Whether a loader process died just while a batch was taken from it: torch says no more than its broken pipe."""
    files = (frame.f_code.co_filename for frame, _ in traceback.walk_tb(error.__traceback__))
    return isinstance(error, ConnectionError | EOFError) and dataloader.__file__ in files
