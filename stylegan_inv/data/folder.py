"""A folder of images as a data set that survives bad files in the way you choose."""

from __future__ import annotations

import logging
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from torch.utils.data import Dataset

from stylegan_inv.data.images import BadImage, Mode, list_images, name_list, read_image
from stylegan_inv.data.sampler import Draw
from stylegan_inv.errors import UserError

_log = logging.getLogger(__name__)

OnBadImage = Literal["error", "skip", "replace"]
_REPLACEMENTS = 16


class FolderImages(Dataset[dict[str, Any]]):
    """Images of a folder (and the folders below), cropped and resized to a square.

    An item is a dict: ``image`` (3, R, R) float in [-1, 1], ``index`` its place in :attr:`files`, ``name`` its path
    below the folder. It is a pure function of (seed, draw), where the draw comes with the indices of
    :class:`~stylegan_inv.data.sampler.ResumableSampler` (a plain index is its own draw): which worker reads it and when
    does not matter.

    Args:
        root: The folder.
        resolution: Side of the square.
        horizontal_flip: Probability of mirroring an image; 0.5 is what the authors of pSp, e4e and ReStyle train with.
        seed: Of the flips and the replacements.
        on_bad_image: What to do with a file that cannot be read. ``error`` stops and names it. ``skip`` leaves it out:
            the batch is one shorter, the others stay as they were. ``replace`` puts another image in its place, chosen
            by (seed, index) alone, so the batch keeps its size. Both count it and name it, see :attr:`bad_images`.
        mode: ``crop`` or ``fit``, see :func:`~stylegan_inv.data.images.read_image`.
        files: Use these files instead of listing ``root``; they need not lie in it.

    Raises:
        UserError: No such folder, no image in it, or a bad argument.
    """

    def __init__(
        self,
        root: str | Path,
        resolution: int = 256,
        *,
        horizontal_flip: float = 0.0,
        seed: int = 0,
        on_bad_image: OnBadImage = "error",
        mode: Mode = "crop",
        files: Sequence[str | Path] | None = None,
    ) -> None:
        if isinstance(resolution, bool) or not isinstance(resolution, int) or resolution < 1:
            raise UserError(f"resolution={resolution!r}: expected a whole number of at least 1")
        if not 0.0 <= float(horizontal_flip) <= 1.0:
            raise UserError(f"horizontal_flip={horizontal_flip!r}: expected a probability from 0 to 1 (true is 1)")
        if on_bad_image not in ("error", "skip", "replace"):
            raise UserError(f"on_bad_image={on_bad_image!r}: expected error, skip or replace")
        if mode not in ("crop", "fit"):
            raise UserError(f"mode={mode!r}: expected crop or fit")
        self.root, self.resolution, self.seed = Path(root), resolution, seed
        self.horizontal_flip, self.on_bad_image, self.mode = float(horizontal_flip), on_bad_image, mode
        self.files = list_images(self.root) if files is None else [Path(file) for file in files]
        if not self.files:
            raise UserError(f"{self.root}: got an empty list of files, expected at least one image")
        # One byte for each file, in memory that the workers share: what they meet is known to the main process.
        self._bad = torch.zeros(len(self.files), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.files)

    def name(self, index: int) -> str:
        """The path of a file below the folder, with forward slashes."""
        file = self.files[index]
        return file.relative_to(self.root).as_posix() if file.is_relative_to(self.root) else file.as_posix()

    @property
    def names(self) -> list[str]:
        """The names of all images."""
        return [self.name(index) for index in range(len(self))]

    @property
    def bad_images(self) -> list[str]:
        """The names of the files found unreadable so far, by any worker."""
        return [self.name(index) for index in self._bad.nonzero().flatten().tolist()]

    def __getitem__(self, index: int) -> dict[str, Any]:
        items = self.__getitems__([index])
        if not items:
            raise BadImage(f"{self.files[index]}: cannot be read, and a single item cannot be skipped")
        return items[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch; DataLoader prefers this to one call an item."""
        items = (self._item(index) for index in indices)
        return [item for item in items if item is not None]

    def _item(self, index: int) -> dict[str, Any] | None:
        wanted = position = range(len(self))[index]  # negative indices and IndexError as in a list
        draw = index.draw if isinstance(index, Draw) else wanted
        image = self._read(position)
        if image is None and self.on_bad_image == "skip":
            return None
        for attempt in range(_REPLACEMENTS):
            if image is not None:
                break
            position = int(_philox(self.seed, 1, wanted, attempt)[0] % np.uint64(len(self)))
            image = self._read(position)
        if image is None:
            raise BadImage(
                f"{self.files[index]}: cannot be read, nor can {_REPLACEMENTS} images drawn to replace it "
                f"({len(self.bad_images)} bad files so far: {name_list(self.bad_images)})"
            )
        # 53 bits as in numpy's `random`: uniform on [0, 1).
        if (int(_philox(self.seed, 0, draw, 0)[0]) >> 11) * 2.0**-53 < self.horizontal_flip:
            image = image.flip(-1)
        return {"image": image, "index": position, "name": self.name(position)}

    def _read(self, position: int) -> torch.Tensor | None:
        try:
            return read_image(self.files[position], self.resolution, self.mode)
        except BadImage as error:
            if self.on_bad_image == "error":
                raise
            if not self._bad[position]:  # said once, not in every epoch
                self._bad[position] = 1
                _log.warning("%s; on_bad_image=%s", error, self.on_bad_image)
            return None


def _philox(seed: int, stream: int, index: int, attempt: int) -> np.ndarray:
    """Random words that depend on these four numbers only."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, index, attempt, 0], dtype=np.uint64)).random_raw(1)
