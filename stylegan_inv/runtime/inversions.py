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
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.images import from_uint8, save_image, to_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.runtime.contact_sheet import contact_sheet, difference_image
from stylegan_inv.runtime.files import atomic_write
from stylegan_inv.runtime.loss_curves import CURVES, write_curves

if TYPE_CHECKING:
    from stylegan_inv.methods.base import Inversion

LATENTS, RECONSTRUCTIONS, SHEET = "latents.safetensors", "reconstructions", "contact_sheet"
VARIANTS, NOISE, GENERATORS = "variants", "noise", "generators"
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
        self._curves: dict[str, list[Tensor]] = {}
        _remove_earlier(folder)
        folder.mkdir(parents=True, exist_ok=True)

    def add(
        self,
        images: Tensor,
        inversion: Inversion,
        variants: Sequence[Tensor] = (),
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the next images.

        Args:
            images: (B, 3, S, S).
            inversion: what was found for them.
            variants: other pictures of the same, (B, 3, R, R).
            extra: what else the method was given: other images (B, 3, S, S), masks (B, 1, S, S) in [0, 1].
        """
        size = images.shape[-1]
        final = inversion.image.detach().float()
        shown = final if final.shape[-1] == size else F.adaptive_avg_pool2d(final, (size, size))
        self.squared_error += float((shown - images).square().flatten(1).mean(1).sum())
        shown_too = {name: 2 * t - 1 if t.shape[1] == 1 else t for name, t in (extra or {}).items()}
        columns = {"input": images, **shown_too, **_chosen_steps(inversion)}
        columns.update({f"variant {number}": variant for number, variant in enumerate(variants, start=1)})
        if self.compare:
            columns["difference"] = difference_image(shown, images)
        small = {name: _thumbnails(column) for name, column in columns.items()}
        for row in range(len(images)):
            save_image(final[row], self.folder / self.pictures[self._count])
            for number, variant in enumerate(variants, start=1):
                name = PurePosixPath(self.pictures[self._count]).relative_to(RECONSTRUCTIONS)
                save_image(variant[row], self.folder / VARIANTS / str(number) / name)
            for place, tensors in {NOISE: _noise_of(inversion, row), GENERATORS: _generator_of(inversion, row)}.items():
                if tensors:
                    file = self.folder / place / PurePosixPath(self.pictures[self._count]).relative_to(RECONSTRUCTIONS)
                    file.parent.mkdir(parents=True, exist_ok=True)
                    with atomic_write(file.with_suffix(".safetensors")) as temporary:
                        save_file(tensors, temporary, self.metadata)
            self._count += 1
            self._rows.append({name: column[row] for name, column in small.items()})
            if len(self._rows) == ROWS_PER_SHEET:
                self._flush_sheet()
        self._codes.append(inversion.w.detach().float().cpu())
        for stage, curve in getattr(inversion, "curves", {}).items():
            self._curves.setdefault(stage, []).append(curve)

    def close(self) -> None:
        """Write what is left, the codes and the loss curves."""
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
        if self._curves:
            write_curves(self.folder, self.names, self._curves)

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


def _noise_of(inversion: Inversion, row: int) -> dict[str, Tensor]:
    """The noise maps of one image, by layer."""
    return {f"{k:02d}": m[row].detach().float().cpu().contiguous() for k, m in enumerate(inversion.noise or [])}


def _generator_of(inversion: Inversion, row: int) -> dict[str, Tensor]:
    """What the tuned generator of one image differs by, see `stylegan_inv.generators.difference`."""
    return {name: t[row].detach().cpu().contiguous() for name, t in (inversion.generator or {}).items()}


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
            own = file.resolve().relative_to(folder.resolve() / RECONSTRUCTIONS)
            for variant in folder.glob(f"{VARIANTS}/[0-9]*"):
                (variant / own).unlink(missing_ok=True)
            for place in (NOISE, GENERATORS):
                (folder / place / own).with_suffix(".safetensors").unlink(missing_ok=True)
    curves = (folder / f"{CURVES}{suffix}" for suffix in (".csv", ".png"))
    for file in (folder / LATENTS, folder / f"{SHEET}.png", *curves, *folder.glob(f"{SHEET}_[0-9][0-9][0-9].png")):
        file.unlink(missing_ok=True)
