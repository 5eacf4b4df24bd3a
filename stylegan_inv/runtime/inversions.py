"""The folder that holds inverted images: codes, reconstructions and contact sheets."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.images import from_uint8, save_image, to_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.contact_sheet import contact_sheet, difference_image
from stylegan_inv.runtime.files import atomic_write

if TYPE_CHECKING:
    from stylegan_inv.methods.base import Inversion

LATENTS, RECONSTRUCTIONS, SHEET = "latents.safetensors", "reconstructions", "contact_sheet"
VARIANTS = "variants"
ROWS_PER_SHEET = 64
_CELL = 160
_STEPS_SHOWN = 6


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


def read_latents(path: str | os.PathLike[str]) -> Latents:
    """Read ``latents.safetensors`` or the folder that holds it.

    Raises:
        UserError: No such file, or not one that ``stylegan_inv.invert`` wrote.
    """
    path = Path(path)
    file = path / LATENTS if path.is_dir() else path
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


class InversionWriter:
    """Writes results as they come: pictures at once, contact sheets when they are full, the codes at the end.

    Args:
        folder: Output folder, made if need be. An earlier result in it is removed first (its files, nothing else).
        names: All inputs, in the order in which they will come.
        metadata: Stored with the codes.
        compare: False where the inputs are not what is to be reconstructed (sketches, label maps, holes).
    """

    def __init__(self, folder: Path, names: Sequence[str], metadata: Mapping[str, str], compare: bool = True) -> None:
        self.folder, self.names, self.metadata, self.compare = folder, list(names), dict(metadata), compare
        self.pictures = [f"{RECONSTRUCTIONS}/{name}" for name in picture_names(self.names)]
        self.sheets: list[Path] = []
        self.squared_error = 0.0
        self._codes: list[Tensor] = []
        self._rows: list[dict[str, Tensor]] = []
        self._count = 0
        _remove_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def add(self, images: Tensor, inversion: Inversion, variants: Sequence[Tensor] = ()) -> None:
        """Take the next images (B, 3, S, S), what was found for them, and other pictures of the same (B, 3, R, R)."""
        size = images.shape[-1]
        final = inversion.image.detach().float()
        shown = final if final.shape[-1] == size else F.adaptive_avg_pool2d(final, (size, size))
        self.squared_error += float((shown - images).square().flatten(1).mean(1).sum())
        columns = {"input": images, **_chosen_steps(inversion)}
        columns.update({f"variant {number}": variant for number, variant in enumerate(variants, start=1)})
        if self.compare:
            columns["difference"] = difference_image(shown, images)
        small = {name: _thumbnails(column) for name, column in columns.items()}
        for row in range(len(images)):
            save_image(final[row], self.folder / self.pictures[self._count])
            for number, variant in enumerate(variants, start=1):
                name = PurePosixPath(self.pictures[self._count]).relative_to(RECONSTRUCTIONS)
                save_image(variant[row], self.folder / VARIANTS / str(number) / name)
            self._count += 1
            self._rows.append({name: column[row] for name, column in small.items()})
            if len(self._rows) == ROWS_PER_SHEET:
                self._flush_sheet()
        self._codes.append(inversion.w.detach().float().cpu())

    def close(self) -> None:
        """Write what is left and the codes."""
        if self._count != len(self.names):
            raise UserError(f"{self.folder}: got {self._count} results for {len(self.names)} images")
        self._flush_sheet()
        metadata = {
            **self.metadata,
            "names": json.dumps(self.names, ensure_ascii=False),
            "reconstructions": json.dumps(self.pictures, ensure_ascii=False),
        }
        with atomic_write(self.folder / LATENTS) as temporary:
            save_file({"w": torch.cat(self._codes).contiguous()}, temporary, metadata)

    def _flush_sheet(self) -> None:
        if not self._rows:
            return
        columns = {name: from_uint8(torch.stack([row[name] for row in self._rows])) for name in self._rows[0]}
        first = self._count - len(self._rows)
        sheet = contact_sheet(columns, row_captions=self.names[first : self._count], cell=_CELL)
        number = f"_{len(self.sheets) + 1:03d}" if len(self.names) > ROWS_PER_SHEET else ""
        file = self.folder / f"{SHEET}{number}.png"
        with atomic_write(file) as temporary:
            sheet.save(temporary)
        self.sheets.append(file)
        self._rows = []


def _chosen_steps(inversion: Inversion) -> dict[str, Tensor]:
    """The steps of a refinement, at most six of them with the first and the last; or the one picture."""
    steps = inversion.steps or []
    if len(steps) < 2:
        return {"reconstruction": inversion.image}
    count = min(len(steps), _STEPS_SHOWN)
    chosen = [round(i * (len(steps) - 1) / (count - 1)) for i in range(count)]
    return {steps[i].name or f"step {i + 1}": steps[i].image for i in chosen}


def _thumbnails(images: Tensor) -> Tensor:
    # Small and in bytes: a sheet of 64 rows of 1024-px images would take gigabytes.
    images = images.detach().float()
    if images.shape[-1] > _CELL:
        images = F.interpolate(images, size=(_CELL, _CELL), mode="bilinear", antialias=True)
    return to_uint8(images).cpu()


def _remove_earlier(folder: Path) -> None:
    """Remove the files of an earlier result, so that none of them is taken for one of the new ones."""
    try:
        pictures = read_latents(folder).reconstructions
    except UserError:
        pictures = []
    for name in pictures:
        file = folder / name
        # The names come from a file that anyone may have edited: only pictures below the folder are removed.
        if file.suffix == ".png" and file.resolve().is_relative_to(folder.resolve() / RECONSTRUCTIONS):
            file.unlink(missing_ok=True)
            for variant in folder.glob(f"{VARIANTS}/[0-9]*"):
                (variant / file.resolve().relative_to(folder.resolve() / RECONSTRUCTIONS)).unlink(missing_ok=True)
    for file in (folder / LATENTS, folder / f"{SHEET}.png", *folder.glob(f"{SHEET}_[0-9][0-9][0-9].png")):
        file.unlink(missing_ok=True)
