"""Images of a source as a data set that survives bad files in the way you choose."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.sampler import Draw
from stylegan_inv.data.images.decoding import EXACT, BadImage, decode, decode_levels
from stylegan_inv.data.images.image_files import from_uint8, name_list
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError

_log = logging.getLogger(__name__)

OnBadImage = Literal["error", "skip", "replace"]
OnSmallImage = Literal["enlarge", "refuse"]
Kind = Literal["image", "mask", "label"]
_REPLACEMENTS = 16


@dataclass(frozen=True)
class Companion:
    """What comes with each image: row i of ``source`` belongs to image i.

    Attributes:
        source: Its files.
        kind: ``image``; ``mask``, a grey picture, white where it counts; ``label``, a grey or palette picture whose
            levels are classes.
    """

    source: Source
    kind: Kind


class ImageSet(Dataset[dict[str, Any]]):
    """Images of a source, cut and resized to a square.

    An item is a dict: ``image`` (3, R, R) float in [-1, 1], ``index`` its place in the source, ``name`` its name there,
    and an entry for each companion: a mask is (1, R, R) float in [0, 1], a label map (R, R) int64. All are cut and
    mirrored together. Images with bars (see :class:`.Geometry`) have a ``mask`` that leaves
    these out.

    An item is a pure function of (seed, draw), where the draw comes with the indices of
    :class:`.ResumableSampler` (a plain index is its own draw): which worker reads it and when
    does not matter.

    Args:
        source: The images.
        geometry: What is cut out, and its size.
        horizontal_flip: Probability of mirroring an image; 0.5 is what the authors of pSp, e4e and ReStyle train with.
        seed: Of the flips and the replacements.
        on_bad_image: What to do with an image that cannot be read, or one whose companion cannot. ``error`` stops and
            names it. ``skip`` leaves it out: the batch is one shorter, the others stay as they were. ``replace`` puts
            another image in its place, chosen by (seed, index) alone, so the batch keeps its size. Both count it and
            name it, see :attr:`bad_images`.
        on_small_image: ``enlarge`` images with fewer pixels than are asked for, and say so once: a method then learns
            to reproduce their blur. ``refuse``: they count as bad.
        companions: Entry -> what comes with each image.
        margin: ``decoding.EXACT``, or ``FAST`` for training.

    Raises:
        UserError: An empty source or a bad argument.
    """

    def __init__(
        self,
        source: Source,
        geometry: Geometry,
        *,
        horizontal_flip: float = 0.0,
        seed: int = 0,
        on_bad_image: OnBadImage = "error",
        on_small_image: OnSmallImage = "enlarge",
        companions: Mapping[str, Companion] | None = None,
        margin: int = EXACT,
    ) -> None:
        if not 0.0 <= float(horizontal_flip) <= 1.0:
            raise UserError(f"horizontal_flip={horizontal_flip!r}: expected a probability from 0 to 1 (true is 1)")
        if on_bad_image not in ("error", "skip", "replace"):
            raise UserError(f"on_bad_image={on_bad_image!r}: expected error, skip or replace")
        if on_small_image not in ("enlarge", "refuse"):
            raise UserError(f"on_small_image={on_small_image!r}: expected enlarge or refuse")
        if not len(source):
            raise UserError(f"{source.path}: got an empty list of files, expected at least one image")
        self.source, self.geometry, self.seed, self.margin = source, geometry, seed, margin
        self.horizontal_flip, self.on_bad_image = float(horizontal_flip), on_bad_image
        self.on_small_image, self.companions = on_small_image, dict(companions or {})
        # One byte for each file, in memory that the workers share: what they meet is known to the main process.
        self._bad = torch.zeros(len(source), dtype=torch.uint8).share_memory_()
        self._small = torch.zeros(len(source), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """The name of an image."""
        return self.source.names[index]

    @property
    def names(self) -> list[str]:
        """The names of all images."""
        return list(self.source.names)

    @property
    def bad_images(self) -> list[str]:
        """The names of the files found unreadable so far, by any worker."""
        return [self.name(index) for index in self._bad.nonzero().flatten().tolist()]

    @property
    def small_images(self) -> list[str]:
        """The names of the files that were enlarged so far, by any worker."""
        return [self.name(index) for index in self._small.nonzero().flatten().tolist()]

    def __getitem__(self, index: int) -> dict[str, Any]:
        items = self.__getitems__([index])
        if not items:
            raise BadImage(f"{self.source.where(index)}: cannot be read, and a single item cannot be skipped")
        return items[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """The items of a batch; DataLoader prefers this to one call an item."""
        items = (self._item(index) for index in indices)
        return [item for item in items if item is not None]

    def _item(self, index: int) -> dict[str, Any] | None:
        wanted = position = range(len(self))[index]  # negative indices and IndexError as in a list
        draw = index.draw if isinstance(index, Draw) else wanted
        maps = self._read(position)
        if maps is None and self.on_bad_image == "skip":
            return None
        for attempt in range(_REPLACEMENTS):
            if maps is not None:
                break
            position = int(_philox(self.seed, 1, wanted, attempt)[0] % np.uint64(len(self)))
            maps = self._read(position)
        if maps is None:
            raise BadImage(
                f"{self.source.where(wanted)}: cannot be read, nor can {_REPLACEMENTS} images drawn to replace it "
                f"({len(self.bad_images)} bad files so far: {name_list(self.bad_images)})"
            )
        # 53 bits as in numpy's `random`: uniform on [0, 1).
        if (int(_philox(self.seed, 0, draw, 0)[0]) >> 11) * 2.0**-53 < self.horizontal_flip:
            maps = {name: pixels.flip(-1) for name, pixels in maps.items()}
        return {**maps, "index": position, "name": self.name(position)}

    def _read(self, position: int) -> dict[str, Tensor] | None:
        try:
            return self._load(position)
        except BadImage as error:
            if self.on_bad_image == "error":
                raise
            if not self._bad[position]:  # said once, not in every epoch
                self._bad[position] = 1
                _log.warning("%s; on_bad_image=%s", error, self.on_bad_image)
            return None

    def _load(self, position: int) -> dict[str, Tensor]:
        geometry, where = self.geometry, self.source.where(position)
        # A box is in pixels of the file, so the file has to be decoded in full.
        reduced = geometry.content if geometry.box is None else None
        pixels = decode(self.source.read(position), where, reduced, self.margin)
        shape = int(pixels.shape[-2]), int(pixels.shape[-1])
        self._check_size(position, shape)
        maps = {"image": from_uint8(_placed(geometry, pixels, where))}
        if geometry.bars and geometry.content[0] != geometry.content[1] and "mask" not in self.companions:
            maps["mask"] = geometry.shown(shape)
        for name, companion in self.companions.items():
            maps[name] = self._load_companion(companion, position, shape)
        return maps

    def _load_companion(self, companion: Companion, position: int, shape: tuple[int, int]) -> Tensor:
        data, where = companion.source.read(position), companion.source.where(position)
        if companion.kind == "label":
            return _placed(self.geometry, decode_levels(data, where), where, shape, nearest=True)[0].long()
        pixels = decode(data, where)
        if companion.kind == "image":
            return from_uint8(_placed(self.geometry, pixels, where, shape))
        if pixels.max() == 1:
            raise BadImage(f"{where}: a mask with the levels 0 and 1 of 255; expected white (255) where it counts")
        return _placed(self.geometry, pixels.float().mean(0, keepdim=True).div_(255.0), where, shape)

    def _check_size(self, position: int, shape: tuple[int, int]) -> None:
        factor = self.geometry.enlargement(*shape)
        if factor <= 1:
            return
        height, width = self.geometry.content
        message = (
            f"{self.source.where(position)}: {shape[1]} x {shape[0]} px, fewer than the {width} x {height} asked for"
        )
        if self.on_small_image == "refuse":
            raise BadImage(f"{message}; give a smaller dataset.resolution")
        if not self._small.any():
            _log.warning(
                "%s: enlarged %.3g times, which adds pixels and no detail, so that a method learns and is measured on "
                "blur; give a smaller dataset.resolution, or dataset.on_small_image=refuse",
                *(message, factor),
            )
        self._small[position] = 1


def _placed(
    geometry: Geometry, pixels: Tensor, where: str, like: tuple[int, int] | None = None, nearest: bool = False
) -> Tensor:
    try:
        return geometry.apply(pixels, like, nearest)
    except UserError as error:
        raise BadImage(f"{where}: {error}") from error


def _philox(seed: int, stream: int, index: int, attempt: int) -> np.ndarray:
    """Random words that depend on these four numbers only."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, index, attempt, 0], dtype=np.uint64)).random_raw(1)
