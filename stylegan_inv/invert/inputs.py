"""What is inverted: photographs or SynthFaces, and for some methods a second image and a mask for each."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.images.image_files import BadImage, check_image, list_images, name_list, read_image
from stylegan_inv.data.images.mask_shapes import check_description, check_mask, draw_mask, is_description, read_mask
from stylegan_inv.data.synthfaces.dataset import LABELS, SynthFaces
from stylegan_inv.errors import UserError

_SYNTHFACES = re.compile(r"synthfaces:(\d+)(?:-(\d+))?")
_HELD_OUT = 2  # SynthFaces' seed for tests


@dataclass
class Images:
    """Some images, by name.

    Attributes:
        names: one for each.
        files: where they lie; None for SynthFaces.
        first: number of the first SynthFace.
    """

    names: list[str]
    files: list[Path] | None
    first: int = 0

    @classmethod
    def of(cls, text: str, key: str = "input", on_bad_image: str = "error") -> Images:
        """What `listed` finds, without the files that cannot be read.

        Raises:
            UserError: see `listed`; or nothing is readable, or not everything and ``on_bad_image`` is ``error``.
        """
        found = cls.listed(text, key)
        if found.files is None:
            return found
        good, bad = found.check(range(len(found.names)), on_bad_image)
        if bad:
            print(f"{len(bad)} of {len(found.names)} files cannot be read and are left out: {name_list(bad)}")
        return cls([found.names[i] for i in good], [found.files[i] for i in good])

    @classmethod
    def listed(cls, text: str, key: str = "input") -> Images:
        """An image, a folder, or ``synthfaces:3`` and ``synthfaces:0-7`` (of the test set); no file is opened.

        Raises:
            UserError: no such file, no image, or numbers in the wrong order.
        """
        if match := _SYNTHFACES.fullmatch(text):
            first, last = int(match[1]), int(match[2] or match[1])
            if last < first:
                raise UserError(f"{key}={text}: expected the smaller number first")
            return cls([f"synthfaces_{number}.png" for number in range(first, last + 1)], None, first)
        if text.startswith("synthfaces:"):
            raise UserError(f"{key}={text}: expected synthfaces:<number> or synthfaces:<first>-<last>")
        path = Path(text)
        files = [path] if path.is_file() else list_images(path)
        folder = path if path.is_dir() else path.parent
        return cls([file.relative_to(folder).as_posix() for file in files], files)

    def check(self, indices: Sequence[int], on_bad_image: str = "error") -> tuple[list[int], list[str]]:
        """Decode some files and drop the pictures: better to hear of a broken one now than in the middle of a long run.

        Returns:
            The numbers of the good ones, and what is wrong with the others.

        Raises:
            UserError: a bad file and ``on_bad_image`` is ``error``, or none that is good.
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

    def check_some(self) -> None:
        """Decode files up to the first good one.

        Raises:
            UserError: there is none.
        """
        for index in range(len(self.names)):
            with contextlib.suppress(UserError):
                self.check([index])
                return
        self.check(range(len(self.names)))

    def read(self, index: int, size: int, mode: str) -> dict[str, Tensor]:
        """``image`` (3, size, size) in [-1, 1]; SynthFaces have their ``label`` map as well."""
        if self.files is None:
            item = SynthFaces(size, _HELD_OUT, 1, start=self.first + index)[0]
            return {"image": item["image"], "label": item["label"]}
        return {"image": read_image(self.files[index], size, mode)}  # type: ignore[arg-type]


class Inputs(Dataset[dict[str, Any]]):
    """All that a method is given, image by image: ``image``, and ``second`` and ``mask`` where they are asked for.

    Args:
        images: what is inverted.
        size: side of the square that they become.
        mode: ``crop`` or ``fit``.
        second: one more for each, or one for all.
        mask: a description (see `mask_shapes`), a picture for all, or a folder with one for each name.
    """

    def __init__(
        self, images: Images, size: int, mode: str = "crop", second: Images | None = None, mask: str | None = None
    ) -> None:
        self.images, self.size, self.mode, self.second, self.mask = images, size, mode, second, mask
        self.names = images.names
        if second is not None and len(second.names) not in (1, len(self.names)):
            raise UserError(
                f"second: got {len(second.names)} images for {len(self.names)} of input; expected one for each, or one"
            )
        self._masks = None if mask is None or is_description(mask) else _mask_files(mask, images)
        if mask is not None and self._masks is None:
            check_description(mask, LABELS if images.files is None else None, changed=second is not None)

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> dict[str, Tensor]:
        item = self.images.read(index, self.size, self.mode)
        if self.second is not None:
            number = index if len(self.second.names) > 1 else 0
            item["second"] = self.second.read(number, self.size, self.mode)["image"]
        if self.mask is not None:
            item["mask"] = check_mask(self._mask(index, item), f"mask={self.mask} of {self.names[index]}")
        item.pop("label", None)
        return item

    def _mask(self, index: int, item: dict[str, Tensor]) -> Tensor:
        if self._masks is not None:
            of = None if self.images.files is None else self.images.files[index]
            return read_mask(self._masks[index], of, self.size, self.mode)
        assert self.mask is not None
        return draw_mask(self.mask, self.size, item.get("label"), LABELS, item["image"], item.get("second"))

    def batch(self, first: int, count: int) -> dict[str, Tensor]:
        """Some of them, stacked."""
        items = [self[index] for index in range(first, min(first + count, len(self)))]
        return {name: torch.stack([item[name] for item in items]) for name in items[0]}


class NumberedInputs(Inputs):
    """Inputs with their numbers, for loaders that leave unreadable images out; `collate` makes batches of them.

    Args:
        on_bad_image: ``error`` or ``skip``.
        **kwargs: of `Inputs`.
    """

    def __init__(self, *args: Any, on_bad_image: str = "error", **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.on_bad_image = on_bad_image

    def check_masks(self, indices: Sequence[int]) -> None:
        """Say that a mask is empty before any work starts."""
        if self.mask is not None:
            self.__getitems__(indices)

    def __getitems__(self, indices: Sequence[int]) -> list[tuple[int, dict[str, Tensor] | str]]:
        """Numbers and items; in place of an item that cannot be read, what is wrong with it."""
        found: list[tuple[int, dict[str, Tensor] | str]] = []
        for index in indices:
            try:
                found.append((index, self[index]))
            except BadImage as error:
                if self.on_bad_image == "error":
                    raise
                found.append((index, str(error)))
        return found


def collate(found: Sequence[tuple[int, dict[str, Tensor] | str]]) -> tuple[list[int], dict[str, Tensor], list[str]]:
    """A batch of `Inputs`: the numbers of the images, what belongs to them stacked, and what is wrong with others."""
    good = [(index, item) for index, item in found if isinstance(item, dict)]
    stacked = {name: torch.stack([item[name] for _, item in good]) for name in (good[0][1] if good else ())}
    return [index for index, _ in good], stacked, [item for _, item in found if isinstance(item, str)]


def _mask_files(mask: str, images: Images) -> list[Path]:
    path = Path(mask)
    if path.is_file():
        check_image(path)
        return [path] * len(images.names)
    if not path.is_dir():
        check_description(mask, ())  # says what a mask can be
    found = {file.relative_to(path).with_suffix("").as_posix(): file for file in list_images(path)}
    missing = [name for name in images.names if Path(name).with_suffix("").as_posix() not in found]
    if missing:
        raise UserError(f"mask={mask}: has none for {name_list(missing)}; expected a picture of the same name for each")
    return [found[Path(name).with_suffix("").as_posix()] for name in images.names]
