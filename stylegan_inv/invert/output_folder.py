"""The output folder of an inversion: the names of its files, the command it belongs to, and removing old results."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Sequence
from fnmatch import fnmatch
from pathlib import Path, PurePosixPath

from safetensors import SafetensorError

from stylegan_inv.data.images.image_files import distinct_names, storable_name
from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import WARNINGS
from stylegan_inv.latents.saved_codes import (
    LATENTS,
    RECONSTRUCTIONS,
    SHARDS,
    TENSORS,
    latents_files,
    read_latents_file,
)
from stylegan_inv.utils.safetensors_files import open_safetensors
from stylegan_inv.visualization.loss_curves import CURVES

VARIANTS, SHEET, SKIPPED = "variants", "contact_sheet", "left_out.json"


def is_result(folder: Path, path: Path) -> bool:
    """Returns whether a path is, by its name, among the results in an output folder, or the output folder itself."""
    if not path.is_relative_to(folder):
        return False
    first = [*path.relative_to(folder).parts, ""][0]
    return first in ("", RECONSTRUCTIONS, *TENSORS, VARIANTS) or fnmatch(first, f"{SHEET}*.png")


def stored_command(folder: Path) -> str | None:
    """Returns the hash of the command whose complete result a folder holds; None without one."""
    try:
        with open_safetensors(latents_files(folder)[0]) as handle:
            return (handle.metadata() or {}).get("command")
    except (IndexError, SafetensorError, OSError, UserError):
        return None


def image_names(names: Sequence[str]) -> list[str]:
    """Returns a distinct name of a PNG file for each input: ``sub/a.jpg`` -> ``sub/a.png``; see `distinct_names`."""
    return distinct_names([storable_name(name) for name in names], ".png")


def remove_previous_result(folder: Path) -> None:
    """Removes the files of a previous result, so that none of them is taken for a file of the new one.

    A folder without codes that can be read holds no result; its files stay, unless the new result has files of the same
    names.
    """
    found = False
    for file in (folder / LATENTS, *folder.glob(SHARDS)):
        with contextlib.suppress(UserError):
            _remove_images(folder, read_latents_file(file).reconstructions)
            found = True
        file.unlink(missing_ok=True)
    if not found:
        return
    curves = (folder / f"{CURVES}{suffix}" for suffix in (".csv", ".png"))
    sheets = (folder / f"{SHEET}.png", *folder.glob(f"{SHEET}_[0-9][0-9][0-9].png"))
    for file in (folder / SKIPPED, folder / WARNINGS, *sheets, *curves):
        file.unlink(missing_ok=True)


def _remove_images(folder: Path, names: Sequence[str]) -> None:
    """Removes the files of images; of names that anyone may have edited, only files inside the folder."""
    variants = sorted(folder.glob(f"{VARIANTS}/[0-9]*"))
    for name in names:
        relative = PurePosixPath(name).relative_to(RECONSTRUCTIONS)
        images = [folder / name, *(variant / relative for variant in variants)]
        tensors = [(folder / kind / relative).with_suffix(".safetensors") for kind in TENSORS]
        for file in (*(image for image in images if image.suffix == ".png"), *tensors):
            if Path(os.path.realpath(file)).is_relative_to(os.path.realpath(folder)):
                file.unlink(missing_ok=True)
