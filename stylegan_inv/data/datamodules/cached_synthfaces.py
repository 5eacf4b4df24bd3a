"""SynthFaces rendered once into a memory-mapped file, for training that would otherwise wait for the renderer."""

from __future__ import annotations

import functools
import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import DataLoader, Dataset

from stylegan_inv.data.datamodules.synthfaces_datamodule import SynthFacesDataModule
from stylegan_inv.data.synthfaces import render as synthfaces_render
from stylegan_inv.data.synthfaces.correlated_normals import normals
from stylegan_inv.data.synthfaces.factors import factors_from_normals
from stylegan_inv.errors import UserError
from stylegan_inv.utils.checks import whole_number
from stylegan_inv.utils.files import atomic_write

_log = logging.getLogger(__name__)
#: Number of images from which on rendering takes long enough to log a message.
_MANY = 2000


def default_cache_dir() -> Path:
    """Returns ``$STYLEGAN_INV_CACHE``, or ``~/.cache/stylegan_inv`` if it is not set."""
    return Path(os.environ.get("STYLEGAN_INV_CACHE") or Path.home() / ".cache" / "stylegan_inv")


def renderer_hash() -> str:
    """Returns a hash of the renderer's source code, so that a changed renderer gets a new cache."""
    digest = hashlib.sha256()
    for path in sorted(Path(synthfaces_render.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class CachedSynthFaces(Dataset[dict[str, Any]]):
    """SynthFaces as uint8 in a memory-mapped ``.npy`` file, with the normals that the images were rendered from.

    The cache is rendered when the first image is read, which takes about 3 ms per image at 64 px. It consists of two
    files, whose names are a hash of resolution, seed, start, size and the renderer's source code, and which are written
    atomically. Processes that start at the same time may each render it; their results are equal, and the last one is
    kept.

    Args:
        resolution: Side in pixels.
        seed: Seed of SynthFaces: 0 for training, 1 for validation, 2 for test.
        size: Number of images.
        start: Index of the first image.
        root: Folder of the cache; None uses :func:`default_cache_dir`.
        chunk: Number of images to render at a time.
    """

    def __init__(
        self,
        resolution: int = 64,
        seed: int = 0,
        size: int = 60_000,
        start: int = 0,
        root: str | Path | None = None,
        chunk: int = 256,
    ) -> None:
        synthfaces_render.check_resolution(resolution)
        self.size = whole_number("cached faces: size", size)
        self.resolution, self.seed, self.start, self.chunk = resolution, seed, start, chunk
        folder = Path(root) if root is not None else default_cache_dir()
        key = {"resolution": resolution, "seed": seed, "size": size, "start": start, "renderer": renderer_hash()}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.paths = folder / f"faces-{name}-images.npy", folder / f"faces-{name}-normals.npy"

    @functools.cached_property
    def images(self) -> np.ndarray[Any, Any]:
        """Images (N, R, R, 3), uint8; rendered first if the cache does not have them."""
        self.render()
        images: np.ndarray[Any, Any] = np.load(self.paths[0], mmap_mode="r")
        return images

    @functools.cached_property
    def normals(self) -> np.ndarray[Any, Any]:
        """Normals (N, K), float32, that the images are rendered from."""
        self.render()
        rows: np.ndarray[Any, Any] = np.load(self.paths[1], mmap_mode="r")
        return rows

    def render(self) -> None:
        """Renders the images, unless the cache has them; takes minutes for many."""
        if all(path.exists() for path in self.paths):
            return
        self.paths[0].parent.mkdir(parents=True, exist_ok=True)
        if self.size >= _MANY:  # a warning, as an info message would not be shown before logging is configured
            _log.warning("rendering %d faces into %s, once; this takes minutes", self.size, self.paths[0])
        rows = normals(self.seed, np.arange(self.start, self.start + self.size)).astype(np.float32)
        with atomic_write(self.paths[0]) as path:
            shape = (self.size, self.resolution, self.resolution, 3)
            images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            for low in range(0, self.size, self.chunk):
                chunk = slice(low, low + self.chunk)
                images[chunk] = synthfaces_render.render(factors_from_normals(rows[chunk]), self.resolution).image
            images.flush()
        with atomic_write(self.paths[1]) as path:
            np.save(path, rows)

    def __len__(self) -> int:
        return self.size

    def __getitems__(self, indices: Sequence[int]) -> list[dict[str, Any]]:
        order = np.array([int(i) + self.size if i < 0 else int(i) for i in indices], dtype=np.int64)
        image = torch.from_numpy(self.images[order]).permute(0, 3, 1, 2).float().div_(127.5).sub_(1)
        normals = torch.from_numpy(self.normals[order])
        return [{"image": image[row], "normals": normals[row], "index": i} for row, i in enumerate(order.tolist())]

    def __getitem__(self, index: int) -> dict[str, Any]:
        return self.__getitems__([index])[0]


class CachedSynthFacesDataModule(SynthFacesDataModule):
    """SynthFaces with the training split read from a cache; training samples have ``image``, ``normals``, ``index``.

    Args:
        cache_dir: Folder of the cache; None uses :func:`default_cache_dir`.
        **kwargs: See :class:`.SynthFacesDataModule`.

    Raises:
        UserError: An argument would change the faces themselves, which the cache does not support.
    """

    def __init__(self, *, cache_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self._identity_groups != 1 or any(self._common.values()):
            raise UserError(
                "cached faces: the cache supports no obstacles, overrides, correlations or identity_groups; "
                "give dataset=synthfaces, which renders on the fly"
            )
        self.cache_dir = cache_dir

    def train_dataloader(self) -> DataLoader[Any]:
        """Returns the loader of the rendered images; the processes of a loader would each render them."""
        self.get("train").render()  # type: ignore[attr-defined]
        return super().train_dataloader()

    def make(self, split: str) -> Any:
        """Returns the cache for ``train``, and a dataset that renders on the fly for the other splits."""
        if split != "train":
            return super().make(split)
        return CachedSynthFaces(self.resolution, 0, self.sizes["train"], root=self.cache_dir)
