"""The base class of the DataModules: splits, DataLoaders, exact resume, and checks before any work starts.

Batches are dicts of tensors with at least ``image`` (B, 3, R, R) in [-1, 1] and ``index``. The order of the training
images is a pure function of the seed and the draw number (the position in the endless stream of training images), so
that a resumed run continues with the images that an uninterrupted run would have seen.
"""

from __future__ import annotations

import hashlib
import itertools
import logging
import os
from collections.abc import Mapping, Sequence
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from stylegan_inv.data.datamodules.image_dataset import ImageDataset
from stylegan_inv.data.datamodules.loaders import (
    CollateEvaluation,
    CollateTraining,
    EvaluationLoader,
    WithDraws,
    size_of,
    worker_options,
)
from stylegan_inv.data.datamodules.sampler import EvaluationSampler, ResumableSampler
from stylegan_inv.data.images.image_files import name_list
from stylegan_inv.data.sources.source import Source
from stylegan_inv.data.tasks.base import Task
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, whole_number
from stylegan_inv.utils.compat import finished_batches
from stylegan_inv.utils.domains import check_domain_name
from stylegan_inv.utils.files import file_stamp

_log = logging.getLogger(__name__)
#: The splits of a dataset.
SPLITS = ("train", "val", "test")
#: Of draws and batches: far above any training, and within the range of NumPy's numbers.
_LARGEST_COUNT = 1 << 62
#: Entries of the state in a checkpoint, all of them whole numbers.
_STATE = ("draw", "batches", "seed", "size")
#: Entries of the state of images in files: numbers made of the names of the images of training and validation, and of
#: the sizes and times of modification of their files.
_NAMES, _FILES = "names", "files"
#: Files whose size and time are read at the start: of more, as many at equal distances. A network drive takes seconds.
_MOST_FILES = 100_000


class ImageDataModule(pl.LightningDataModule):
    """Base class of the DataModules; a subclass implements :meth:`make`.

    Args:
        batch_size: Training batch size per rank.
        val_batch_size: Batch size per rank in validation and test; None uses ``batch_size``.
        num_workers: DataLoader workers per rank. The images do not depend on it.
        seed: Seed of the order of the training images.
        train_shuffle: False keeps the order of the dataset.
        task: Translation task, which adds the ``source`` that the method sees; ``image`` stays the target.
        domain: Domain of the images, one of :data:`.DOMAINS`; None if it is unknown.

    Attributes:
        grey: Whether the images are turned grey (with three equal channels), for a grey generator.
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
        domain: str | None = None,
    ) -> None:
        super().__init__()
        if task is not None and not isinstance(task, Task):
            raise UserError(f"dataset.task: got a {type(task).__name__}, expected a translation task, or null")
        self.batch_size = whole_number("dataset.batch_size", batch_size)
        self.val_batch_size = whole_number(
            "dataset.val_batch_size", batch_size if val_batch_size is None else val_batch_size
        )
        self.num_workers = whole_number("dataset.num_workers", num_workers, 0)
        self.seed = whole_number("dataset.seed", seed, 0)
        self.train_shuffle, self.task = train_shuffle, task
        self.domain = check_domain_name("dataset.domain", domain)
        self.grey = False
        self._datasets: dict[str, Dataset[Any]] = {}
        self._resumed: dict[str, int] = {}
        self._numbers: dict[str, int] | None = None

    def make(self, split: str) -> Dataset[Any]:
        """Builds the dataset of a split: ``train``, ``val`` or ``test``."""
        raise NotImplementedError

    def where(self, split: str) -> str:
        """Returns the location of the images of a split, for messages."""
        return type(self).__name__

    def get(self, split: str) -> Dataset[Any]:
        """Returns the dataset of a split, which is built once."""
        one_of("split", split, SPLITS)
        if split not in self._datasets:
            self._datasets[split] = self.make(split)
        return self._datasets[split]

    def use_classes(self, count: int, splits: Sequence[str] = ("train", "val"), trains_generator: bool = False) -> None:
        """Adds the entry ``class`` (B,), the class of each image, for a conditional generator.

        Args:
            count: Number of classes of the generator.
            splits: Splits that need it.
            trains_generator: Whether a generator learns the classes, so that the last one must occur.

        Raises:
            UserError: The data have no class labels, or another number of classes.
        """
        raise UserError(
            f"{type(self).__name__}: has no class labels, which the conditional generator needs; give images with a "
            "dataset.json, dataset=folder dataset.root=<folder or zip>"
        )

    def entries(self, split: str) -> set[str]:
        """Returns the keys of the samples of a split, found by reading the first ones; empty if none can be read."""
        dataset = self.get(split)
        samples = dataset.__getitems__(range(min(8, size_of(dataset))))  # type: ignore[attr-defined]
        return set(samples[0]) if samples else set()

    def panel_batch(self, count: int) -> dict[str, Any]:
        """Returns the first ``count`` validation samples, or all if there are fewer, as a batch for panels.

        With a task, ``shown`` (B, 1 or 3, R, R) is the source as an image for display.

        Raises:
            UserError: None of these images can be read.
        """
        batch = self.first_batch("val", count)
        if batch is None:
            raise UserError(f"{self.where('val')}: none of the first {count} images can be read, expected some to show")
        return batch if self.task is None else {**batch, "shown": self.task.show(batch["source"])}

    def first_batch(self, split: str, count: int) -> dict[str, Any] | None:
        """Returns the first ``count`` samples of a split, or all if there are fewer, as an evaluation batch.

        None of these images can be read: returns None.
        """
        dataset = self.get(split)
        samples = dataset.__getitems__(range(min(count, size_of(dataset))))  # type: ignore[attr-defined]
        return CollateEvaluation(self.task, self.grey)(samples)

    def panel_images(self, count: int) -> Tensor:
        """Returns the images of :meth:`panel_batch`, (B, 3, R, R)."""
        return self.panel_batch(count)["image"]

    # -- Lightning ---------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Builds and checks the datasets of a stage.

        Raises:
            UserError: A folder is missing or empty, a split is missing, or the images are fewer than one batch on
                every rank.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for split in needed.get(stage or "", SPLITS):
            size, world = size_of(self.get(split)), self._ranks()[1]
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
        """Returns an endless DataLoader that starts at the draw where the loaded checkpoint stopped."""
        self.setup("fit")  # checks again, as the number of ranks is only known now
        rank, world = self._ranks()
        train = self.get("train")
        size = size_of(train)
        if self._resumed and (self._resumed["size"], self._resumed["seed"]) != (size, self.seed):
            _log.warning(
                "the training images changed since the checkpoint (%d images and seed %d, now %d and %d): their order "
                "changes too, so this run does not repeat what an uninterrupted run would have done",
                *(self._resumed["size"], self._resumed["seed"], size, self.seed),
            )
        else:
            self._report_other_images()
        sampler = ResumableSampler(
            size, self.seed, self.batch_size, self.next_draw, rank=rank, world_size=world, shuffle=self.train_shuffle
        )
        if self.task is not None:
            train = WithDraws(train)
        collate = CollateTraining(self.task, self.seed, self.grey)
        return DataLoader(train, self.batch_size, sampler=sampler, collate_fn=collate, **self._loader_options())

    def val_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("test")

    def loader_of(self, split: str, batches: Sequence[Sequence[int]]) -> DataLoader[Any]:
        """Returns a DataLoader of given batches.

        Args:
            split: Split of the samples.
            batches: Indices of the samples of each batch. A batch of which no image can be read is None.
        """
        return DataLoader(
            self.get(split),
            batch_sampler=[list(batch) for batch in batches],
            collate_fn=CollateEvaluation(self.task, self.grey),
            **self._loader_options(),
        )

    def full_loader(self, split: str) -> DataLoader[Any]:
        """Returns a DataLoader of all images of a split as in evaluation, each once over all ranks.

        Args:
            split: Split of the images, also ``train``.
        """
        return self._loader_of_all(self.unaugmented(split))

    def unaugmented(self, split: str) -> Dataset[Any]:
        """Returns the dataset of a split without random augmentation, such as flips."""
        return self.get(split)

    def class_labels(self, split: str) -> Tensor | None:
        """Returns the class of each image of a split, (N,) int64; None without classes."""
        dataset = self.get(split)
        if not isinstance(dataset, ImageDataset) or dataset.classes is None:
            return None
        return torch.from_numpy(dataset.classes).long()

    def next_draw(self) -> int:
        """Returns the draw, over all ranks, of the first training image that no finished step has seen."""
        done = self._batches_done() - self._resumed.get("batches", 0)
        return self._resumed.get("draw", 0) + done * self.batch_size * self._ranks()[1]

    def state_dict(self) -> dict[str, int]:
        """Returns the state for a checkpoint, in draws, so that batch size and world size may change on resume."""
        if "train" not in self._datasets:
            return {}
        return {
            "draw": self.next_draw(),
            "batches": self._batches_done(),
            "seed": self.seed,
            "size": size_of(self.get("train")),
            **self._numbers_of_images(),
        }

    def load_state_dict(self, state_dict: Mapping[str, int]) -> None:  # noqa: D102
        self._resumed = self.checked_state(state_dict)

    @staticmethod
    def checked_state(state: Any) -> dict[str, int]:
        """Returns a state of `state_dict`, which a checkpoint holds.

        Raises:
            UserError: Anything else.
        """
        if not isinstance(state, Mapping):
            raise UserError(f"the state of the data is a {type(state).__name__}, expected {', '.join(_STATE)}")
        names = (*_STATE, *(name for name in (_NAMES, _FILES) if name in state))  # earlier checkpoints have none
        return (
            {name: whole_number(f"data.{name}", state.get(name), 0, _LARGEST_COUNT) for name in names} if state else {}
        )

    def teardown(self, stage: str) -> None:
        """Logs a summary of the unreadable files."""
        for split, dataset in self._datasets.items():
            bad = dataset.bad_images if isinstance(dataset, ImageDataset) else []
            if bad:
                _log.warning("%s: %d unreadable %s images: %s", self.where(split), len(bad), split, name_list(bad))

    # ----------------------------------------------------------------------------------------------------------

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        return self._loader_of_all(self.get(split))

    def _loader_of_all(self, dataset: Dataset[Any]) -> DataLoader[Any]:
        rank, world = self._ranks()
        sampler = EvaluationSampler(size_of(dataset), rank=rank, world_size=world)
        collate = CollateEvaluation(self.task, self.grey)
        return EvaluationLoader(
            dataset, self.val_batch_size, sampler=sampler, collate_fn=collate, **self._loader_options()
        )

    def _loader_options(self) -> dict[str, Any]:
        pin_memory = self.trainer is not None and self.trainer.strategy.root_device.type == "cuda"
        return {**worker_options(self.num_workers), "pin_memory": pin_memory}

    def _report_other_images(self) -> None:
        """Warns if the images are not those that the resumed run has seen."""
        numbers = self._numbers_of_images()  # also of a new run: the files may change before its first checkpoint
        if not numbers or not self._resumed:
            return
        unless = ""
        if self._resumed.get(_NAMES, numbers[_NAMES]) != numbers[_NAMES]:
            what = "names of the images"
        elif self._resumed.get(_FILES, numbers[_FILES]) != numbers[_FILES]:
            what, unless = "sizes or times of modification of the files", ", unless they are copies of the same images"
        else:
            return
        _log.warning(
            "%s: the %s for training and validation changed since the checkpoint, so this run does not repeat what an "
            "uninterrupted run would have done%s",
            *(self.where("train"), what, unless),
        )

    def _numbers_of_images(self) -> dict[str, int]:
        """Returns numbers that tell whether other images are trained or validated with; empty for rendered ones."""
        if self._numbers is None:
            names, files = hashlib.sha256(), hashlib.sha256()
            sources: dict[Source, None] = {}
            for split in ("train", "val"):
                dataset = self.get(split)
                if not isinstance(dataset, ImageDataset):
                    return {}
                for name in (*dataset.source.names, ""):
                    names.update(os.fsencode(name) + b"\0")
                parts = (dataset.source, *(companion.source for companion in dataset.companions.values()))
                sources.update(dict.fromkeys(part.whole() for part in parts))
            for source in sources:
                step = -(-len(source) // _MOST_FILES)
                for file in itertools.islice(source.stored_in(), None, None, step):
                    # Without the path: a data set that is moved is the same.
                    files.update(repr(file_stamp(file)).encode())
            self._numbers = {
                name: int.from_bytes(digest.digest()[:6], "big") for name, digest in ((_NAMES, names), (_FILES, files))
            }
        return self._numbers

    def _ranks(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _batches_done(self) -> int:
        return 0 if self.trainer is None else finished_batches(self.trainer)
