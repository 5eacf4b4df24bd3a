"""The inputs of an inversion: image files or SynthFaces, and for some methods a reference image and a mask for each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.images.image_files import (
    BadImage,
    FoundImages,
    check_image,
    find_images,
    left_out_lines,
    list_images,
    name_list,
    read_image,
    to_grey,
)
from stylegan_inv.data.images.mask_shapes import check_description, check_mask, draw_mask, is_description, read_mask
from stylegan_inv.data.sources.class_labels import read_classes, required_classes
from stylegan_inv.data.sources.name_lists import stem
from stylegan_inv.data.synthfaces.dataset import LABELS, SynthFaces
from stylegan_inv.errors import UserError
from stylegan_inv.generators import Generator
from stylegan_inv.invert.input_warnings import Finding, InputCheck
from stylegan_inv.runtime.resumable_job import is_unfinished
from stylegan_inv.utils.text import readable

_SYNTHFACES = re.compile(r"synthfaces:(\d{1,9})(?:-(\d{1,9}))?", re.ASCII)
_MOST_SYNTHFACES = 10_000_000
_TEST_SEED = 2  # seed of SynthFaces' test split


@dataclass
class Images:
    """A list of images.

    Attributes:
        names: Name of each image, relative to the input folder.
        files: File of each image; None for SynthFaces.
        first: Number of the first SynthFace.
        left_out: Names of image files in formats that cannot be read, which are not among the images.
    """

    names: list[str]
    files: list[Path] | None
    first: int = 0
    left_out: list[str] = field(default_factory=list)

    @classmethod
    def find(cls, text: str, key: str = "input") -> Images:
        """Returns the images that a setting names; no file is opened.

        Args:
            text: An image, a folder, or ``synthfaces:3`` and ``synthfaces:0-7`` (of the test split).
            key: Name of the setting, for errors.

        Raises:
            UserError: No such file, no image, or numbers in the wrong order.
        """
        if match := _SYNTHFACES.fullmatch(text):
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise UserError(f"{key}={text}: expected the smaller number first")
            if last - first >= _MOST_SYNTHFACES:
                raise UserError(f"{key}={text}: expected at most {_MOST_SYNTHFACES:,} images")
            return cls([f"synthfaces_{number}.png" for number in range(first, last + 1)], None, first)
        if text.startswith("synthfaces:"):
            raise UserError(
                f"{key}={text[:60]}: expected synthfaces:<number> or synthfaces:<first>-<last>, below 1,000,000,000"
            )
        path = Path(text)
        if is_unfinished(path):
            raise UserError(f"{key}={text}: holds an inversion that was interrupted; repeat its command to complete it")
        found = FoundImages([path], []) if path.is_file() else find_images(path)
        folder = path if path.is_dir() else path.parent
        names, others = (
            [readable(file.relative_to(folder).as_posix()) for file in files] for files in (found.images, found.others)
        )
        return cls(names, found.images, left_out=others)

    @classmethod
    def find_readable(cls, text: str, key: str = "input", on_bad_image: str = "error") -> Images:
        """Returns the images that a setting names, without files that cannot be read.

        Raises:
            UserError: See `find`; or no file can be read, or not every file and ``on_bad_image`` is ``error``.
        """
        found = cls.find(text, key)
        if found.files is None:
            return found
        for line in left_out_lines(found.left_out):
            print(f"{key}={text}: {line}")
        good, bad = found.check(range(len(found.names)), on_bad_image)
        if bad:
            print(f"{len(bad)} of {len(found.names)} files cannot be read and are skipped: {name_list(bad)}")
        return cls([found.names[i] for i in good], [found.files[i] for i in good], left_out=found.left_out)

    def check(self, indices: Sequence[int], on_bad_image: str = "error") -> tuple[list[int], list[str]]:
        """Decodes some of the files, so that errors appear before a long run and not within it.

        Returns:
            The indices of the files that can be read, and the errors of the others.

        Raises:
            UserError: A file cannot be read and ``on_bad_image`` is ``error``, or no file can be read.
        """
        if self.files is None:
            return list(indices), []
        good, bad = [], []
        for index in indices:
            try:
                check_image(self.files[index])
                good.append(index)
            except BadImage as error:
                bad.append(str(error))
        if bad and (on_bad_image == "error" or not good):
            more = "" if len(bad) == 1 else f" (and {len(bad) - 1} more of {len(indices)} files cannot be read)"
            hint = "; or give on_bad_image=skip" if good else ""
            raise UserError(f"{bad[0]}{more}{hint}")
        return good, bad

    def classes(self, count: int) -> Tensor:
        """Returns the class of each image, (N,) int64, from the ``dataset.json`` of its folder.

        Args:
            count: Number of classes of the generator.

        Raises:
            UserError: There is no such file, or it does not give each image a class of the generator.
        """
        if self.files is None:
            return torch.from_numpy(required_classes(None, count, "synthfaces"))
        folder = self.folder
        assert folder is not None
        return torch.from_numpy(required_classes(read_classes(folder, self.names, others=True), count, str(folder)))

    @property
    def folder(self) -> Path | None:
        """The folder that the names are relative to; None for SynthFaces."""
        return None if self.files is None else self.files[0].parents[self.names[0].count("/")]

    def check_any(self) -> None:
        """Decodes files until the first one that can be read.

        Raises:
            UserError: No file can be read.
        """
        for index in range(len(self.names)):
            with contextlib.suppress(UserError):
                self.check([index])
                return
        self.check(range(len(self.names)))

    def read(self, index: int, size: int, mode: str) -> dict[str, Tensor]:
        """Returns ``image`` (3, size, size) in [-1, 1], and for SynthFaces the ``label`` map (size, size)."""
        if self.files is None:
            item = SynthFaces(size, _TEST_SEED, 1, start=self.first + index)[0]
            return {"image": item["image"], "label": item["label"]}
        return {"image": read_image(self.files[index], size, mode)}  # type: ignore[arg-type]


class Inputs(Dataset[dict[str, Any]]):
    """The inputs of a method: ``image``, and ``reference`` and ``mask`` where they are given.

    Args:
        images: Target images.
        size: Side length of the square images, in pixels.
        mode: ``crop`` or ``fit``.
        reference: Reference images, one for each target or one for all; None for none.
        mask: A description (see `mask_shapes`), an image file for all, or a folder with a file of each image's name;
            None for none.
        generator: A grey one turns the images grey. With ``class=dataset`` each image gets its class.

    Attributes:
        classes: Class of each image, (N,) int64; None where they are not used.
    """

    def __init__(
        self,
        images: Images,
        size: int,
        mode: str = "crop",
        reference: Images | None = None,
        mask: str | None = None,
        generator: Generator | None = None,
    ) -> None:
        self._grey = generator is not None and generator.grey
        per_image = generator is not None and generator.class_per_image
        self.classes = images.classes(generator.c_dim) if generator is not None and per_image else None
        self.images, self.size, self.mode, self.reference, self.mask = images, size, mode, reference, mask
        self.names = images.names
        if reference is not None and len(reference.names) not in (1, len(self.names)):
            got = f"{len(reference.names)} images for {len(self.names)} of input"
            raise UserError(f"reference: got {got}; expected one for each, or one for all")
        self._mask_files = None if mask is None or is_description(mask) else _find_masks(mask, images)
        if mask is not None and self._mask_files is None:
            check_description(mask, LABELS if images.files is None else None, changed=reference is not None)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = self.images.read(index, self.size, self.mode)
        if self.reference is not None:
            number = index if len(self.reference.names) > 1 else 0
            item["reference"] = self.reference.read(number, self.size, self.mode)["image"]
        if self._grey:
            item.update({name: to_grey(item[name]) for name in ("image", "reference") if name in item})
        if self.mask is not None:
            item["mask"] = check_mask(self._read_mask(index, item), f"mask={self.mask} of {self.names[index]}")
        item.pop("label", None)
        return item

    def _read_mask(self, index: int, item: dict[str, Tensor]) -> Tensor:
        if self._mask_files is not None:
            image_file = None if self.images.files is None else self.images.files[index]
            return read_mask(self._mask_files[index], image_file, self.size, self.mode)
        assert self.mask is not None
        return draw_mask(self.mask, self.size, item.get("label"), LABELS, item["image"], item.get("reference"))

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        """Returns consecutive items, stacked."""
        items = [self[index] for index in range(first, min(first + count, len(self)))]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}


@dataclass
class InputBatch:
    """A batch of inputs.

    Attributes:
        indices: Indices of the images that could be read.
        tensors: ``image`` (B, 3, S, S), and ``reference`` (B, 3, S, S) and ``mask`` (B, 1, S, S) where they are given;
            empty if no image could be read.
        errors: Errors of the images that could not be read.
        findings: What is wrong with the image files, see `InputCheck`.
    """

    indices: list[int]
    tensors: dict[str, Tensor]
    errors: list[str]
    findings: list[Finding]


@dataclass
class ReadImage:
    """An image that was read, or the reason why it could not be read.

    Attributes:
        index: Index of the image.
        tensors: ``image`` (3, S, S), and ``reference`` and ``mask`` where they are given; None if it cannot be read.
        error: The reason; empty if it was read.
        findings: What is wrong with the file, see `InputCheck`.
    """

    index: int
    tensors: dict[str, Tensor] | None
    error: str = ""
    findings: list[Finding] = field(default_factory=list)


class IndexedInputs(Inputs):
    """Inputs with their indices, for a ``DataLoader`` with `collate` that skips images that cannot be read.

    Args:
        on_bad_image: ``error`` or ``skip``.
        check: Judges the image files; None for no judgement.
        **kwargs: See `Inputs`.
    """

    def __init__(self, *args: Any, on_bad_image: str = "error", check: InputCheck | None = None, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_bad_image, self.check = on_bad_image, check

    def check_masks(self, indices: Sequence[int]) -> None:
        """Raises a UserError if the mask of one of the images cannot be read or is empty."""
        for index in indices if self.mask is not None else ():
            self._read(index)

    def __getitems__(self, indices: Sequence[int]) -> list[ReadImage]:
        """Reads images and judges their files."""
        found = [self._read(index) for index in indices]
        for one in found:
            if one.tensors is not None and self.check is not None and self.images.files is not None:
                file = self.images.files[one.index]
                one.findings = self.check.check_file(one.index, file, one.tensors["image"])
        return found

    def _read(self, index: int) -> ReadImage:
        try:
            return ReadImage(index, self[index])
        except BadImage as error:
            if self.on_bad_image == "error":
                raise
            return ReadImage(index, None, str(error))


def collate(found: Sequence[ReadImage]) -> InputBatch:
    """Returns a batch of `IndexedInputs`."""
    good = [(one.index, one.tensors) for one in found if one.tensors is not None]
    return InputBatch(
        [index for index, _ in good],
        {name: torch.stack([tensors[name] for _, tensors in good]) for name in (good[0][1] if good else ())},
        [one.error for one in found if one.tensors is None],
        [finding for one in found for finding in one.findings],
    )


def _find_masks(mask: str, images: Images) -> list[Path]:
    path = Path(mask)
    if path.is_file():
        check_image(path)
        return [path] * len(images.names)
    if not path.is_dir():
        check_description(mask, ())  # raises, with a list of what a mask can be
    wanted = {stem(name) for name in images.names}
    found: dict[str, Path] = {}
    for file in list_images(path):
        name = stem(file.relative_to(path).as_posix())
        if (other := found.setdefault(name, file)) is not file and name in wanted:
            raise UserError(f"mask={mask}: has two masks of one name, {name_list([other, file])}; expected one of them")
    missing = [name for name in images.names if stem(name) not in found]
    if missing:
        raise UserError(f"mask={mask}: has none for {name_list(missing)}; expected an image of the same name for each")
    return [found[stem(name)] for name in images.names]
