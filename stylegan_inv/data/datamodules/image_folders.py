"""Image files for Lightning: folders, zips, LMDBs or shards."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from stylegan_inv.data.datamodules.base import ImageDataModule, check_whole
from stylegan_inv.data.datamodules.image_set import Companion, ImageSet, Kind, OnBadImage, OnSmallImage
from stylegan_inv.data.datamodules.splits import hold_out, identities, listed_rows
from stylegan_inv.data.images.decoding import EXACT, FAST
from stylegan_inv.data.images.resizing import Geometry, Mode
from stylegan_inv.data.sources.name_lists import match
from stylegan_inv.data.sources.opening import open_source
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError


class FolderDataModule(ImageDataModule):
    """Image files: one place for each split, or one that is divided.

    A place is whatever :func:`.open_source` reads. One place is divided by ``splits``, or its
    last images are held out (sorted by path, as in FFHQ's own division): neighbours in a folder are often pictures of
    one person or frames of one film, and stay on one side. ``identities`` makes sure of that. Test images are those of
    ``test_root``, else the validation images.

    Args:
        root: Place of the training images.
        train_root: The same, for who names all three.
        val_root: Place of the validation images; then all of ``root`` is trained on.
        test_root: Place of the test images.
        splits: Lists of names, see :func:`.listed_rows`.
        identities: Who is on each image, see :func:`.identities`: nobody is on both sides.
        val_size: Validation images: the last ones of ``root`` (with ``identities`` so many at least), or the first ones
            of ``val_root``. None: ``val_share`` of ``root``, or all of ``val_root``.
        val_share: Part of ``root`` that is held out if ``val_size`` is None.
        mask_root: Place of a mask for each image of ``root``, of the same name with any suffix: the entry ``mask``,
            white where it counts. ``{split}`` in it becomes the name of the split.
        val_mask_root: The same for ``val_root`` and ``test_root``; None: none for these, as only training needs them.
        label_root: The same for label maps: ``label``.
        source_root: The same for what the method shall see in place of the image: ``source``.
        resolution: Side of the square they are brought to.
        mode: ``crop``, ``fit`` or ``stretch`` what has other proportions.
        aspect: Proportions of the content; the rest of the square are black bars.
        bars: False leaves out these bars.
        box: Pixels to cut out first: left, top, right, bottom.
        horizontal_flip: Probability of mirroring a training image.
        fast_decoding: Decode training JPEGs of 1024 px at 512 for 256; validation and test are always exact.
        on_bad_image: ``error``, ``skip`` or ``replace`` unreadable files, see
            :class:`.ImageSet`. In validation and test ``replace`` acts as ``skip``: a
            replacement would count twice.
        on_small_image: ``enlarge`` or ``refuse`` images of fewer pixels.
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
        splits: str | Path | None = None,
        identities: str | Path | None = None,
        val_size: int | None = None,
        val_share: float = 0.05,
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
            check_whole("dataset.val_size", val_size, 1)
        if not 0.0 < val_share < 1.0:
            raise UserError(f"dataset.val_share={val_share}: expected a number between 0 and 1")
        if (splits is not None) + (identities is not None) + (val_root is not None) > 1:
            raise UserError("dataset: got more than one of splits, identities and val_root; expected one way to divide")
        self.root = train_root if root is None else root
        self.val_root, self.test_root = val_root, test_root
        self.splits, self.identities = splits, identities
        self.val_size, self.val_share, self.expected_images = val_size, val_share, expected_images
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
        """Side of the images."""
        return self.geometry.resolution

    def images(self, split: str) -> Source:
        """The images of a split."""
        if split == "test" and self.test_root is not None:
            return self._open(self.test_root)
        if split in ("val", "test") and self.val_root is not None:
            held_out = self._open(self.val_root)
            return held_out if self.val_size is None else held_out.choose(range(min(self.val_size, len(held_out))))
        if self.root is None:
            need = "dataset.root=<folder>" if split == "train" else "dataset.val_root=<folder> or dataset.root=<folder>"
            raise UserError(f"no folder for the {split} images; give {need}")
        source = self._open(self.root)
        if self.expected_images is not None and len(source) != self.expected_images:
            raise UserError(
                f"{self.root}: got {len(source)} images, expected {self.expected_images}; complete the download, or "
                "give dataset.expected_images=null to take what is there"
            )
        if self.splits is not None:
            return source.choose(listed_rows(source, Path(self.splits), split))
        return source if self.val_root is not None else self._divided(source, split)

    def _divided(self, source: Source, split: str) -> Source:
        wanted = max(1, round(len(source) * self.val_share)) if self.val_size is None else self.val_size
        if self.identities is not None:
            held = hold_out(identities(source, self.identities), wanted)
        else:
            held = np.arange(len(source)) >= len(source) - wanted
        if held.all():
            raise UserError(
                f"{self.root}: got {len(source)} images of which {len(source)} would be held out for validation, which "
                "leaves none to train on; give a smaller dataset.val_size, or dataset.val_root=<folder>"
            )
        return source.choose(np.flatnonzero(~held if split == "train" else held))

    def make(self, split: str) -> ImageSet:  # noqa: D102
        training, images = split == "train", self.images(split)
        return ImageSet(
            images,
            self.geometry,
            horizontal_flip=self.horizontal_flip if training else 0.0,
            seed=self.seed,
            on_bad_image="skip" if self.on_bad_image == "replace" and not training else self.on_bad_image,
            on_small_image=self.on_small_image,
            companions=self._companions(images, split),
            margin=FAST if training and self.fast_decoding else EXACT,
        )

    def where(self, split: str) -> str:  # noqa: D102
        return str(self.images(split).path)

    def _companions(self, images: Source, split: str) -> dict[str, Companion]:
        of_root = split == "train" or (self.val_root is None and (split == "val" or self.test_root is None))
        found = {}
        for (name, kind), given in self.companions.items():
            root = given if of_root or name != "mask" else self.val_mask_root
            if root is not None:
                source = self._open(str(root).replace("{split}", split))
                rows = match(source, images.names, name, f"{split} images of {images.path}")
                found[name] = Companion(source.choose(rows), kind)
        return found

    def _open(self, path: str | Path) -> Source:
        if str(path) not in self._opened:
            self._opened[str(path)] = open_source(path, self.resolution)
        return self._opened[str(path)]


def _geometry(resolution: int, mode: Mode, aspect: Sequence[int], bars: bool, box: Sequence[int] | None) -> Geometry:
    try:
        return Geometry(resolution, mode, tuple(aspect), bars, None if box is None else tuple(box))  # type: ignore[arg-type]
    except UserError as error:
        raise UserError(f"dataset.{error}") from error
