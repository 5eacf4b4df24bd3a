"""The folder that holds inverted images: which files lie there, and how their codes are read back."""

from __future__ import annotations

import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import Tensor

from stylegan_inv.errors import UserError
from stylegan_inv.visualization.loss_curves import CURVES

LATENTS, RECONSTRUCTIONS, SHEET = "latents.safetensors", "reconstructions", "contact_sheet"
VARIANTS, NOISE, GENERATORS = "variants", "noise", "generators"
LEFT_OUT = "left_out.json"
_SHARDS = "latents-[0-9]*-of-[0-9]*.safetensors"


@dataclass
class Latents:
    """Codes read back from disk.

    Attributes:
        w: (N, L, D) float32.
        names: The file each came from, below the input folder.
        reconstructions: The picture of each, below the output folder.
        metadata: What else is known: ``generator_hash``, ``method``, ``run``.
    """

    w: Tensor
    names: list[str]
    reconstructions: list[str]
    metadata: dict[str, str]


def latents_files(folder: Path) -> list[Path]:
    """The files of codes in a folder: ``latents.safetensors``, or the shards of many images in order; [] without.

    Raises:
        UserError: Some of the shards are missing.
    """
    if (folder / LATENTS).is_file():
        return [folder / LATENTS]
    shards = sorted(folder.glob(_SHARDS))
    count = int(shards[0].stem.rpartition("-")[2]) if shards else 0
    if len(shards) != count:
        raise UserError(f"{folder}: holds {len(shards)} of {count} files of codes; copy all of them, or invert again")
    return shards


def shard_name(number: int, count: int) -> str:
    """The file of the codes' shard ``number`` from 1 of ``count``."""
    return LATENTS if count == 1 else f"latents-{number:05d}-of-{count:05d}.safetensors"


def holds_latents(path: Path) -> bool:
    """Whether this is a file of codes by its name, or a folder with some."""
    return bool(latents_files(path)) if path.is_dir() else path.name == LATENTS or path.match(_SHARDS)


def read_latents(path: str | os.PathLike[str]) -> Latents:
    """Read a file of codes (``latents.safetensors``, or one shard of many images), or all of the folder that holds it.

    Raises:
        UserError: No such file, or not one that ``stylegan_inv.invert`` wrote.
    """
    path = Path(path)
    files = (latents_files(path) or [path / LATENTS]) if path.is_dir() else [path]
    read = [_read_file(file) for file in files]
    return Latents(
        read[0].w if len(read) == 1 else torch.cat([one.w for one in read]),
        [name for one in read for name in one.names],
        [name for one in read for name in one.reconstructions],
        read[0].metadata,
    )


def _read_file(file: Path) -> Latents:
    if not file.is_file():
        raise UserError(f"{file}: no such file; expected the output of stylegan_inv.invert")
    try:
        with safe_open(file, framework="pt") as handle:
            metadata = dict(handle.metadata() or {})
            w = handle.get_tensor("w")
        names, pictures = json.loads(metadata.pop("names")), json.loads(metadata.pop("reconstructions"))
    except (SafetensorError, OSError, KeyError, ValueError) as error:
        raise UserError(f"{file}: not a file of codes ({error}); expected the output of stylegan_inv.invert") from error
    if w.ndim != 3 or not len(w) == len(names) == len(pictures):
        raise UserError(f"{file}: got codes of shape {tuple(w.shape)} for {len(names)} names, expected (N, L, D)")
    return Latents(w, names, pictures, metadata)


def command_of(folder: Path) -> str | None:
    """Hash of the command whose finished result lies in a folder, or None."""
    try:
        with safe_open(latents_files(folder)[0], framework="pt") as handle:
            return (handle.metadata() or {}).get("command")
    except (IndexError, SafetensorError, OSError, UserError):
        return None


def picture_names(names: Sequence[str]) -> list[str]:
    """A different picture name for each input: ``sub/a.jpg`` -> ``sub/a.png``.

    Inputs that differ in their suffix only (or in upper and lower case, which many file systems do not tell apart) keep
    the suffix: ``a.jpg.png`` beside ``a.png.png``.
    """
    plain = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    counts: dict[str, int] = {}
    for name in plain:
        counts[name.casefold()] = counts.get(name.casefold(), 0) + 1
    taken: set[str] = set()
    out = []
    for name, short in zip(names, plain, strict=True):
        base = short if counts[short.casefold()] == 1 else name
        candidate, number = base, 1
        while candidate.casefold() in taken:
            number += 1
            candidate = f"{base}_{number}"
        taken.add(candidate.casefold())
        out.append(f"{candidate}.png")
    return out


def check_output(folder: Path, overwrite: bool = False) -> None:
    """Check that results can be written to a folder, without writing.

    Raises:
        UserError: It is a file, has content (and ``overwrite`` is off), or may not be written to.
    """
    if folder.exists() and not folder.is_dir():
        raise UserError(f"output={folder}: is a file, expected a folder")
    if folder.is_dir() and not overwrite and any(folder.iterdir()):
        raise UserError(f"output={folder}: the folder has content; give another one, or overwrite=true")
    for parent in (folder, *folder.absolute().parents):
        if parent.exists():
            if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
                raise UserError(f"output={folder}: cannot be made, as {parent} is not writable; give another folder")
            return


def read_noise(folder: str | os.PathLike[str], reconstruction: str) -> list[Tensor] | None:
    """The noise maps (1, 1, r, r) that were found for one image, or None if its noise is the generator's own.

    Args:
        folder: output of ``stylegan_inv.invert``.
        reconstruction: the image's entry of `Latents.reconstructions`.
    """
    tensors = _read_beside(folder, NOISE, reconstruction)
    return None if tensors is None else [tensors[name][None] for name in sorted(tensors)]


def read_difference(folder: str | os.PathLike[str], reconstruction: str) -> dict[str, Tensor] | None:
    """What the generator tuned for one image differs by (`generators.difference.tuned` applies it), or None."""
    return _read_beside(folder, GENERATORS, reconstruction)


def _read_beside(folder: str | os.PathLike[str], place: str, reconstruction: str) -> dict[str, Tensor] | None:
    file = Path(folder, place, PurePosixPath(reconstruction).relative_to(RECONSTRUCTIONS)).with_suffix(".safetensors")
    if not file.is_file():
        return None
    try:
        return load_file(file)
    except (SafetensorError, OSError) as error:
        raise UserError(f"{file}: cannot be read ({error}); invert the image again") from error


def remove_earlier(folder: Path) -> None:
    """Remove the files of an earlier result, so that none of them is taken for one of the new ones."""
    files = [folder / LATENTS, *folder.glob(_SHARDS)]
    for file in files:
        try:
            _remove_pictures(folder, _read_file(file).reconstructions)
        except UserError:
            continue
    curves = (folder / f"{CURVES}{suffix}" for suffix in (".csv", ".png"))
    sheets = (folder / f"{SHEET}.png", *folder.glob(f"{SHEET}_[0-9][0-9][0-9].png"))
    for file in (*files, folder / LEFT_OUT, *sheets, *curves):
        file.unlink(missing_ok=True)


def _remove_pictures(folder: Path, pictures: Sequence[str]) -> None:
    for name in pictures:
        file = folder / name
        # The names come from a file that anyone may have edited: only pictures below the folder are removed.
        if file.suffix == ".png" and file.resolve().is_relative_to(folder.resolve() / RECONSTRUCTIONS):
            file.unlink(missing_ok=True)
            own = file.resolve().relative_to(folder.resolve() / RECONSTRUCTIONS)
            for variant in folder.glob(f"{VARIANTS}/[0-9]*"):
                (variant / own).unlink(missing_ok=True)
            for place in (NOISE, GENERATORS):
                (folder / place / own).with_suffix(".safetensors").unlink(missing_ok=True)
