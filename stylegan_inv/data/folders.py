"""Folders of images for Lightning."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from stylegan_inv.data.datamodule import ImageDataModule, check_whole
from stylegan_inv.data.folder import FolderImages, OnBadImage
from stylegan_inv.data.images import Mode, list_images
from stylegan_inv.errors import UserError


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
            check_whole("dataset.val_size", val_size, 1)
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
