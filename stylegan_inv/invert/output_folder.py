"""The output folder of an inversion: the names of its files, the command it belongs to, and removing old results."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError, safe_open

from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import WARNINGS
from stylegan_inv.latents.saved_codes import (
    GENERATORS,
    LATENTS,
    NOISE,
    RECONSTRUCTIONS,
    SHARDS,
    latents_files,
    read_latents_file,
)
from stylegan_inv.visualization.loss_curves import CURVES

VARIANTS, SHEET, SKIPPED = "variants", "contact_sheet", "left_out.json"


def stored_command(folder: Path) -> str | None:
    """Returns the hash of the command whose complete result a folder holds; None without one."""
    try:
        with safe_open(latents_files(folder)[0], framework="pt") as handle:
            return (handle.metadata() or {}).get("command")
    except (IndexError, SafetensorError, OSError, UserError):
        return None


def image_names(names: Sequence[str]) -> list[str]:
    """Returns a distinct name of a PNG file for each input: ``sub/a.jpg`` -> ``sub/a.png``.

    Inputs that differ only in their suffix, or in upper and lower case, which many file systems ignore, keep the
    suffix: ``a.jpg.png`` and ``a.png.png``.
    """
    stems = [PurePosixPath(name).with_suffix("").as_posix() for name in names]
    counts: dict[str, int] = {}
    for stem in stems:
        counts[stem.casefold()] = counts.get(stem.casefold(), 0) + 1
    used: set[str] = set()
    found = []
    for name, stem in zip(names, stems, strict=True):
        base = stem if counts[stem.casefold()] == 1 else name
        candidate, number = base, 1
        while candidate.casefold() in used:
            number += 1
            candidate = f"{base}_{number}"
        used.add(candidate.casefold())
        found.append(f"{candidate}.png")
    return found


def remove_previous_result(folder: Path) -> None:
    """Removes the files of a previous result, so that none of them is taken for a file of the new one."""
    files = [folder / LATENTS, *folder.glob(SHARDS)]
    for file in files:
        try:
            _remove_images(folder, read_latents_file(file).reconstructions)
        except UserError:
            continue
    curves = (folder / f"{CURVES}{suffix}" for suffix in (".csv", ".png"))
    sheets = (folder / f"{SHEET}.png", *folder.glob(f"{SHEET}_[0-9][0-9][0-9].png"))
    for file in (*files, folder / SKIPPED, folder / WARNINGS, *sheets, *curves):
        file.unlink(missing_ok=True)


def _remove_images(folder: Path, names: Sequence[str]) -> None:
    reconstructions = folder.resolve() / RECONSTRUCTIONS
    for name in names:
        file = folder / name
        # The names are read from a file that anyone may have edited: only PNG files inside the folder are removed.
        if file.suffix == ".png" and file.resolve().is_relative_to(reconstructions):
            relative = file.resolve().relative_to(reconstructions)
            file.unlink(missing_ok=True)
            for variant in folder.glob(f"{VARIANTS}/[0-9]*"):
                (variant / relative).unlink(missing_ok=True)
            for kind in (NOISE, GENERATORS):
                (folder / kind / relative).with_suffix(".safetensors").unlink(missing_ok=True)
