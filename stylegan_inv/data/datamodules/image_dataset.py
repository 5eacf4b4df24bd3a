"""The dataset of image files: decoding, cropping, flipping, masks and label maps, and the handling of bad files."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.sampler import DrawnIndex
from stylegan_inv.data.images.decoding import EXACT, BadImage, decode, decode_levels
from stylegan_inv.data.images.image_files import from_uint8, name_list
from stylegan_inv.data.images.resizing import Geometry
from stylegan_inv.data.sources.source import Source
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import one_of, real_number
from stylegan_inv.utils.text import readable

_log = logging.getLogger(__name__)

OnBadImage = Literal["error", "skip", "replace"]
OnSmallImage = Literal["enlarge", "refuse"]
Kind = Literal["image", "mask", "label"]
#: Number of images to try as a replacement of a bad one.
_REPLACEMENTS = 16


@dataclass(frozen=True)
class Companion:
    """Files that come with the images of a dataset, e.g. masks: file i belongs to image i.

    Attributes:
        source: The files.
        kind: ``image``; ``mask``, a grey image that is white where the mask is 1; or ``label``, a grey or palette image
            whose levels are classes.
    """

    source: Source
    kind: Kind


class ImageDataset(Dataset[dict[str, Any]]):
    """Images of a source, cropped and resized to a square.

    A sample is a dict with ``image`` (3, R, R) float in [-1, 1], ``index``, its index in the source, ``name``, its name
    in the source, and an entry for each companion: (1, R, R) float in [0, 1] for a mask, (R, R) int64 for a label map.
    All of them are cropped and flipped together. Images with bars (see :class:`.Geometry`) have a ``mask`` that
    excludes the bars.

    A sample is a pure function of (seed, draw), whichever worker reads it. The draw comes with the indices of
    :class:`.ResumableSampler`; a plain index is its own draw.

    Args:
        source: The image files.
        geometry: Crop and size.
        horizontal_flip: Probability of flipping an image. The authors of pSp, e4e and ReStyle train with 0.5.
        seed: Seed of the flips and of the replacements.
        on_bad_image: How to handle an image that cannot be read, or whose companion cannot be read. ``error`` raises
            an error that names it. ``skip`` leaves it out, so that the batch is smaller by one. ``replace`` uses
            another image instead, chosen by (seed, index) alone, so that the batch keeps its size. ``skip`` and
            ``replace`` log the file and add it to :attr:`bad_images`.
        on_small_image: How to handle an image with fewer pixels than the crop. ``enlarge`` upsamples it and logs a
            warning once, as a method then learns to reproduce blur. ``refuse`` treats it as a bad image.
        companions: Files that come with the images, by the name of their entry.
        margin: ``decoding.EXACT``, or ``decoding.FAST`` for training.

    Attributes:
        classes: Class of each image (N,), which becomes the entry ``class``; None for no such entry.

    Raises:
        UserError: The source is empty, or an argument is out of range.
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
        # A config may also say true or false.
        self.horizontal_flip = real_number("horizontal_flip", float(horizontal_flip), 0, 1)
        self.on_bad_image = one_of("on_bad_image", on_bad_image, ("error", "skip", "replace"))
        self.on_small_image = one_of("on_small_image", on_small_image, ("enlarge", "refuse"))
        if not len(source):
            raise UserError(f"{source.path}: got an empty list of files, expected at least one image")
        self.source, self.geometry, self.seed, self.margin = source, geometry, seed, margin
        self.companions = dict(companions or {})
        self.classes: np.ndarray | None = None
        # One byte for each file in shared memory, so that the main process knows what its workers find.
        self._bad = torch.zeros(len(source), dtype=torch.uint8).share_memory_()
        self._small = torch.zeros(len(source), dtype=torch.uint8).share_memory_()

    def __len__(self) -> int:
        return len(self.source)

    def name(self, index: int) -> str:
        """Returns the name of an image, for messages and files."""
        return readable(self.source.names[index])

    @property
    def names(self) -> list[str]:
        """Names of all images."""
        return [readable(name) for name in self.source.names]

    def identity(self) -> str:
        """Returns a hash of the names and the files of the images and of what comes with them."""
        return " ".join([self.source.identity(), *(one.source.identity() for one in self.companions.values())])

    @property
    def bad_images(self) -> list[str]:
        """Names of the unreadable files that the workers have found so far."""
        return [self.name(index) for index in self._bad.nonzero().flatten().tolist()]

    @property
    def small_images(self) -> list[str]:
        """Names of the files that the workers have enlarged so far."""
        return [self.name(index) for index in self._small.nonzero().flatten().tolist()]

    def __getitem__(self, index: int) -> dict[str, Any]:
        samples = self.__getitems__([index])
        if not samples:
            raise BadImage(f"{self.source.where(index)}: cannot be read, and a single sample cannot be skipped")
        return samples[0]

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        """Returns the samples of a batch; a DataLoader calls this once per batch."""
        samples = (self._sample(index) for index in indices)
        return [sample for sample in samples if sample is not None]

    def _sample(self, index: int) -> dict[str, Any] | None:
        requested = position = range(len(self))[index]  # negative indices and IndexError as in a list
        draw = index.draw if isinstance(index, DrawnIndex) else requested
        maps = self._read(position)
        if maps is None and self.on_bad_image == "skip":
            return None
        for attempt in range(_REPLACEMENTS):
            if maps is not None:
                break
            position = int(_philox(self.seed, 1, requested, attempt)[0] % np.uint64(len(self)))
            maps = self._read(position)
        if maps is None:
            raise BadImage(
                f"{self.source.where(requested)}: cannot be read, nor can {_REPLACEMENTS} images drawn to replace it "
                f"({len(self.bad_images)} bad files so far: {name_list(self.bad_images)})"
            )
        # The upper 53 bits, as NumPy's `random` uses them: uniform on [0, 1).
        if (int(_philox(self.seed, 0, draw, 0)[0]) >> 11) * 2.0**-53 < self.horizontal_flip:
            maps = {name: pixels.flip(-1) for name, pixels in maps.items()}
        sample = {**maps, "index": position, "name": self.name(position)}
        return sample if self.classes is None else {**sample, "class": int(self.classes[position])}

    def _read(self, position: int) -> dict[str, Tensor] | None:
        try:
            return self._load(position)
        except BadImage as error:
            if self.on_bad_image == "error":
                raise
            if not self._bad[position]:  # logged once, not in every epoch
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
        maps = {"image": from_uint8(_apply(geometry, pixels, where))}
        if geometry.bars and geometry.content[0] != geometry.content[1] and "mask" not in self.companions:
            maps["mask"] = geometry.content_mask(shape)
        for name, companion in self.companions.items():
            maps[name] = self._load_companion(companion, position, shape)
        return maps

    def _load_companion(self, companion: Companion, position: int, shape: tuple[int, int]) -> Tensor:
        data, where = companion.source.read(position), companion.source.where(position)
        if companion.kind == "label":
            return _apply(self.geometry, decode_levels(data, where), where, shape, nearest=True)[0].long()
        pixels = decode(data, where)
        if companion.kind == "image":
            return from_uint8(_apply(self.geometry, pixels, where, shape))
        if pixels.max() == 1:
            raise BadImage(f"{where}: a mask with the levels 0 and 1 of 255; expected white (255) where the mask is 1")
        return _apply(self.geometry, pixels.float().mean(0, keepdim=True).div_(255.0), where, shape)

    def _check_size(self, position: int, shape: tuple[int, int]) -> None:
        factor = self.geometry.scale_factor(*shape)
        if factor <= 1:
            return
        height, width = self.geometry.content
        message = (
            f"{self.source.where(position)}: {shape[1]} x {shape[0]} px, fewer than the requested {width} x {height}"
        )
        if self.on_small_image == "refuse":
            raise BadImage(f"{message}; give a smaller dataset.resolution")
        if not self._small.any():
            _log.warning(
                "%s: enlarged %.3g times, which adds no detail, so that a method is trained and evaluated on blurred "
                "images; give a smaller dataset.resolution, or dataset.on_small_image=refuse",
                *(message, factor),
            )
        self._small[position] = 1


def _apply(
    geometry: Geometry, pixels: Tensor, where: str, like: tuple[int, int] | None = None, nearest: bool = False
) -> Tensor:
    try:
        return geometry.apply(pixels, like, nearest)
    except UserError as error:
        raise BadImage(f"{where}: {error}") from error


def _philox(seed: int, stream: int, index: int, attempt: int) -> np.ndarray:
    """Returns random 64-bit words that depend on these four numbers only."""
    key = np.array([seed, stream], dtype=np.uint64)
    return np.random.Philox(key=key, counter=np.array([0, index, attempt, 0], dtype=np.uint64)).random_raw(1)
