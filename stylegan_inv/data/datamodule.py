"""Lightning DataModules: where training, validation and test images come from, checked before any work starts.

All of them hand out batches (dicts of tensors, at least ``image`` (B, 3, R, R) in [-1, 1] and ``index``) in an order
that is a pure function of the seed and the draw number: a resumed run continues with the images it would have seen.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytorch_lightning as pl
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, default_collate

from stylegan_inv.data.folder import FolderImages, OnBadImage
from stylegan_inv.data.images import BadImage, Mode, list_images, name_list
from stylegan_inv.data.sampler import EvaluationSampler, ResumableSampler
from stylegan_inv.data.synthfaces import SynthFaces
from stylegan_inv.errors import UserError

_log = logging.getLogger(__name__)
_SPLITS = ("train", "val", "test")


class ImageDataModule(pl.LightningDataModule):
    """What all DataModules here share; a subclass writes :meth:`make`.

    Args:
        batch_size: Training images a step and rank.
        val_batch_size: The same for validation and test; None takes ``batch_size``.
        num_workers: Loader processes a rank; the images do not depend on it.
        seed: Chooses the order of the training images.
        train_shuffle: False keeps the data set's order.
    """

    def __init__(
        self,
        *,
        batch_size: int = 8,
        val_batch_size: int | None = None,
        num_workers: int = 0,
        seed: int = 0,
        train_shuffle: bool = True,
    ) -> None:
        super().__init__()
        for name, value, least in (
            ("batch_size", batch_size, 1),
            ("val_batch_size", batch_size if val_batch_size is None else val_batch_size, 1),
            ("num_workers", num_workers, 0),
            ("seed", seed, 0),
        ):
            _check_whole(f"dataset.{name}", value, least)
        self.batch_size, self.val_batch_size = batch_size, val_batch_size or batch_size
        self.num_workers, self.seed, self.train_shuffle = num_workers, seed, train_shuffle
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
        if split not in _SPLITS:
            raise UserError(f"split {split!r}: expected one of {', '.join(_SPLITS)}")
        if split not in self._sets:
            self._sets[split] = self.make(split)
        return self._sets[split]

    def panel_images(self, count: int) -> Tensor:
        """The first ``count`` validation images (fewer if there are not so many), (B, 3, R, R), for panels."""
        held_out = self.get("val")
        items = held_out.__getitems__(range(min(count, _size(held_out))))  # type: ignore[attr-defined]
        if not items:
            raise UserError(f"{self.where('val')}: none of the first {count} images can be read, expected some to show")
        return torch.stack([item["image"] for item in items])

    # -- Lightning ---------------------------------------------------------------------------------------------

    def setup(self, stage: str | None = None) -> None:
        """Build and check what a stage needs.

        Raises:
            UserError: A folder that is missing or empty, a missing split, or fewer images than one batch on every rank.
        """
        needed = {"fit": ("train", "val"), "validate": ("val",), "test": ("test",), "predict": ("test",)}
        for split in needed.get(stage or "", _SPLITS):
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
        return DataLoader(
            train, self.batch_size, sampler=sampler, collate_fn=_collate_training, **self._loader_options()
        )

    def val_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("val")

    def test_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("test")

    def predict_dataloader(self) -> DataLoader[Any]:  # noqa: D102
        return self._evaluation_loader("test")

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
            bad = data.bad_images if isinstance(data, FolderImages) else []
            if bad:
                _log.warning("%s: %d unreadable %s images: %s", self.where(split), len(bad), split, name_list(bad))

    # ----------------------------------------------------------------------------------------------------------

    def _evaluation_loader(self, split: str) -> DataLoader[Any]:
        data = self.get(split)
        rank, world = self._ranks()
        sampler = EvaluationSampler(_size(data), rank=rank, world_size=world)
        return _EvaluationLoader(
            data, self.val_batch_size, sampler=sampler, collate_fn=_collate_evaluation, **self._loader_options()
        )

    def _loader_options(self) -> dict[str, Any]:
        return {
            "num_workers": self.num_workers,
            "persistent_workers": self.num_workers > 0,
            "pin_memory": self.trainer is not None and self.trainer.strategy.root_device.type == "cuda",
        }

    def _ranks(self) -> tuple[int, int]:
        return (0, 1) if self.trainer is None else (self.trainer.global_rank, self.trainer.world_size)

    def _batches_done(self) -> int:
        # Not `global_step`, which counts every optimiser of a GAN, and gradient accumulation as one. `processed` grows
        # right after the optimiser step, before any callback could save a checkpoint.
        progress: Any = None if self.trainer is None else self.trainer.fit_loop.epoch_loop.batch_progress.total
        return 0 if progress is None else int(progress.processed)


class FacesDataModule(ImageDataModule):
    """SynthFaces, rendered on the fly: seed 0 trains, seed 1 validates, seed 2 tests.

    Args:
        resolution: Side in pixels.
        train_size: Distinct training images.
        val_size: Validation images.
        test_size: Test images.
        obstacles: Probability that something covers a part of the face, in all splits.
        overrides: Factors to fix, e.g. ``{yaw: 0.0}``.
        correlations: Correlations between factors, e.g. ``{"age,eyeglasses": 0.6}``.
        identity_groups: That many consecutive training images show the same person.
        **kwargs: See :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        resolution: int = 64,
        train_size: int = 70000,
        val_size: int = 256,
        test_size: int = 1000,
        obstacles: float = 0.0,
        overrides: Mapping[str, Any] | None = None,
        correlations: Mapping[Any, float] | None = None,
        identity_groups: int = 1,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        self.resolution = resolution
        self.sizes = {"train": train_size, "val": val_size, "test": test_size}
        for split, size in self.sizes.items():
            _check_whole(f"dataset.{split}_size", size, 1)
        self._common: dict[str, Any] = {
            "obstacles": obstacles,
            "overrides": dict(overrides or {}),
            "correlations": dict(correlations or {}),
        }
        self._identity_groups = identity_groups

    def make(self, split: str) -> SynthFaces:  # noqa: D102
        groups = self._identity_groups if split == "train" else 1
        return SynthFaces(
            self.resolution, _SPLITS.index(split), self.sizes[split], identity_groups=groups, **self._common
        )


class FolderDataModule(ImageDataModule):
    """Folders of images: one for each split, or one that is divided.

    Without ``val_root`` the last images of ``root`` (sorted by path, as in FFHQ's own division) are held out:
    neighbours in a folder are often pictures of one person or frames of one film, and stay on one side. Test images are
    those of ``test_root``, else the validation images.

    Args:
        root: Folder of the training images.
        train_root: The same, for who names all three.
        val_root: Folder of the validation images; then all of ``root`` is trained on.
        test_root: Folder of the test images.
        val_size: Validation images: the last ones of ``root``, or the first ones of ``val_root``. None: ``val_share``
            of ``root``, or all of ``val_root``.
        val_share: Part of ``root`` that is held out if ``val_size`` is None.
        resolution: Side of the square they are brought to.
        horizontal_flip: Probability of mirroring a training image.
        on_bad_image: ``error``, ``skip`` or ``replace`` unreadable files, see
            :class:`~stylegan_inv.data.folder.FolderImages`. In validation and test ``replace`` acts as ``skip``: a
            replacement would count twice.
        mode: ``crop`` or ``fit`` what is not square.
        expected_images: Number of images that ``root`` must hold; None accepts any.
        **kwargs: See :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        train_root: str | Path | None = None,
        val_root: str | Path | None = None,
        test_root: str | Path | None = None,
        val_size: int | None = None,
        val_share: float = 0.05,
        resolution: int = 256,
        horizontal_flip: float = 0.5,
        on_bad_image: OnBadImage = "error",
        mode: Mode = "crop",
        expected_images: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if root is not None and train_root is not None:
            raise UserError(f"got dataset.root={root} and dataset.train_root={train_root}, expected one of them")
        if val_size is not None:
            _check_whole("dataset.val_size", val_size, 1)
        if not 0.0 < val_share < 1.0:
            raise UserError(f"dataset.val_share={val_share}: expected a number between 0 and 1")
        self.root = train_root if root is None else root
        self.val_root, self.test_root = val_root, test_root
        self.val_size, self.val_share, self.expected_images = val_size, val_share, expected_images
        self.resolution, self.horizontal_flip = resolution, horizontal_flip
        self.on_bad_image: OnBadImage = on_bad_image
        self.mode: Mode = mode
        self._listed: dict[Path, list[Path]] = {}

    def files(self, split: str) -> tuple[Path, Sequence[Path]]:
        """The folder of a split and its images."""
        if split == "test":
            return (Path(self.test_root), self._list(self.test_root)) if self.test_root else self.files("val")
        if split == "val" and self.val_root is not None:
            return Path(self.val_root), self._list(self.val_root)[: self.val_size]
        if self.root is None:
            need = "dataset.root=<folder>" if split == "train" else "dataset.val_root=<folder> or dataset.root=<folder>"
            raise UserError(f"no folder for the {split} images; give {need}")
        files = self._list(self.root)
        if self.expected_images is not None and len(files) != self.expected_images:
            raise UserError(
                f"{self.root}: got {len(files)} images, expected {self.expected_images}; complete the download, or "
                "give dataset.expected_images=null to take what is there"
            )
        if self.val_root is not None:
            return Path(self.root), files
        held_out = max(1, round(len(files) * self.val_share)) if self.val_size is None else self.val_size
        if held_out >= len(files):
            raise UserError(
                f"{self.root}: got {len(files)} images of which {held_out} would be held out for validation, which "
                "leaves none to train on; give a smaller dataset.val_size, or dataset.val_root=<folder>"
            )
        return Path(self.root), files[-held_out:] if split == "val" else files[:-held_out]

    def make(self, split: str) -> FolderImages:  # noqa: D102
        folder, files = self.files(split)
        training = split == "train"
        return FolderImages(
            folder,
            self.resolution,
            horizontal_flip=self.horizontal_flip if training else 0.0,
            seed=self.seed,
            on_bad_image="skip" if self.on_bad_image == "replace" and not training else self.on_bad_image,
            mode=self.mode,
            files=files,
        )

    def where(self, split: str) -> str:  # noqa: D102
        return str(self.files(split)[0])

    def _list(self, folder: str | Path) -> list[Path]:
        folder = Path(folder)
        if folder not in self._listed:
            self._listed[folder] = list_images(folder)
        return self._listed[folder]


class CelebAHQDataModule(FolderDataModule):
    """CelebA-HQ with its official split: 24,183 training, 2,993 validation and 2,824 test images.

    Two layouts: ``root/train``, ``root/val`` and ``root/test``; or the 30,000 images of CelebAMask-HQ in one folder
    below ``root`` with the file ``CelebA-HQ-to-CelebA-mapping.txt``, which says where each came from in CelebA.

    Args:
        root: The folder.
        mapping: The mapping file, if it is not in ``root``.
        check_sizes: Insist on the official sizes; numbers on other splits do not compare with published ones.
        **kwargs: See :class:`FolderDataModule`.
    """

    SIZES = {"train": 24183, "val": 2993, "test": 2824}
    MAPPING = "CelebA-HQ-to-CelebA-mapping.txt"
    #: First CelebA index of validation and of test, as CelebAMask-HQ's own partition script has them.
    BOUNDS = (162771, 182638)

    def __init__(
        self, *, root: str | Path, mapping: str | Path | None = None, check_sizes: bool = True, **kwargs: Any
    ) -> None:
        super().__init__(root=root, **kwargs)
        self.mapping, self.check_sizes = mapping, check_sizes

    def files(self, split: str) -> tuple[Path, Sequence[Path]]:  # noqa: D102
        assert self.root is not None
        root = Path(self.root)
        folder = root / split
        mapping = root / self.MAPPING if self.mapping is None else Path(self.mapping)
        files: Sequence[Path]
        if folder.is_dir():
            files = self._list(folder)
        elif mapping.is_file():
            folder, files = root, self._by_mapping(mapping)[split]
        else:
            raise UserError(
                f"{root}: found neither the folder {split}/ nor {self.MAPPING}; expected CelebA-HQ divided into "
                "train/, val/ and test/, or CelebAMask-HQ as it is distributed (or give dataset.mapping=<file>)"
            )
        if self.check_sizes and len(files) != self.SIZES[split]:
            raise UserError(
                f"{folder}: got {len(files)} {split} images, expected the {self.SIZES[split]} of the official split; "
                "complete the download, or give dataset.check_sizes=false"
            )
        return folder, files[: self.val_size] if split == "val" else files

    def _by_mapping(self, mapping: Path) -> dict[str, list[Path]]:
        assert self.root is not None
        split_of: dict[int, str] = {}
        for number, line in enumerate(mapping.read_text().splitlines(), start=1):
            fields = line.split()
            if len(fields) < 2 or not (fields[0] + fields[1]).isdigit():
                if number > 1 and fields:  # the first line is the header
                    raise UserError(f"{mapping}, line {number}: got {line[:60]!r}, expected 'idx orig_idx orig_file'")
                continue
            original = int(fields[1])
            split_of[int(fields[0])] = _SPLITS[sum(original >= bound for bound in self.BOUNDS)]
        splits: dict[str, list[Path]] = {split: [] for split in _SPLITS}
        for file in self._list(self.root):
            # The masks of CelebAMask-HQ lie below the same root, as 00000_hair.png.
            if file.stem.isdigit() and int(file.stem) in split_of:
                splits[split_of[int(file.stem)]].append(file)
        return splits


class _EvaluationLoader(DataLoader[Any]):
    """Passes over batches of which no image could be read (``on_bad_image=skip``)."""

    def __iter__(self) -> Iterator[Any]:  # type: ignore[override]
        return filter(lambda batch: batch is not None, super().__iter__())


def _collate_evaluation(items: list[dict[str, Any]]) -> dict[str, Any] | None:
    return default_collate(items) if items else None


def _collate_training(items: list[dict[str, Any]]) -> dict[str, Any]:
    if not items:
        # Passing over it would shift the images of this rank against the step count, and resume would not be exact.
        raise BadImage(
            "no image of this training batch can be read (the files are named above); give "
            "dataset.on_bad_image=replace, or repair them"
        )
    return default_collate(items)


def _size(data: Dataset[Any]) -> int:
    return len(data)  # type: ignore[arg-type]


def _check_whole(name: str, value: Any, least: int) -> None:
    if isinstance(value, bool) or not isinstance(value, int) or value < least:
        raise UserError(f"{name}={value!r}: expected a whole number of at least {least}")
