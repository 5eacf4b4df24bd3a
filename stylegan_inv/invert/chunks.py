"""A part of an inversion: the images that one process takes one after the other before it keeps what it found.

Which images make a batch, and which batches a part, follows from their number alone, not from that of the processes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any

import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional as F

from stylegan_inv.data.images.image_files import save_image, to_uint8
from stylegan_inv.latents.saved_codes import GENERATORS, NOISE, RECONSTRUCTIONS, VARIANTS
from stylegan_inv.utils.files import atomic_write
from stylegan_inv.visualization.contact_sheet import difference_image

if TYPE_CHECKING:
    from stylegan_inv.methods.common.base import Inversion

#: The first so many images get a row in a contact sheet.
SHEET_IMAGES = 1024
CELL = 160
_STEPS_SHOWN = 6
_MAX_PARTS = 1000


def parts_of(count: int, batch_size: int) -> list[list[range]]:
    """The batches of each part: consecutive images, at most 1,000 parts of as many batches each."""
    batches = [range(first, min(first + batch_size, count)) for first in range(0, count, batch_size)]
    size = -(-len(batches) // _MAX_PARTS)
    return [batches[first : first + size] for first in range(0, len(batches), size)]


class PartWriter:
    """Writes what was found for the images of a part: pictures at once, the rest at the end.

    Args:
        folder: Output folder.
        pictures: Picture of every image, below the folder.
        metadata: Stored with noise and tuned generators.
        compare: False where the inputs are not what is to be reconstructed (sketches, label maps, holes).
    """

    def __init__(self, folder: Path, pictures: Sequence[str], metadata: Mapping[str, str], compare: bool) -> None:
        self.folder, self.pictures, self.metadata, self.compare = folder, pictures, dict(metadata), compare
        self._index: list[int] = []
        self._codes: list[Tensor] = []
        self._errors: list[Tensor] = []
        self._finite: list[Tensor] = []
        self._rows: dict[str, list[Tensor]] = {}
        self._curves: list[dict[str, Tensor]] = []
        self._unreadable: list[str] = []

    @property
    def count(self) -> int:
        """Images so far."""
        return len(self._index)

    def leave_out(self, unreadable: Sequence[str]) -> None:
        """Note images that cannot be read: what is wrong with each."""
        self._unreadable += unreadable

    def add(
        self,
        index: Sequence[int],
        images: Tensor,
        inversion: Inversion,
        variants: Sequence[Tensor] = (),
        extra: Mapping[str, Tensor] | None = None,
    ) -> None:
        """Take the next images.

        Args:
            index: their numbers, ascending.
            images: (B, 3, S, S).
            inversion: what was found for them.
            variants: other pictures of the same, (B, 3, R, R).
            extra: what else the method was given: other images (B, 3, S, S), masks (B, 1, S, S) in [0, 1].
        """
        size = images.shape[-1]
        final = inversion.image.detach().float()
        shown = final if final.shape[-1] == size else F.adaptive_avg_pool2d(final, (size, size))
        self._errors.append((shown - images).square().flatten(1).mean(1).double().cpu())
        w = inversion.w.detach().float().cpu()
        self._finite.append(final.isfinite().flatten(1).all(1).cpu() & w.isfinite().flatten(1).all(1))
        self._codes.append(w)
        self._index += index
        if curves := getattr(inversion, "curves", None):
            self._curves.append({stage: curve.cpu() for stage, curve in curves.items()})
        shown_too = {name: 2 * t - 1 if t.shape[1] == 1 else t for name, t in (extra or {}).items()}
        columns = {"input": images, **shown_too, **_chosen_steps(inversion)}
        columns.update({f"variant {number}": variant for number, variant in enumerate(variants, start=1)})
        if self.compare:
            columns["difference"] = difference_image(shown, images)
        on_sheet = sum(number < SHEET_IMAGES for number in index)
        if on_sheet:
            for name, column in columns.items():
                self._rows.setdefault(name, []).append(_thumbnails(column[:on_sheet]))
        for row, number in enumerate(index):
            self._save_pictures(number, final[row], [variant[row] for variant in variants], inversion, row)

    def save(self, file: Path) -> None:
        """Keep codes, errors, thumbnails and loss curves for `inversion_result`."""
        tensors = {"index": torch.tensor(self._index, dtype=torch.int64)}
        for name, rows in {"w": self._codes, "squared_error": self._errors, "finite": self._finite}.items():
            if rows:
                tensors[name] = torch.cat(rows).contiguous()
        columns = list(self._rows)
        tensors |= {f"row {k}": torch.cat(self._rows[name]).contiguous() for k, name in enumerate(columns)}
        stages = list(self._curves[0]) if self._curves else []
        for batch, curves in enumerate(self._curves):
            tensors |= {f"curve {k} {batch}": curves[stage].contiguous() for k, stage in enumerate(stages)}
        said: dict[str, Any] = {
            "unreadable": self._unreadable, "columns": columns, "stages": stages, "batches": len(self._curves)
        }  # fmt: skip
        with atomic_write(file) as temporary:
            save_file(tensors, temporary, {name: json.dumps(value) for name, value in said.items()})

    def _save_pictures(
        self, number: int, image: Tensor, variants: Sequence[Tensor], inversion: Inversion, row: int
    ) -> None:
        own = PurePosixPath(self.pictures[number]).relative_to(RECONSTRUCTIONS)
        save_image(image, self.folder / self.pictures[number])
        for k, variant in enumerate(variants, start=1):
            save_image(variant, self.folder / VARIANTS / str(k) / own)
        for place, tensors in {NOISE: _noise_of(inversion, row), GENERATORS: _generator_of(inversion, row)}.items():
            if tensors:
                file = (self.folder / place / own).with_suffix(".safetensors")
                file.parent.mkdir(parents=True, exist_ok=True)
                with atomic_write(file) as temporary:
                    save_file(tensors, temporary, self.metadata)


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
    """What the tuned generator of one image differs by, see `stylegan_inv.generators.variants.difference`."""
    return {name: t[row].detach().cpu().contiguous() for name, t in (inversion.weights or {}).items()}


def _thumbnails(images: Tensor) -> Tensor:
    # Small and in bytes: a sheet of 64 rows of 1024-px images would take gigabytes.
    images = images.detach().float()
    if images.shape[-1] > CELL:
        images = F.interpolate(images, size=(CELL, CELL), mode="bilinear", antialias=True)
    return to_uint8(images).cpu()
