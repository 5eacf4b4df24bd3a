"""Image files for Lightning, from folders, zips, LMDBs or tar shards."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from pytorch_lightning.utilities.rank_zero import rank_zero_only

from stylegan_inv.data.datamodules.base import ImageDataModule
from stylegan_inv.data.datamodules.image_dataset import Companion, ImageDataset, Kind, OnBadImage, OnSmallImage
from stylegan_inv.data.datamodules.splits import hold_out, identities, listed_rows
from stylegan_inv.data.images.decoding import EXACT, FAST
from stylegan_inv.data.images.image_files import left_out_lines
from stylegan_inv.data.images.resizing import Geometry, Mode
from stylegan_inv.data.sources.class_labels import required_classes
from stylegan_inv.data.sources.name_lists import match
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import real_number, whole_number

_log = logging.getLogger(__name__)


class FolderDataModule(ImageDataModule):
    """Image files, with one root for each split or one root that is divided into splits.

    A root is any path that :func:`.open_source` reads. A single root is divided by ``splits``, or its last images are
    held out for validation (sorted by path, as in FFHQ's own split). Neighbouring files often show the same person or
    are frames of the same video, so a contiguous part keeps most of them in one split; ``identities`` guarantees it.
    The test images are those of ``test_root``, or else the validation images.

    Args:
        root: Training images.
        train_root: Alias of ``root``, for configs that name all three roots.
        val_root: Validation images; then all images of ``root`` are for training.
        test_root: Test images.
        splits: Lists of names, see :func:`.listed_rows`.
        identities: Identity of each image, see :func:`.identities`; no person is in two splits.
        val_size: Number of validation images: the last ones of ``root`` (with ``identities`` at least this many), or
            the first ones of ``val_root``. None uses ``val_fraction`` of ``root``, or all of ``val_root``.
        val_fraction: Fraction of ``root`` that is held out if ``val_size`` is None, in (0, 1).
        mask_root: Masks of the images of ``root``, with the same names and any suffix, white where the mask is 1: the
            entry ``mask`` of a sample. ``{split}`` is replaced by the name of the split.
        val_mask_root: Masks of the images of ``val_root`` and ``test_root``; None gives these no masks, which only
            training needs.
        label_root: Label maps, found in the same way: the entry ``label``.
        source_root: Images that the method sees instead, found in the same way: the entry ``source``.
        resolution: Side of the square images.
        mode: ``crop``, ``fit`` or ``stretch`` for images with other proportions, see :class:`.Geometry`.
        aspect: Height and width of the content, as a proportion; black bars fill the square.
        bars: False removes these bars.
        box: Region of each file to crop first: left, top, right and bottom in pixels.
        horizontal_flip: Probability of flipping a training image.
        fast_decoding: Whether training JPEGs of 1024 px are decoded at 512 px for a resolution of 256. Validation and
            test images are always decoded exactly.
        on_bad_image: ``error``, ``skip`` or ``replace`` unreadable files, see :class:`.ImageDataset`. In validation
            and test ``replace`` acts as ``skip``, as a replacement would be counted twice.
        on_small_image: ``enlarge`` or ``refuse`` images of fewer pixels, see :class:`.ImageDataset`.
        expected_images: Number of images that ``root`` must have; None accepts any.
        **kwargs: See :class:`ImageDataModule`.
    """

    def __init__(
        self,
        *,
        root: str | Path | None = None,
        train_root: str | Path | None = None,
        val_root: str | Path | None = None,
        test_root: str | Path | None = None,
        splits: str | Path | None = None,
        identities: str | Path | None = None,
        val_size: int | None = None,
        val_fraction: float = 0.05,
        mask_root: str | Path | None = None,
        val_mask_root: str | Path | None = None,
        label_root: str | Path | None = None,
        source_root: str | Path | None = None,
        resolution: int = 256,
        mode: Mode = "crop",
        aspect: Sequence[int] = (1, 1),
        bars: bool = True,
        box: Sequence[int] | None = None,
        horizontal_flip: float = 0.5,
        fast_decoding: bool = True,
        on_bad_image: OnBadImage = "error",
        on_small_image: OnSmallImage = "enlarge",
        expected_images: int | None = None,
        **kwargs: Any,
    ) -> None:
        super().__init__(**kwargs)
        if root is not None and train_root is not None:
            raise UserError(f"got dataset.root={root} and dataset.train_root={train_root}, expected one of them")
        if val_size is not None:
            whole_number("dataset.val_size", val_size)
        if real_number("dataset.val_fraction", val_fraction, most=1, above=0) == 1:
            raise UserError("dataset.val_fraction=1: expected a number below 1, which leaves images for training")
        if (splits is not None) + (identities is not None) + (val_root is not None) > 1:
            raise UserError("dataset: got more than one of splits, identities and val_root; expected one way to split")
        self.root = train_root if root is None else root
        self.val_root, self.test_root = val_root, test_root
        self.splits, self.identities = splits, identities
        self.val_size, self.val_fraction, self.expected_images = val_size, val_fraction, expected_images
        self.geometry = _geometry(resolution, mode, aspect, bars, box)
        self.horizontal_flip, self.fast_decoding = horizontal_flip, fast_decoding
        self.on_bad_image: OnBadImage = on_bad_image
        self.on_small_image: OnSmallImage = on_small_image
        self.val_mask_root = val_mask_root
        roots: dict[tuple[str, Kind], str | Path | None] = {
            ("mask", "mask"): mask_root,
            ("label", "label"): label_root,
            ("source", "image"): source_root,
        }
        self.companions = {key: root for key, root in roots.items() if root is not None}
        self._opened: dict[str, Source] = {}

    @property
    def resolution(self) -> int:
        """Side of the images in pixels."""
        return self.geometry.resolution

    def images(self, split: str) -> Source:
        """Returns the images of a split.

        Raises:
            UserError: There is no root for the split, or ``root`` does not have ``expected_images``.
        """
        if split == "test" and self.test_root is not None:
            return self._open(self.test_root)
        if split in ("val", "test") and self.val_root is not None:
            held_out = self._open(self.val_root)
            return held_out if self.val_size is None else held_out.subset(range(min(self.val_size, len(held_out))))
        if self.root is None:
            need = "dataset.root=<folder>" if split == "train" else "dataset.val_root=<folder> or dataset.root=<folder>"
            raise UserError(f"no folder for the {split} images; give {need}")
        source = self._open(self.root)
        if self.expected_images is not None and len(source) != self.expected_images:
            raise UserError(
                f"{self.root}: got {len(source)} images, expected {self.expected_images}; complete the download, or "
                "give dataset.expected_images=null to use the images that are there"
            )
        if self.splits is not None:
            return source.subset(listed_rows(source, Path(self.splits), split))
        return source if self.val_root is not None else self._split(source, split)

    def _split(self, source: Source, split: str) -> Source:
        count = max(1, round(len(source) * self.val_fraction)) if self.val_size is None else self.val_size
        if self.identities is not None:
            held_out = hold_out(identities(source, self.identities), count)
        else:
            held_out = np.arange(len(source)) >= len(source) - count
        if held_out.all():
            raise UserError(
                f"{self.root}: got {len(source)} images of which {len(source)} would be held out for validation, which "
                "leaves none to train on; give a smaller dataset.val_size, or dataset.val_root=<folder>"
            )
        return source.subset(np.flatnonzero(~held_out if split == "train" else held_out))

    def make(self, split: str) -> ImageDataset:  # noqa: D102
        return self._dataset(split, training=split == "train")

    def unaugmented(self, split: str) -> ImageDataset:  # noqa: D102
        return self._dataset(split, training=False)

    def _dataset(self, split: str, training: bool) -> ImageDataset:
        images = self.images(split)
        return ImageDataset(
            images,
            self.geometry,
            horizontal_flip=self.horizontal_flip if training else 0.0,
            seed=self.seed,
            on_bad_image="skip" if self.on_bad_image == "replace" and not training else self.on_bad_image,
            on_small_image=self.on_small_image,
            companions=self._companions(images, split),
            margin=FAST if training and self.fast_decoding else EXACT,
        )

    def use_classes(self, count: int, splits: Sequence[str] = ("train", "val"), trains_generator: bool = False) -> None:  # noqa: D102
        for split in splits:
            dataset = self.get(split)
            assert isinstance(dataset, ImageDataset)
            must_occur = trains_generator and split == "train"
            dataset.classes = required_classes(dataset.source.classes, count, self.where(split), must_occur)

    def where(self, split: str) -> str:  # noqa: D102
        return str(self.images(split).path)

    def _companions(self, images: Source, split: str) -> dict[str, Companion]:
        of_root = split == "train" or (self.val_root is None and (split == "val" or self.test_root is None))
        found = {}
        for (name, kind), train_root in self.companions.items():
            root = train_root if of_root or name != "mask" else self.val_mask_root
            if root is not None:
                source = self._open(str(root).replace("{split}", split))
                rows = match(source, images.names, name, f"{split} images of {images.path}")
                found[name] = Companion(source.subset(rows), kind)
        return found

    def _open(self, path: str | Path) -> Source:
        if str(path) not in self._opened:
            self._opened[str(path)] = open_source(path, self.resolution)
            for line in left_out_lines(self._opened[str(path)].left_out):
                _warn_once(f"{path}: {line}")
        return self._opened[str(path)]


@rank_zero_only
def _warn_once(text: str) -> None:
    _log.warning("%s", text)


def _geometry(resolution: int, mode: Mode, aspect: Sequence[int], bars: bool, box: Sequence[int] | None) -> Geometry:
    try:
        return Geometry(resolution, mode, tuple(aspect), bars, None if box is None else tuple(box))  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"dataset.{error}") from error
