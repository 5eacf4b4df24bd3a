"""The result of an inversion, put together from its parts: codes, contact sheets, loss curves, what was left out."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from stylegan_inv.data.images.image_files import from_uint8
from stylegan_inv.errors import UserError
from stylegan_inv.invert.chunks import CELL, SHEET_IMAGES
from stylegan_inv.latents.saved_codes import GENERATORS, LEFT_OUT, NOISE, RECONSTRUCTIONS, SHEET, VARIANTS, shard_name
from stylegan_inv.utils.files import atomic_write, remove_partial
from stylegan_inv.visualization.contact_sheet import contact_sheet
from stylegan_inv.visualization.loss_curves import write_curves

ROWS_PER_SHEET = 64


@dataclass
class Result:
    """What became of all images.

    Attributes:
        count: Images inverted.
        mean_squared_error: Of the reconstructions, at the size that the method saw.
        codes: Files of the codes.
        sheets: The contact sheets.
        unreadable: What is wrong with each of the files that were left out.
        not_finite: Names of the images whose codes or pictures hold NaN or infinity.
    """

    count: int = 0
    mean_squared_error: float = 0.0
    codes: list[Path] = field(default_factory=list)
    sheets: list[Path] = field(default_factory=list)
    unreadable: list[str] = field(default_factory=list)
    not_finite: list[str] = field(default_factory=list)


def put_together(
    folder: Path,
    parts: Sequence[Path],
    names: Sequence[str],
    pictures: Sequence[str],
    metadata: Mapping[str, str],
    shard_images: int,
) -> Result:
    """Write the result; the files of codes come last, so where they are the rest is.

    Args:
        folder: Output folder.
        parts: Files of `PartWriter.save`, all of them, in order.
        names: Of all images.
        pictures: Of all images, below the folder.
        metadata: Stored with the codes.
        shard_images: Codes of more images go to several files of so many each.

    Raises:
        UserError: No image could be read.
    """
    result, index, stages = Result(), [], dict[str, list[Tensor]]()
    error = 0.0
    for part in map(_Part, parts):
        index += part.index
        result.unreadable += part.said["unreadable"]
        if part.index:
            error += float(part.get("squared_error").sum())
            finite = part.get("finite").tolist()
            result.not_finite += [names[i] for i, good in zip(part.index, finite, strict=True) if not good]
        for k, stage in enumerate(part.said["stages"]):
            stages.setdefault(stage, []).extend(part.get(f"curve {k} {b}") for b in range(part.said["batches"]))
    if not index:
        raise UserError(f"{folder}: no image could be read ({result.unreadable[0]})")
    result.count, result.mean_squared_error = len(index), error / len(index)
    result.sheets = _write_sheets(folder, parts, names)
    if stages:
        write_curves(folder, [names[i] for i in index], stages)
    left_out = {"unreadable": result.unreadable, "not_finite": result.not_finite}
    if any(left_out.values()):
        with atomic_write(folder / LEFT_OUT) as temporary:
            temporary.write_text(json.dumps(left_out, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
    for place in {PurePosixPath(name).parent for name in pictures}:
        own = place.relative_to(RECONSTRUCTIONS)
        for root in (folder / place, *(folder / kind / own for kind in (NOISE, GENERATORS)), *_variants(folder, own)):
            remove_partial(root)  # of processes that were killed
    remove_partial(folder)
    result.codes = _write_codes(folder, parts, index, names, pictures, metadata, shard_images)
    return result


class _Part:
    def __init__(self, file: Path) -> None:
        self._file = file
        with safe_open(file, framework="pt") as handle:
            self.said: dict[str, Any] = {name: json.loads(text) for name, text in handle.metadata().items()}
            self.index: list[int] = handle.get_tensor("index").tolist()

    def get(self, name: str) -> Tensor:
        with safe_open(self._file, framework="pt") as handle:
            return handle.get_tensor(name)


def _write_codes(
    folder: Path,
    parts: Sequence[Path],
    index: list[int],
    names: Sequence[str],
    pictures: Sequence[str],
    metadata: Mapping[str, str],
    shard_images: int,
) -> list[Path]:
    blocks = (part.get("w") for part in map(_Part, parts) if part.index)
    count, files = -(-len(index) // shard_images), []
    for number, w in enumerate(_regrouped(blocks, shard_images), start=1):
        own = index[(number - 1) * shard_images :][: len(w)]
        said = {
            **metadata,
            "names": json.dumps([names[i] for i in own], ensure_ascii=False),
            "reconstructions": json.dumps([pictures[i] for i in own], ensure_ascii=False),
        }
        files.append(folder / shard_name(number, count))
        with atomic_write(files[-1]) as temporary:
            save_file({"w": w.contiguous()}, temporary, said)
    return files


def _regrouped(blocks: Iterator[Tensor], size: int) -> Iterator[Tensor]:
    """The rows of some tensors, ``size`` at a time."""
    held: list[Tensor] = []
    for block in blocks:
        held.append(block)
        while sum(map(len, held)) >= size:
            rows = torch.cat(held)
            yield rows[:size]
            held = [rows[size:]]
    if sum(map(len, held)):
        yield torch.cat(held)


def _write_sheets(folder: Path, parts: Sequence[Path], names: Sequence[str]) -> list[Path]:
    sheets: list[Path] = []
    held: list[tuple[str, dict[str, Tensor]]] = []
    several = len(names) > ROWS_PER_SHEET

    def flush() -> None:
        if held:
            columns = {name: from_uint8(torch.stack([row[name] for _, row in held])) for name in held[0][1]}
            sheet = contact_sheet(columns, row_captions=[caption for caption, _ in held], cell=CELL)
            sheets.append(folder / f"{SHEET}{f'_{len(sheets) + 1:03d}' if several else ''}.png")
            with atomic_write(sheets[-1]) as temporary:
                sheet.save(temporary)
            held.clear()

    for part in map(_Part, parts):
        shown = [i for i in part.index if i < SHEET_IMAGES]
        if not shown:
            continue
        columns = {name: part.get(f"row {k}") for k, name in enumerate(part.said["columns"])}
        for row, i in enumerate(shown):
            held.append((names[i], {name: column[row] for name, column in columns.items()}))
            if len(held) == ROWS_PER_SHEET:
                flush()
    flush()
    return sheets


def _variants(folder: Path, own: PurePosixPath) -> list[Path]:
    return [variant / own for variant in folder.glob(f"{VARIANTS}/[0-9]*")]
