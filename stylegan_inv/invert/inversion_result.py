"""The result of an inversion, assembled from its parts: codes, contact sheets, loss curves, skipped images."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath

import torch
from torch import Tensor

from stylegan_inv.data.images.image_files import from_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.invert.input_warnings import Finding, InputCheck, InputWarnings
from stylegan_inv.invert.output_folder import SHEET, SKIPPED, VARIANTS
from stylegan_inv.invert.parts import CELL, SHEET_IMAGES, PartResult
from stylegan_inv.latents.saved_codes import RECONSTRUCTIONS, TENSORS, shard_name
from stylegan_inv.utils.files import atomic_write, remove_partial
from stylegan_inv.utils.safetensors_files import write_safetensors
from stylegan_inv.utils.text import json_text
from stylegan_inv.visualization.contact_sheet import contact_sheet
from stylegan_inv.visualization.loss_curves import write_curves

ROWS_PER_SHEET = 64


@dataclass
class Parts:
    """The parts of a finished inversion.

    Attributes:
        files: Files of all parts, in order.
        key: Key that they were written with.
        names: Name of every image.
        images: Reconstruction file of every image, relative to the output folder.
        check: Judges the distances of the reconstructions; None for no judgement.
        source: What the user gave as input.
        left_out: Names of image files in formats that cannot be read.
    """

    files: Sequence[Path]
    key: str
    names: Sequence[str]
    images: Sequence[str]
    check: InputCheck | None = None
    source: str = ""
    left_out: Sequence[str] = ()

    def __iter__(self) -> Iterator[PartResult]:
        return (PartResult.load(file, self.key) for file in self.files)


@dataclass
class Result:
    """Summary of an inversion.

    Attributes:
        count: Number of inverted images.
        mean_squared_error: Mean squared error of the reconstructions, at the size of the inputs.
        codes: Files of the codes.
        sheets: Files of the contact sheets.
        unreadable: Errors of the files that were skipped.
        not_finite: Names of the images whose codes or reconstructions hold NaN or infinity.
        warnings: One line for each kind of warning about the inputs.
    """

    count: int = 0
    mean_squared_error: float = 0.0
    codes: list[Path] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)
    warnings: list[str] = field(default_factory=list)


def assemble(folder: Path, parts: Parts, metadata: Mapping[str, str], shard_images: int) -> Result:
    """Writes the result; the files of codes come last, so a folder with codes is complete.

    Args:
        folder: Output folder.
        parts: All parts.
        metadata: Metadata of the files of codes.
        shard_images: Largest number of codes in a file; more are written to several files.

    Raises:
        UserError: No image could be read, or none has codes and a reconstruction that are finite.
    """
    result, indices, error = Result(), list[int](), 0.0
    curves: dict[str, list[Tensor]] = {}
    findings: list[Finding] = []
    for part in parts:
        indices += part.indices
        result.unreadable += part.errors
        findings += part.findings
        if part.indices:
            squared_errors = torch.cat(part.squared_errors)
            error += float(squared_errors.sum())
            if parts.check is not None and part.relative_errors:
                findings += parts.check.check_distances(part.indices, squared_errors, torch.cat(part.relative_errors))
            finite = torch.cat(part.finite).tolist()
            result.not_finite += [parts.names[i] for i, good in zip(part.indices, finite, strict=True) if not good]
        for stage, batches in part.curves.items():
            curves.setdefault(stage, []).extend(batches)
    if not indices:
        raise UserError(f"{folder}: no image could be read ({result.unreadable[0]})")
    if len(result.not_finite) == len(indices):
        raise UserError(
            f"{folder}: none of {len(indices)} images was inverted: their codes or reconstructions are not finite; "
            "give a smaller learning rate or smaller weights"
        )
    result.count, result.mean_squared_error = len(indices), error / len(indices)
    limits = None if parts.check is None else parts.check.limits
    warnings = InputWarnings(findings, parts.names, parts.source, limits)
    result.warnings = warnings.lines()
    warnings.write(folder)
    result.sheets = _write_sheets(folder, parts, warnings.captions())
    if curves:
        write_curves(folder, [parts.names[i] for i in indices], curves)
    _write_skipped(folder, result, parts.left_out)
    _remove_partial_files(folder, parts.images)
    result.codes = _write_codes(folder, parts, indices, metadata, shard_images)
    return result


def _write_skipped(folder: Path, result: Result, left_out: Sequence[str]) -> None:
    skipped = {"unreadable": result.unreadable, "not_finite": result.not_finite}
    if left_out:
        skipped["other_formats"] = list(left_out)
    if any(skipped.values()):
        with atomic_write(folder / SKIPPED) as temporary:
            temporary.write_text(json_text(skipped), encoding="utf-8")


def _remove_partial_files(folder: Path, images: Sequence[str]) -> None:
    """Removes what processes left behind that were killed while they wrote."""
    kinds = [folder / RECONSTRUCTIONS, *(folder / kind for kind in TENSORS), *folder.glob(f"{VARIANTS}/[0-9]*")]
    for subfolder in {PurePosixPath(name).parent.relative_to(RECONSTRUCTIONS) for name in images}:
        for kind in kinds:
            remove_partial(kind / subfolder)
    remove_partial(folder)


def _write_codes(
    folder: Path, parts: Parts, indices: list[int], metadata: Mapping[str, str], shard_images: int
) -> list[Path]:
    blocks = (torch.cat(part.w) for part in parts if part.indices)
    count, files = -(-len(indices) // shard_images), []
    for number, w in enumerate(_regroup(blocks, shard_images), start=1):
        rows = indices[(number - 1) * shard_images :][: len(w)]
        entries = {
            **metadata,
            "names": json_text([parts.names[i] for i in rows], None).strip(),
            "reconstructions": json_text([parts.images[i] for i in rows], None).strip(),
        }
        files.append(folder / shard_name(number, count))
        write_safetensors(files[-1], {"w": w.contiguous()}, entries)
    return files


def _regroup(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """Yields the rows of some tensors, ``size`` at a time."""
    waiting: list[Tensor] = []
    for block in blocks:
        waiting.append(block)
        while sum(map(len, waiting)) >= size:
            rows = torch.cat(waiting)
            yield rows[:size]
            waiting = [rows[size:]]
    if sum(map(len, waiting)):
        yield torch.cat(waiting)


@dataclass
class _Row:
    """A row of a contact sheet: the name of the image, the captions of its warnings, and its thumbnails."""

    name: str
    warnings: Sequence[str]
    images: dict[str, Tensor]


def _write_sheets(folder: Path, parts: Parts, warnings: Mapping[int, Sequence[str]]) -> list[Path]:
    pages = list[Path]()
    rows: list[_Row] = []
    several = len(parts.names) > ROWS_PER_SHEET

    def write_page() -> None:
        if rows:
            columns = {name: from_uint8(torch.stack([row.images[name] for row in rows])) for name in rows[0].images}
            names, warned = [row.name for row in rows], [row.warnings for row in rows]
            sheet = contact_sheet(columns, row_captions=names, row_warnings=warned, cell=CELL)
            pages.append(folder / f"{SHEET}{f'_{len(pages) + 1:03d}' if several else ''}.png")
            with atomic_write(pages[-1]) as temporary:
                sheet.save(temporary)
            rows.clear()

    for part in parts:
        columns = {name: torch.cat(batches) for name, batches in part.thumbnails.items()}
        for row, index in enumerate(index for index in part.indices if index < SHEET_IMAGES):
            images = {name: column[row] for name, column in columns.items()}
            rows.append(_Row(parts.names[index], warnings.get(index, ()), images))
            if len(rows) == ROWS_PER_SHEET:
                write_page()
        if part.indices and part.indices[-1] >= SHEET_IMAGES:
            break
    write_page()
    return pages
