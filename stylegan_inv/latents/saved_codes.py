"""Reading the folder of inverted images that ``stylegan_inv.invert`` writes: codes, noise maps, tuned generators."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stylegan_inv.errors import UserError

LATENTS, RECONSTRUCTIONS, NOISE, GENERATORS = "latents.safetensors", "reconstructions", "noise", "generators"
SHARDS = "latents-[0-9]*-of-[0-9]*.safetensors"


@dataclass
class Latents:
    """Latent codes that were read from files.

    Attributes:
        w: Latent codes in W+, (N, L, D) float32.
        names: Source file of each code, relative to the input folder.
        reconstructions: Image file of each code, relative to the output folder.
        metadata: Further metadata: ``generator_hash``, ``method``, ``run``.
    """

    w: Tensor
    names: list[str]
    reconstructions: list[str]
    metadata: dict[str, str]


def latents_files(folder: Path) -> list[Path]:
    """Returns the files of codes in a folder: ``latents.safetensors``, or all shards in order; empty without any.

    Raises:
        UserError: Some of the shards are missing.
    """
    if (folder / LATENTS).is_file():
        return [folder / LATENTS]
    shards = sorted(folder.glob(SHARDS))
    count = int(shards[0].stem.rpartition("-")[2]) if shards else 0
    if len(shards) != count:
        raise UserError(f"{folder}: holds {len(shards)} of {count} files of codes; copy all of them, or invert again")
    return shards


def shard_name(number: int, count: int) -> str:
    """Returns the file name of shard ``number``, from 1, of ``count`` shards."""
    return LATENTS if count == 1 else f"latents-{number:05d}-of-{count:05d}.safetensors"


def holds_latents(path: Path) -> bool:
    """Returns whether a path is a file of codes, by its name, or a folder with such files."""
    return bool(latents_files(path)) if path.is_dir() else path.name == LATENTS or path.match(SHARDS)


def read_latents(path: str | os.PathLike[str]) -> Latents:
    """Returns the codes of a file (``latents.safetensors`` or one shard), or of all files in a folder.

    Raises:
        UserError: No such file, or not a file that ``stylegan_inv.invert`` wrote.
    """
    path = Path(path)
    files = (latents_files(path) or [path / LATENTS]) if path.is_dir() else [path]
    shards = [read_latents_file(file) for file in files]
    return Latents(
        shards[0].w if len(shards) == 1 else torch.cat([shard.w for shard in shards]),
        [name for shard in shards for name in shard.names],
        [name for shard in shards for name in shard.reconstructions],
        shards[0].metadata,
    )


def read_latents_file(file: Path) -> Latents:
    """Returns the codes of one file.

    Raises:
        UserError: No such file, or not a file that ``stylegan_inv.invert`` wrote.
    """
    if not file.is_file():
        raise UserError(f"{file}: no such file; expected the output of stylegan_inv.invert")
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
            w = handle.get_tensor("w")
        names, images = json.loads(metadata.pop("names")), json.loads(metadata.pop("reconstructions"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file}: not a file of codes ({error}); expected the output of stylegan_inv.invert") from error
    if w.ndim != 3 or not len(w) == len(names) == len(images):
        raise UserError(f"{file}: got codes of shape {tuple(w.shape)} for {len(names)} names, expected (N, L, D)")
    return Latents(w, names, images, metadata)


def read_noise(folder: str | os.PathLike[str], reconstruction: str) -> list[Tensor] | None:
    """Returns the optimised noise maps (1, 1, r, r) of one image; None if it uses the generator's own.

    Args:
        folder: Output folder of ``stylegan_inv.invert``.
        reconstruction: Entry of the image in `Latents.reconstructions`.
    """
    tensors = _read_tensors(folder, NOISE, reconstruction)
    return None if tensors is None else [tensors[name][None] for name in sorted(tensors)]


def read_difference(folder: str | os.PathLike[str], reconstruction: str) -> dict[str, Tensor] | None:
    """Returns the compressed difference of the generator that was tuned for one image; None without one.

    Args:
        folder: Output folder of ``stylegan_inv.invert``.
        reconstruction: Entry of the image in `Latents.reconstructions`.
    """
    return _read_tensors(folder, GENERATORS, reconstruction)


def _read_tensors(folder: str | os.PathLike[str], kind: str, reconstruction: str) -> dict[str, Tensor] | None:
    file = Path(folder, kind, PurePosixPath(reconstruction).relative_to(RECONSTRUCTIONS)).with_suffix(".safetensors")
    if not file.is_file():
        return None
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read ({error}); invert the image again") from error
