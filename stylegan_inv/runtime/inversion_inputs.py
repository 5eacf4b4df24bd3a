"""What is inverted: photographs or SynthFaces, and for some methods a second image and a mask for each."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.images import BadImage, check_image, list_images, name_list, read_image
from stylegan_inv.data.mask_shapes import check_description, check_mask, draw_mask, is_description, read_mask
from stylegan_inv.data.synthfaces import LABELS, SynthFaces
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
        """An image, a folder, or ``synthfaces:3`` and ``synthfaces:0-7`` (of the test set).

        Raises:
            UserError: no such file, nothing readable, or numbers in the wrong order.
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
        files = _readable(files, on_bad_image)
        folder = path if path.is_dir() else path.parent
        return cls([file.relative_to(folder).as_posix() for file in files], files)

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
        if mask is not None:
            if self._masks is None:
                check_description(mask, LABELS if images.files is None else None, changed=second is not None)
            for index in range(len(self)):  # an empty mask is said before any work starts
                self[index]

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


def _readable(files: Sequence[Path], on_bad_image: str) -> list[Path]:
    """Decode every file once: better to hear of a broken one now than in the middle of a long run."""
    good, bad = [], []
    for file in files:
        try:
            check_image(file)
            good.append(file)
        except BadImage as error:
            bad.append(str(error))
    if bad and (on_bad_image == "error" or not good):
        more = "" if len(bad) == 1 else f" (and {len(bad) - 1} more of {len(files)} files cannot be read)"
        hint = "; or give on_bad_image=skip" if good else ""
        raise UserError(f"{bad[0]}{more}{hint}")
    if bad:
        print(f"{len(bad)} of {len(files)} files cannot be read and are left out: {name_list(bad)}")
    return good
