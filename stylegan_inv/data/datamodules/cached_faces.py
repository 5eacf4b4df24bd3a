"""Faces rendered once and kept in a memory-mapped file, for trainings that would otherwise wait for the renderer."""

from __future__ import annotations

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch.utils.data import Dataset

from stylegan_inv.data.datamodules.synthetic_faces import FacesDataModule
from stylegan_inv.data.synthfaces import render as synthfaces_render
from stylegan_inv.data.synthfaces.factors import factors_from_normals
from stylegan_inv.data.synthfaces.normals import normals
from stylegan_inv.errors import UserError
from stylegan_inv.utils.files import atomic_write

_log = logging.getLogger(__name__)
#: From so many on, rendering takes long enough to be announced.
_MANY = 2000


def default_cache_dir() -> Path:
    """``$STYLEGAN_INV_CACHE`` or ``~/.cache/stylegan_inv``."""
    return Path(os.environ.get("STYLEGAN_INV_CACHE") or Path.home() / ".cache" / "stylegan_inv")


def renderer_hash() -> str:
    """Hash of the renderer's source text: other source, other faces, another cache."""
    digest = hashlib.sha256()
    for path in sorted(Path(synthfaces_render.__file__).parent.glob("*.py")):
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()[:16]


class CachedFaces(Dataset[dict[str, Any]]):
    """``size`` SynthFaces as uint8 in one memory-mapped .npy, with the normals that they were rendered from.

    The cache is made on first use (about 3 ms an image at 64 px): two files named by resolution, seed, start, size
    and the hash of the renderer's source. They appear whole or not at all. Processes that start together may each
    render it; the results are equal and the last one stays.

    Args:
        resolution: side in pixels.
        seed: of SynthFaces (0 train, 1 validation, 2 test).
        size: number of images.
        start: first index.
        root: folder; default `default_cache_dir`.
        chunk: images rendered at a time.
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
        if size < 1:
            raise UserError(f"cached faces: got size={size}, expected at least 1")
        self.resolution, self.seed, self.size, self.start, self.chunk = resolution, seed, size, start, chunk
        folder = Path(root) if root is not None else default_cache_dir()
        folder.mkdir(parents=True, exist_ok=True)
        key = {"resolution": resolution, "seed": seed, "size": size, "start": start, "renderer": renderer_hash()}
        name = hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:16]
        self.paths = folder / f"faces-{name}-images.npy", folder / f"faces-{name}-normals.npy"
        if not all(path.exists() for path in self.paths):
            self._render()
        self.images = np.load(self.paths[0], mmap_mode="r")
        self.normals = np.load(self.paths[1], mmap_mode="r")

    def _render(self) -> None:
        if self.size >= _MANY:  # a warning, as nobody has set up logging when data are built
            _log.warning("rendering %d faces once into %s; this takes minutes", self.size, self.paths[0])
        rows = normals(self.seed, np.arange(self.start, self.start + self.size)).astype(np.float32)
        with atomic_write(self.paths[0]) as path:
            shape = (self.size, self.resolution, self.resolution, 3)
            images = np.lib.format.open_memmap(path, mode="w+", dtype=np.uint8, shape=shape)
            for low in range(0, self.size, self.chunk):
                part = slice(low, low + self.chunk)
                images[part] = synthfaces_render.render(factors_from_normals(rows[part]), self.resolution).image
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


class CachedFacesDataModule(FacesDataModule):
    """SynthFaces with the training split read from a cache (image, normals and index only).

    Args:
        cache_dir: its folder; None for `default_cache_dir`.
        **kwargs: of `FacesDataModule`; what changes the faces themselves is not cached and is refused.
    """

    def __init__(self, *, cache_dir: str | None = None, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        if self._identity_groups != 1 or any(self._common.values()):
            raise UserError(
                "cached faces: obstacles, overrides, correlations and identity_groups are not cached; "
                "use dataset=synthfaces, which renders on the fly"
            )
        self.cache_dir = cache_dir

    def make(self, split: str) -> Any:
        """The cache for ``train``, rendering on the fly for the others."""
        if split != "train":
            return super().make(split)
        return CachedFaces(self.resolution, 0, self.sizes["train"], root=self.cache_dir)
