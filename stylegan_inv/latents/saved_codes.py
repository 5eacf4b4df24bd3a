"""Reading the folder of inverted images that ``stylegan_inv.invert`` writes: codes and what else edits need."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import torch
from safetensors import SafetensorError
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.generators.feature_maps import FeatureChange
from stylegan_inv.latents.numpy_files import read_npz
from stylegan_inv.utils.safetensors_files import open_safetensors, read_safetensors

LATENTS, RECONSTRUCTIONS, NOISE, GENERATORS = "latents.safetensors", "reconstructions", "noise", "generators"
FEATURES, KEPT = "features", "kept"
#: Folders with a file of tensors for each image.
TENSORS = (NOISE, GENERATORS, FEATURES, KEPT)
#: Ends of the names of the two tensors that change a feature map.
_SCALE, _SHIFT = ".scale", ".shift"
SHARDS = "latents-[0-9]*-of-[0-9]*.safetensors"
#: Largest number of float16, in which differences of generators are stored; noise maps are about 1.
_LARGEST_VALUE = 65504
_SHARD = re.compile(r"latents-\d{5,8}-of-\d{5,8}\.safetensors")


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
    shards = sorted(file for file in folder.glob(SHARDS) if _SHARD.fullmatch(file.name))
    counts = {int(file.stem.rpartition("-")[2]) for file in shards}
    count = max(counts, default=0)
    if counts - {len(shards)}:
        raise UserError(f"{folder}: holds {len(shards)} of {count} files of codes; copy all of them, or invert again")
    return shards


def shard_name(number: int, count: int) -> str:
    """Returns the file name of shard ``number``, from 1, of ``count`` shards."""
    return LATENTS if count == 1 else f"latents-{number:05d}-of-{count:05d}.safetensors"


def holds_latents(path: Path) -> bool:
    """Returns whether a path is a file of codes, by its name, or a folder with such files."""
    if path.is_dir():
        return bool(latents_files(path))
    return path.name == LATENTS or path.match(SHARDS) or path.suffix.lower() == ".npz"


def read_latents(path: str | os.PathLike[str]) -> Latents:
    """Returns the codes of a file (``latents.safetensors``, one shard, or an ``.npz`` of NVIDIA's projector) or folder.

    Raises:
        UserError: No such file, or not a file that ``stylegan_inv.invert`` wrote.
    """
    path = Path(path)
    if path.suffix.lower() == ".npz":
        return read_projected(path)
    files = (latents_files(path) or [path / LATENTS]) if path.is_dir() else [path]
    shards = [read_latents_file(file) for file in files]
    if len(shapes := {tuple(shard.w.shape[1:]) for shard in shards}) > 1:
        raise UserError(f"{path}: its files hold codes of {len(shapes)} generators; invert the images again")
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
        with open_safetensors(file) as handle:
            metadata = dict(handle.metadata() or {})
            w = handle.get_tensor("w")
        names, images = (_texts(metadata.pop(key), key) for key in ("names", "reconstructions"))
        if wrong := [name for name in images if not _is_reconstruction(name)]:
            raise UserError(f"the reconstruction {ascii(wrong[0])[:60]} is not in {RECONSTRUCTIONS}/")
    except (SafetensorError, OSError, KeyError, ValueError, RecursionError) as error:
        raise UserError(f"{file}: not a file of codes ({error}); expected the output of stylegan_inv.invert") from error
    check_codes(file, w)
    if not len(w) == len(names) == len(images):
        raise UserError(
            f"{file}: got codes of shape {tuple(w.shape)} for {len(names)} names and {len(images)} reconstructions"
        )
    return Latents(w.float(), names, images, metadata)


#: Far above the numbers of any codes in W.
_LARGEST_NUMBER = 1e6


def read_projected(file: Path) -> Latents:
    """Returns the codes of an ``.npz`` file of NVIDIA's projector (``projected_w.npz``), which has no noise maps.

    Raises:
        UserError: Another file.
    """
    expected = "expected an array w (N, L, D), as NVIDIA's projector writes it"
    try:
        w = torch.from_numpy(read_npz(file, "w").astype(np.float32))
    except Exception as error:  # zipfile and numpy raise errors of many types for damaged files
        raise UserError(f"{file}: not a file of codes ({' '.join(str(error).split())[:100]}); {expected}") from error
    w = w[None] if w.ndim == 2 else w
    check_codes(file, w)
    names = [file.stem] if len(w) == 1 else [f"{file.stem}_{number}" for number in range(len(w))]
    return Latents(w, names, [f"{RECONSTRUCTIONS}/{name}.png" for name in names], {})


def check_codes(file: Path, w: Tensor) -> None:
    """Raises a UserError if a tensor does not hold codes (N, L, D) of finite numbers."""
    if w.ndim != 3 or not all(w.shape) or not w.is_floating_point():
        raise UserError(f"{file}: got codes of shape {tuple(w.shape)} and type {w.dtype}, expected numbers (N, L, D)")
    # Larger numbers, of which codes of W have none, overflow in the generator.
    right = w.float().abs().flatten(1).amax(dim=1) <= _LARGEST_NUMBER
    broken = (~right).nonzero().flatten().tolist()
    if broken:
        raise UserError(
            f"{file}: code {broken[0]} (of {len(broken)} such codes) holds NaN, infinite numbers or numbers above "
            f"{_LARGEST_NUMBER:g}"
        )


def _texts(text: str, key: str) -> list[str]:
    """Returns the list of texts that an entry of the metadata holds as JSON."""
    texts = json.loads(text)
    if not isinstance(texts, list) or not all(isinstance(item, str) for item in texts):
        raise ValueError(f"its {key} are not a list of texts")
    return texts


def _is_reconstruction(name: str) -> bool:
    """Returns whether a name is that of a file in the folder of reconstructions."""
    first, *others = name.split("/")
    return first == RECONSTRUCTIONS and bool(others) and not {"", ".", ".."} & {*others} and not set(name) & set("\0\\")


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


def write_features(features: Mapping[str, FeatureChange]) -> dict[str, Tensor]:
    """Returns the tensors of a file that :func:`read_features` reads.

    Args:
        features: Changes of the feature maps of one image, by layer.
    """
    tensors: dict[str, Tensor] = {}
    for layer, change in features.items():
        if isinstance(change, Tensor):
            tensors[layer] = change
        else:
            tensors[layer + _SCALE], tensors[layer + _SHIFT] = (torch.as_tensor(value) for value in change)
    return {name: value.detach().float().cpu().contiguous() for name, value in tensors.items()}


def read_features(folder: str | os.PathLike[str], reconstruction: str) -> dict[str, FeatureChange] | None:
    """Returns the changes of the feature maps of one image, by layer; None without one.

    Args:
        folder: Output folder of ``stylegan_inv.invert``.
        reconstruction: Entry of the image in `Latents.reconstructions`.

    Raises:
        UserError: A scale without a shift, or the reverse.
    """
    tensors = _read_tensors(folder, FEATURES, reconstruction)
    if tensors is None:
        return None
    found: dict[str, FeatureChange] = {}
    for name, value in tensors.items():
        layer = name.removesuffix(_SCALE).removesuffix(_SHIFT)
        if layer == name:
            found[layer] = value
        elif layer + _SCALE not in tensors or layer + _SHIFT not in tensors:
            raise UserError(f"{folder}: the features of {reconstruction} have no {layer}; invert the image again")
        else:
            found[layer] = (tensors[layer + _SCALE], tensors[layer + _SHIFT])
    return found


def read_kept(folder: str | os.PathLike[str], reconstruction: str) -> dict[str, Tensor] | None:
    """Returns what the method's networks read to edit one image, (1, ...) each; None without it.

    Args:
        folder: Output folder of ``stylegan_inv.invert``.
        reconstruction: Entry of the image in `Latents.reconstructions`.
    """
    return _read_tensors(folder, KEPT, reconstruction)


def _read_tensors(folder: str | os.PathLike[str], kind: str, reconstruction: str) -> dict[str, Tensor] | None:
    file = Path(folder, kind, PurePosixPath(reconstruction).relative_to(RECONSTRUCTIONS)).with_suffix(".safetensors")
    if not file.is_file():
        return None
    tensors = read_safetensors(file, "what stylegan_inv.invert wrote; invert the image again")[1]
    for name, values in tensors.items():
        if not values.is_floating_point() or not bool((values.float().abs() <= _LARGEST_VALUE).all()):  # NaN is not
            raise UserError(
                f"{file}: {ascii(name)[:80]} holds NaN, infinite or other numbers than {kind} have; invert the image "
                "again"
            )
    return tensors
